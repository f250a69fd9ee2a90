"""What iterates over a dataset: one pass of its stream, and a fixed window of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from synthpix_torch.batch import AnyBatch

if TYPE_CHECKING:
    from synthpix_torch.dataset import SynthPixDataset


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


class Pass:
    """One pass over a dataset; it begins with its first batch, not before.

    Lightning makes an iterator only to throw it away, and loads states after it made another.
    """

    def __init__(self, dataset: SynthPixDataset) -> None:
        self._dataset = dataset
        self._begun = False
        self._rank = 0
        self._world_size = 1
        self._left: int | None = None

    def __iter__(self) -> Iterator[AnyBatch]:
        return self

    def __next__(self) -> AnyBatch:
        with self._dataset._delivering:
            return self._next(self._dataset)

    def _next(self, dataset: SynthPixDataset) -> AnyBatch:
        if not self._begun:
            self._rank, self._world_size, self._left = dataset._begin(self)
            self._begun = True
        if self._left == 0:
            dataset._end(self)
            raise StopIteration
        if not dataset._is_live(self):
            self._refuse()
        left = None if self._left is None else self._left - 1
        batch = dataset._advance(self._rank, self._world_size)
        self._left = left
        return batch

    def _refuse(self) -> NoReturn:
        raise RuntimeError(
            "This pass is over: another one began, or the dataset was moved or closed. Call "
            "iter(dataset) again."
        )


class Window(IterableDataset[Any]):
    """A fixed piece of a stream, the same at every pass; it has a length and no state.

    Several ranks share it as they share the stream. The dataset that it belongs to is not
    disturbed.
    """

    def __init__(self, dataset: SynthPixDataset, start: int, stop: int) -> None:
        super().__init__()
        self._dataset = dataset
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        """Batches on each rank.

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
        """All batches of this rank from the beginning.

        Raises:
            RuntimeError: Called in a worker process of a DataLoader.
            ValueError: From the first batch: the ranks cannot share the batches equally.
        """
        refuse_workers()
        return self._batches()

    def _batches(self) -> Iterator[AnyBatch]:
        length, stride = len(self), self._dataset.world_size
        start = self._start + self._dataset.rank
        run = self._dataset._pipeline.run(
            start, stride=stride, stop=self._stop, ahead=self._dataset._ahead
        )
        self._dataset._windows.add(run)
        try:
            for _ in range(length):
                batch = self._dataset._take(run)
                run.dispatch_ahead()
                yield batch
        finally:
            run.close()
