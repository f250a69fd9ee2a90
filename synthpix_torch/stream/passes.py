"""Iterators over a stream: passes that move its cursor, and fixed windows that do not."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from torch.utils.data import IterableDataset, default_collate, get_worker_info

from synthpix_torch.batch import AnyBatch
from synthpix_torch.integrations.trainer_warnings import check_trainer
from synthpix_torch.interop.compilation import untraced
from synthpix_torch.stream.cursor import Cursor
from synthpix_torch.stream.ranks import Ranks
from synthpix_torch.stream.run import Run
from synthpix_torch.stream.stream import Stream

logger = logging.getLogger("synthpix_torch")


def refuse_workers() -> None:
    """Raise in a worker process of a DataLoader.

    Raises:
        RuntimeError: This is one.
    """
    if get_worker_info() is not None:
        raise RuntimeError(
            "SynthPixDataset makes its batches on the device of this process, workers have "
            "none: use DataLoader(dataset, batch_size=None, num_workers=0)."
        )


def refuse_collation(dataset: object) -> None:
    """Raise if a DataLoader that would collate the batches begins to iterate over `dataset`.

    Raises:
        ValueError: It does. With a collate function of the user's own it may.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.data._utils.fetch":
            loader = frame.f_locals
            if (
                loader.get("dataset") is dataset
                and loader.get("auto_collation")
                and loader.get("collate_fn") is default_collate
            ):
                raise ValueError(
                    "SynthPixDataset yields complete batches, which a DataLoader must not batch "
                    "again: use DataLoader(dataset, batch_size=None) and set batch_size in the "
                    "configuration."
                )
            return
        frame = frame.f_back


class Delivery:
    """Deliver the batches of a stream in the order of its cursor, to one pass at a time.

    The run of the last batch is kept and continued as long as it yields the next batch.
    """

    def __init__(self, stream: Stream, cursor: Cursor, ranks: Ranks, *, ahead: int) -> None:
        """Deliver nothing yet.

        Args:
            stream: Makes the batches.
            cursor: Says which batch is next.
            ranks: Say which batches this process is given.
            ahead: Batches to dispatch before they are requested.
        """
        self._stream = stream
        self._cursor = cursor
        self._ranks = ranks
        self._ahead = ahead
        self._warned = False
        self._ticket: int | None = None
        # Held while a batch is delivered: threads that share a pass get each batch once.
        self.lock = threading.RLock()
        self.run: Run | None = None

    def begin(self) -> tuple[int, int, int, int | None]:
        """Begin a pass.

        Returns:
            Its ticket, rank, world size and number of batches, None if it never ends.

        Raises:
            RuntimeError: The ranks cannot share the stream, or a trainer would lose batches.
        """
        rank, world_size = self._ranks.rank, self._ranks.world_size
        check_trainer(
            tracking=self._cursor.tracking,
            world_size=world_size,
            position=self._cursor.next_start,
            interrupted=self._ticket is not None and self._cursor.is_interrupted(self._ticket),
        )
        self._ticket, length = self._cursor.begin(world_size)
        self._warn_of_shared_flow_batches(world_size)
        return self._ticket, rank, world_size, length

    def deliver(self, ticket: int, rank: int, world_size: int) -> AnyBatch:
        """Deliver the next batch of this rank; after an error the position is unchanged.

        Raises:
            RuntimeError: The pass is not active any more.
        """
        cursor = self._cursor
        if not cursor.is_active(ticket):
            raise RuntimeError(
                "This pass is over: another one began, or the dataset was moved or closed. Call "
                "iter(dataset) again."
            )
        run = self._run_at(cursor.position + rank, world_size)
        try:
            batch = next(run)
        except BaseException:
            self.run = None
            run.close()
            raise
        if not cursor.is_active(ticket):
            raise RuntimeError(
                "The dataset was moved or closed by another thread while a batch was made, which "
                "is not delivered: call iter(dataset) again."
            )
        cursor.deliver(world_size)
        return batch

    def exhaust(self, ticket: int) -> None:
        """Note that the user of a pass was told that it has no further batch."""
        self._cursor.exhaust(ticket)

    def close(self) -> None:
        """Stop prefetching and end the active pass; the position stays."""
        self._cursor.stop()
        run, self.run = self.run, None
        if run is not None:
            run.close()

    def _run_at(self, number: int, stride: int) -> Run:
        run = self.run
        if run is None or (run.number, run.stride) != (number, stride):
            self.run = None
            if run is not None:
                run.close()
            run = self.run = self._stream.run(number, stride=stride, ahead=self._ahead)
        return run

    def _warn_of_shared_flow_batches(self, world_size: int) -> None:
        order = self._stream.order
        shared = world_size > 1 and order.steps > 1 and order.streams == 1 and not order.episodic
        if shared and not self._warned:
            self._warned = True
            logger.warning(
                "With streams=1 each flow batch is read by %d ranks; with streams=%d each rank "
                "reads its own (another order, so for new runs only).",
                min(world_size, order.steps),
                world_size,
            )


