"""Consecutive batches of a stream: flow batches are prefetched, batches are dispatched ahead."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final, NamedTuple

from synthpix_torch.batch import AnyBatch, to_batch
from synthpix_torch.data.flow_batches import Flows
from synthpix_torch.interop.dlpack import Bridge
from synthpix_torch.interop.exiting import Making
from synthpix_torch.render.programs import Loaded, Rendered
from synthpix_torch.render.step import Renderer
from synthpix_torch.stream.order import Order

_MAKING: Final = Making()


class Stages(NamedTuple):
    """The stages that make a batch from its number, without a position.

    Attributes:
        order: Which flow batch makes which batch.
        flows: The flow batches.
        renderer: Turns flow batches into the arrays of a batch.
        bridge: Turns the arrays into tensors.
        batch_size: Pairs in a batch.
    """

    order: Order
    flows: Flows
    renderer: Renderer
    bridge: Bridge
    batch_size: int


class _Dispatched(NamedTuple):
    """A batch whose arrays may still be being computed."""

    number: int
    rendered: Rendered
    files: tuple[str, ...]


class Run:
    """The batches start, start + stride, ... in this order only; must be closed.

    Flow batches are prefetched in the background from the start, and the device computes the next
    batches while one is used.
    """

    def __init__(
        self, stages: Stages, start: int, *, stride: int, stop: int | None, ahead: int
    ) -> None:
        """Begin to prefetch flow batches.

        Args:
            stages: Make the batches.
            start: Number of the first batch, which must lie in the stream.
            stride: Distance from one batch to the next.
            stop: Number before which the run ends, None for the end of the stream.
            ahead: Batches to dispatch before they are requested.
        """
        self._stages = stages
        self._start = start
        self._stride = stride
        total = stages.order.total
        self._stop = total if stop is None else stop if total is None else min(stop, total)
        self._ahead = ahead
        self._dispatched: deque[_Dispatched] = deque()
        self._next = start
        self._loaded: dict[int, tuple[Loaded, tuple[str, ...]]] = {}
        # Without this object: a forgotten run ends at once, and its threads with it.
        self._reader = stages.flows.read(partial(_planned, stages.order, start, stride, self._stop))
        self._failure: Exception | None = None

    @property
    def number(self) -> int:
        """Number of the next batch."""
        return self._dispatched[0].number if self._dispatched else self._next

    @property
    def stride(self) -> int:
        """Distance from one batch to the next."""
        return self._stride

    @property
    def dispatched(self) -> int:
        """Number of batches dispatched and not delivered."""
        return len(self._dispatched)

    @property
    def loaded_flow_batches(self) -> int:
        """Number of flow batches held on the device for later batches."""
        return len(self._loaded)

    def __next__(self) -> AnyBatch:
        """Make the next batch.

        An error while reading for a later batch is raised when that batch is requested; after
        that the run is over.

        Raises:
            RuntimeError: JAX's random flags have changed, the run was closed, or a CUDA graph is
                being captured.
        """
        with _MAKING:
            self._stages.bridge.refuse_capture()
            self._stages.renderer.check_flags()
            if not self._dispatched:
                if self._failure is not None:
                    raise self._failure
                self._dispatch()
            # Before the wait for this batch: what is in flight together is rendered side by side.
            self._dispatch_ahead()
            number, rendered, files = self._dispatched.popleft()
            return to_batch(rendered, files=files, number=number, bridge=self._stages.bridge)

    def close(self) -> None:
        """Stop prefetching and drop what was dispatched; the next use raises."""
        self._failure = RuntimeError("The dataset was closed under way: begin a new iteration.")
        self._reader.close()
        self._dispatched.clear()
        self._loaded.clear()

    def _dispatch_ahead(self) -> None:
        """Dispatch the batches after the next one, up to the number chosen.

        The first batch does not wait until the flow fields of others are read. An error is raised
        when its batch is requested.
        """
        while (
            self._failure is None
            and len(self._dispatched) <= self._ahead
            and (self._stop is None or self._next < self._stop)
            and (self.number != self._start or self._is_at_hand(self._next))
        ):
            try:
                self._dispatch()
            except Exception as error:
                # The traceback would keep this object alive.
                self._failure = error.with_traceback(None)

    def _is_at_hand(self, number: int) -> bool:
        """Tell whether no file has to be read for a batch."""
        place = self._stages.order.place(number)
        return place.flow_batch in self._loaded or self._stages.flows.quick

    def _dispatch(self) -> None:
        stages = self._stages
        place = stages.order.place(self._next)
        if place.flow_batch not in self._loaded:
            flow_batch = next(self._reader)
            assert flow_batch.number == place.flow_batch
            loaded = stages.renderer.load(flow_batch)
            self._loaded[place.flow_batch] = (loaded, self._files(flow_batch.files))
        loaded, files = self._loaded[place.flow_batch]
        rendered = stages.renderer.render(
            loaded, repetition=place.repetition, last_step=place.last_step
        )
        if not stages.order.used_again(self._next, self._stride):
            del self._loaded[place.flow_batch]
        self._dispatched.append(_Dispatched(self._next, rendered, files))
        self._next += self._stride

    def _files(self, files: tuple[str, ...]) -> tuple[str, ...]:
        size = self._stages.batch_size
        return (files * -(-size // len(files)))[:size]


def _planned(order: Order, start: int, stride: int, stop: int | None, index: int) -> int | None:
    """Return the `index`-th flow batch that a run needs; called by Grain's threads."""
    number = order.first_use(start, stride, index)
    if number is None or (stop is not None and number >= stop):
        return None
    return order.place(number).flow_batch
