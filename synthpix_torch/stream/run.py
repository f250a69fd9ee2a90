"""Batch n as device arrays: flow batches in use stay on the device, work is dispatched ahead."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import NamedTuple

from synthpix_torch.data.flow_batches import Flows
from synthpix_torch.render.step import Loaded, Rendered, Renderer
from synthpix_torch.stream.order import Order


class Made(NamedTuple):
    """A batch that has been dispatched.

    Attributes:
        number: Its place in the stream.
        rendered: Its arrays, maybe still being computed.
        files: Where each of its pairs comes from.
    """

    number: int
    rendered: Rendered
    files: tuple[str, ...]


class Pipeline(NamedTuple):
    """Makes batches from their numbers alone; holds no position and no batch.

    Attributes:
        order: Which flow batch makes which batch.
        flows: The flow batches.
        renderer: What turns them into batches.
        batch_size: Pairs in a batch.
    """

    order: Order
    flows: Flows
    renderer: Renderer
    batch_size: int

    def run(self, start: int, *, stride: int = 1, stop: int | None = None, ahead: int = 0) -> Run:
        """Make the batches start, start + stride, ... before `stop`, which lie in the stream."""
        return Run(self, start, stride=stride, stop=stop, ahead=ahead)


class Run:
    """Batches at a fixed stride, made in this order only; must be closed.

    Flow batches are read in the background from the beginning on. Whoever takes a batch hands it
    over first and then calls `dispatch_ahead`, so that the device computes up to `ahead` batches
    while nobody waits for it.
    """

    def __init__(
        self, pipeline: Pipeline, start: int, *, stride: int, stop: int | None, ahead: int
    ) -> None:
        self._pipeline = pipeline
        self._start = start
        self._stride = stride
        total = pipeline.order.total
        self._stop = total if stop is None else stop if total is None else min(stop, total)
        self._ahead = ahead
        self._dispatched: deque[Made] = deque()
        self._next = start
        self._in_use: dict[int, tuple[Loaded, tuple[str, ...]]] = {}
        # Without this object: one that is forgotten shall end at once, and its threads with it.
        self._reader = pipeline.flows.read(
            partial(_planned, pipeline.order, start, stride, self._stop)
        )
        self._failure: Exception | None = None

    @property
    def number(self) -> int:
        """The number of the batch that `next` gives."""
        return self._dispatched[0].number if self._dispatched else self._next

    @property
    def stride(self) -> int:
        """The distance from one batch to the next."""
        return self._stride

    def __next__(self) -> Made:
        """The next batch.

        An error while reading for a later batch is raised when that batch is asked for; after
        that the run is over.

        Raises:
            RuntimeError: JAX's random flags have changed, or the run was closed.
        """
        self._pipeline.renderer.check_flags()
        if not self._dispatched:
            if self._failure is not None:
                raise self._failure
            self._dispatch()
        return self._dispatched.popleft()

    def close(self) -> None:
        """Stop reading ahead and drop what was made ahead; the next use is an error."""
        self._failure = RuntimeError("The dataset was closed under way: begin a new iteration.")
        self._reader.close()
        self._dispatched.clear()
        self._in_use.clear()

    def dispatch_ahead(self) -> None:
        """Dispatch the batches that come next, once the last one has been handed over.

        Not after the first batch, which is not kept waiting for the flow fields of the second. An
        error is kept for the batch that it belongs to.
        """
        while (
            self._failure is None
            and self._next != self._start + self._stride
            and len(self._dispatched) < self._ahead
            and (self._stop is None or self._next < self._stop)
        ):
            try:
                self._dispatch()
            except Exception as error:
                # What it went through would hold this object.
                self._failure = error.with_traceback(None)

    def _dispatch(self) -> None:
        place = self._pipeline.order.place(self._next)
        if place.flow_batch not in self._in_use:
            flow_batch = next(self._reader)
            assert flow_batch.number == place.flow_batch
            loaded = self._pipeline.renderer.load(flow_batch)
            self._in_use[place.flow_batch] = (loaded, self._files(flow_batch.files))
        loaded, files = self._in_use[place.flow_batch]
        rendered = self._pipeline.renderer.render(
            loaded, repetition=place.repetition, last_step=place.last_step
        )
        if not self._pipeline.order.used_again(self._next, self._stride):
            del self._in_use[place.flow_batch]
        self._dispatched.append(Made(self._next, rendered, files))
        self._next += self._stride

    def _files(self, files: tuple[str, ...]) -> tuple[str, ...]:
        size = self._pipeline.batch_size
        return (files * -(-size // len(files)))[:size]


def _planned(order: Order, start: int, stride: int, stop: int | None, index: int) -> int | None:
    """The `index`-th flow batch that a run needs, asked for by Grain's threads."""
    number = order.first_use(start, stride, index)
    if number is None or (stop is not None and number >= stop):
        return None
    return order.place(number).flow_batch
