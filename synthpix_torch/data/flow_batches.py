"""Flow batches by index, read ahead by Grain's threads within bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import grain.python as grain
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from synthpix_torch.config.config import Config
from synthpix_torch.data.memory import aligned
from synthpix_torch.data.plausibility import Remark
from synthpix_torch.data.record_order import RecordOrder
from synthpix_torch.data.records import Record, Records
from synthpix_torch.interop.exiting import is_exiting, refusal


class FlowBatch(NamedTuple):
    """The flow fields that one or more batches are made from, on the host.

    Attributes:
        number: Place of the flow batch in the stream.
        record_numbers: Number of each record among all, 0 where `valid` is False.
        flow_fields: Zero where `valid` is False; None if they are made on the device.
        images: The real image pairs, zero where `valid` is False; None if images are rendered.
        seeds: 32 random bits for each record, as synthpix draws them; 0 where `valid` is False.
        epochs: How often the data had been used up before each record.
        valid: False where finite data had no record left.
        files: Where each record comes from, "" where `valid` is False.
    """

    number: int
    record_numbers: Int[np.ndarray, " f"]
    flow_fields: Num[np.ndarray, "f h w c"] | None
    images: Num[np.ndarray, "f 2 y x"] | None
    seeds: Int[np.ndarray, " f"]
    epochs: Int[np.ndarray, " f"]
    valid: Bool[np.ndarray, " f"]
    files: tuple[str, ...]


class _Element(NamedTuple):
    """One slot of a flow batch. `record` is None where finite data has no record left."""

    flow_batch: int
    record_number: int
    record: Record | None
    seed: int
    epoch: int


class _Portion(NamedTuple):
    """Consecutive slots of a flow batch, and the memory of their flow fields if they share one."""

    elements: list[_Element]
    flow_fields: Float[np.ndarray, "slots h w 2"] | None


_LARGEST_PORTION: Final = 8
"""Records of an item; a thread completes its item after `close`."""

_AFTER_THE_END = _Element(-1, 0, None, 0, 0)
_NOT_READ = _Element(-2, 0, None, 0, 0)


class Flows:
    """Random access to the flow batches of a configuration.

    synthpix reads batch_size records for each flow batch and uses the first flow_fields_per_batch
    of them; here only those are read. Slot i of flow batch f is record f * batch_size + i of the
    stream that Grain's IndexSampler orders.
    """

    def __init__(self, config: Config, records: Records) -> None:
        self._config = config
        self._records = records
        self._order = RecordOrder(
            len(records), shuffle=config.randomize, seed=config.seed, loop=config.loop
        )

    @property
    def records(self) -> int:
        """Number of records."""
        return len(self._records)

    @property
    def quick(self) -> bool:
        """True if flow fields are generated as fast as rendered, and not read."""
        return self._records.quick

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every flow field: rows, columns, components."""
        assert self._records.shape is not None
        return self._records.shape

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """The remarks on odd records so far, one for each kind."""
        return self._records.remarks

    @property
    def names_in_grain(self) -> dict[str, str]:
        """Names of this order and these records in the checkpoints of synthpix."""
        return {"sampler": self._order.name_in_grain, "data_source": self._records.name_in_grain}

    @property
    def count(self) -> int | None:
        """Number of flow batches, None if the data is used again and again."""
        if self._config.loop:
            return None
        return -(-len(self._records) // self._config.batch_size)

    def canonical(self) -> grain.MapDataset[_Element]:
        """All slots of all flow batches in the order of the stream, one element a record.

        The `grain` item of a state is the state of an iterator over this dataset.
        """
        count = self.count
        return grain.MapDataset.source(
            self._planned(lambda index: index if count is None or index < count else None)
        )

    def read(self, plan: Callable[[int], int | None]) -> FlowReader:
        """Read the flow batches plan(0), plan(1), ... ahead, until the plan gives None.

        At most `buffer_size` records wait (by default those of two flow batches), read by at most
        `num_threads` threads. With either at 0 nothing is prefetched.
        """
        size = self._config.records_per_flow_batch
        buffer = self._config.buffer_size
        buffer = 2 * size if buffer is None else buffer
        # Grain warns of threads that could never have anything to do. Those of quick generators do
        # not wait for files: more of them would disturb each other and the device's.
        useful = max(1, (os.cpu_count() or 1) // 2) if self.quick else buffer
        threads = min(self._config.num_threads, buffer, useful)
        portion = max(1, min(size, buffer) // max(1, threads))
        portions = _Portions(
            self._planned(plan), self._records.memory, size, min(portion, _LARGEST_PORTION)
        )
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=buffer // portions.portion
        )
        read = grain.MapDataset.source(portions).to_iter_dataset(options)
        return FlowReader(iter(read), portions.count, self._records.report)

    def _planned(self, plan: Callable[[int], int | None]) -> _Plan:
        return _Plan(plan, self._element, self._config.records_per_flow_batch)

    def _element(
        self, flow_batch: int, slot: int, out: Float[np.ndarray, "h w 2"] | None
    ) -> _Element:
        index = flow_batch * self._config.batch_size + slot
        last = len(self._order) - 1
        if index > last:
            return _Element(flow_batch, 0, None, 0, last // len(self._records))
        number = self._order.number(index)
        record = self._records.read(number, out=out)
        epoch = index // len(self._records)
        if record.repeated and not self._config.loop:
            return _Element(flow_batch, 0, None, 0, epoch)
        return _Element(flow_batch, number, record, self._order.draw(index), epoch)


class _Plan:
    """The elements of planned flow batches, as a source that Grain reads by index."""

    def __init__(
        self,
        plan: Callable[[int], int | None],
        element: Callable[[int, int, np.ndarray | None], _Element],
        size: int,
    ) -> None:
        self._plan = plan
        self._element = element
        self._size = size

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> _Element:
        return self.element(*divmod(index, self._size))

    def element(
        self, position: int, slot: int, *, out: Float[np.ndarray, "h w 2"] | None = None
    ) -> _Element:
        """Read a slot of a planned flow batch; a field that is generated goes to `out`."""
        if is_exiting():
            return _NOT_READ
        flow_batch = self._plan(position)
        # Prefetched, but never requested: Grain would skip None and continue without end.
        return _AFTER_THE_END if flow_batch is None else self._element(flow_batch, slot, out)


class _Portions:
    """Portions of planned flow batches, because Grain takes 0.3 ms of processor time for each item.

    Attributes:
        count: Portions of a flow batch.
        portion: Slots of each; the last of a flow batch may have fewer.
    """

    def __init__(
        self, plan: _Plan, memory: Callable[[int], np.ndarray | None], size: int, portion: int
    ) -> None:
        self._plan = plan
        self._memory = memory
        self._size = size
        self.portion = portion
        self.count = -(-size // portion)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> _Portion:
        position, number = divmod(index, self.count)
        first = number * self.portion
        slots = range(first, min(first + self.portion, self._size))
        fields = self._memory(len(slots))
        outs = [None] * len(slots) if fields is None else fields
        elements = [
            self._plan.element(position, slot, out=out)
            for slot, out in zip(slots, outs, strict=True)
        ]
        empty = [slot for slot, element in enumerate(elements) if element.record is None]
        # Nothing is read of a portion without a record.
        if fields is not None and len(empty) < len(elements):
            fields[empty] = 0
        return _Portion(elements, fields)


class FlowReader:
    """Flow batches in the planned order; must be closed."""

    def __init__(
        self, portions: Any, count: int, report: Callable[[Iterable[Remark]], None]
    ) -> None:
        self._portions = portions
        self._count = count
        self._report = report
        self._portions.start_prefetch()

    def __iter__(self) -> Iterator[FlowBatch]:
        return self

    def __next__(self) -> FlowBatch:
        """Wait for the next flow batch. An error while reading a record of it is raised here.

        Warns:
            PhysicsWarning: A record of it is odd in a new way.

        Raises:
            SystemExit: The process exits; ends a daemon thread silently.
            RuntimeError: The process exits, and this thread is no daemon.
        """
        portions = [next(self._portions) for _ in range(self._count)]
        elements = [element for portion in portions for element in portion.elements]
        if any(element is _NOT_READ for element in elements):
            raise refusal()
        for element in elements:
            if element.record is not None:
                self._report(element.record.remarks)
        return _collate(elements, portions[0].flow_fields if len(portions) == 1 else None)

    def close(self) -> None:
        """Stop reading. Threads end with the records that they are reading, each at most 8."""
        self._portions.close()


def _collate(
    elements: list[_Element], flow_fields: Float[np.ndarray, "f h w 2"] | None
) -> FlowBatch:
    """Make a flow batch of its slots, and of the memory that their flow fields may share."""
    records = [element.record for element in elements]
    first = records[0]
    # Finite data leaves the last slots empty, never the first.
    assert first is not None
    images = None
    if first.flow_field is not None and flow_fields is None:
        empty = np.zeros_like(first.flow_field)
        flow_fields = _stack(
            [empty if r is None or r.flow_field is None else r.flow_field for r in records]
        )
    if first.images is not None:
        blank = (np.zeros_like(first.images[0]), np.zeros_like(first.images[1]))
        images = _stack([np.stack((r and r.images) or blank) for r in records])
    return FlowBatch(
        number=elements[0].flow_batch,
        record_numbers=np.array([element.record_number for element in elements], np.int64),
        flow_fields=flow_fields,
        images=images,
        seeds=np.array([element.seed for element in elements], np.int64),
        epochs=np.array([element.epoch for element in elements], np.int64),
        valid=np.array([element.record is not None for element in elements]),
        files=tuple("" if record is None else record.file for record in records),
    )


def _stack(arrays: list[Num[np.ndarray, "..."]]) -> Num[np.ndarray, "f ..."]:
    """Stack arrays in memory that JAX on a CPU uses as it is, without a copy."""
    first = arrays[0]
    return np.stack(arrays, out=aligned((len(arrays), *first.shape), first.dtype))
