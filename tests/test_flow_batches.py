"""Flow batches on the host: where their memory lies, and that no reading plan changes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from kinds import base

from synthpix_torch.config.reading import read_config
from synthpix_torch.data.fields import GeneratedFields
from synthpix_torch.data.flow_batches import FlowBatch, Flows
from synthpix_torch.data.records import Records


@contextmanager
def flow_batches(**changes: Any) -> Iterator[Iterator[FlowBatch]]:
    config = read_config(base(**changes))
    flows = Flows(config, Records(config))
    count = flows.count
    reader = flows.read(lambda index: index if count is None or index < count else None)
    try:
        yield reader
    finally:
        reader.close()


def fields(batch: FlowBatch) -> np.ndarray:
    assert batch.flow_fields is not None
    return batch.flow_fields


@pytest.mark.parametrize("kind", ["kinematic", "shear"])
def test_fields_are_generated_in_the_memory_of_their_flow_batch(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[np.ndarray] = []
    source = type(Records(read_config(base(scheduler_class=kind)))._on_host)
    assert issubclass(source, GeneratedFields)
    generate = source.generate

    def noted(self: Any, index: int, **options: Any) -> np.ndarray:
        field: np.ndarray = generate(self, index, **options)
        # Not those that are looked at before, for folding.
        generated.extend([field] if "out" in options else [])
        return field

    monkeypatch.setattr(source, "generate", noted)
    with flow_batches(scheduler_class=kind, num_threads=1) as batches:
        whole = fields(next(batches))
    # In slot order, because one thread reads them all.
    for slot, field in zip(whole, generated[:4], strict=True):
        assert slot.ctypes.data == field.ctypes.data
    assert whole.ctypes.data % 64 == 0


@pytest.mark.parametrize("kind", ["kinematic", "shear"])
@pytest.mark.parametrize("plan", [{"buffer_size": 0}, {"buffer_size": 1}, {"buffer_size": 3}])
def test_flow_batches_are_the_same_however_they_are_read(kind: str, plan: dict[str, int]) -> None:
    with (
        flow_batches(scheduler_class=kind) as one,
        flow_batches(scheduler_class=kind, **plan) as two,
    ):
        for _ in range(3):
            ours, theirs = next(one), next(two)
            np.testing.assert_array_equal(fields(ours), fields(theirs))
            assert ours.files == theirs.files


@pytest.mark.parametrize("plan", [{}, {"buffer_size": 1}])
def test_empty_slots_of_generated_fields_are_zero(plan: dict[str, int]) -> None:
    # 14 records in flow batches of 4: the last has two.
    with flow_batches(loop=False, **plan) as batches:
        *_, last = (next(batches) for _ in range(4))
    assert last.valid.tolist() == [True, True, False, False]
    assert fields(last)[:2].any(axis=(1, 2, 3)).all()
    assert not fields(last)[2:].any()