class Pass:
    """One pass over a dataset; it begins with its first batch, not before.

    Lightning makes an iterator only to discard it, and loads states after it made another.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._begun: tuple[int, int, int] | None = None
        self._left: int | None = None

    def __iter__(self) -> Iterator[AnyBatch]:
        return self

    @untraced
    def __next__(self) -> AnyBatch:
        """Deliver the next batch.

        Raises:
            RuntimeError: The pass is not active any more.
        """
        with self._delivery.lock:
            if self._begun is None:
                *begun, self._left = self._delivery.begin()
                self._begun = (begun[0], begun[1], begun[2])
            ticket, rank, world_size = self._begun
            if self._left == 0:
                self._delivery.exhaust(ticket)
                raise StopIteration
            left = None if self._left is None else self._left - 1
            batch = self._delivery.deliver(ticket, rank, world_size)
            self._left = left
            return batch


class Owner(Protocol):
    """A dataset, as far as its windows need it."""

    @property
    def stream(self) -> Stream:
        """The stream that makes the batches."""

    @property
    def rank(self) -> int:
        """Number of this process among `world_size`."""

    @property
    def world_size(self) -> int:
        """Number of processes that share the stream."""

    @property
    def ahead(self) -> int:
        """Batches to dispatch before they are requested."""


class Window(IterableDataset[Any]):
    """A fixed range of batches of a stream, the same in every pass; it has a length and no state.

    Several ranks share it as they share the stream. The position of the dataset stays.
    """

    def __init__(self, dataset: Owner, start: int, stop: int) -> None:
        """Choose the batches start to stop - 1, which must lie in the stream."""
        super().__init__()
        self._dataset = dataset
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        """Count the batches on each rank.

        Raises:
            ValueError: The ranks cannot share the batches equally.
        """
        count, world_size = self._stop - self._start, self._dataset.world_size
        if count % world_size:
            raise ValueError(
                f"{world_size} ranks cannot share a window of {count} batches equally: make it "
                f"{count + -count % world_size} batches long."
            )
        return count // world_size

    def __iter__(self) -> Iterator[AnyBatch]:
        """Iterate over all batches of this rank from the first.

        Raises:
            RuntimeError: Called in a worker process of a DataLoader.
            ValueError: A DataLoader would collate the batches; or, from the first batch, the ranks
                cannot share the batches equally.
        """
        refuse_workers()
        refuse_collation(self)
        return _Untraced(self._batches())

    def __repr__(self) -> str:
        return f"<Window of batches {self._start} to {self._stop - 1} of {self._dataset!r}>"

    def _batches(self) -> Iterator[AnyBatch]:
        dataset, length = self._dataset, len(self)
        run = dataset.stream.run(
            self._start + dataset.rank,
            stride=dataset.world_size,
            stop=self._stop,
            ahead=dataset.ahead,
        )
        try:
            for _ in range(length):
                yield next(run)
        finally:
            run.close()


class _Untraced:
    """An iterator that torch.compile does not trace."""

    def __init__(self, batches: Iterator[AnyBatch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[AnyBatch]:
        return self

    @untraced
    def __next__(self) -> AnyBatch:
        return next(self._batches)
