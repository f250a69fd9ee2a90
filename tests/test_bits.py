"""Every batch has the bits of synthpix's own iterator."""

from itertools import islice
from pathlib import Path

import pytest
from kinds import KINDS, base
from oracle import differing, ours, stream, theirs

from synthpix_torch import SynthPixDataset

ENDLESS = [name for name in KINDS if "finite" not in name]
FINITE = [name for name in KINDS if "finite" in name]


@pytest.mark.parametrize("kind", ENDLESS)
def test_batches_are_those_of_synthpix_in_any_order_and_across_an_epoch(
    kind: str, data: Path
) -> None:
    config = KINDS[kind](data)
    oracle = [theirs(batch) for batch in islice(stream(config), 16)]
    with SynthPixDataset(config, epoch_length=None) as dataset:
        passed: list[str] = []
        while dataset.position < len(oracle):
            for batch in dataset:
                assert differing(oracle[batch.number], ours(batch)) == []
                if dataset.position == len(oracle):
                    break
        for number in (13, 0, 5, 2, 12, 1):
            assert differing(oracle[number], ours(dataset.batch_at(number))) == []
        assert passed == []
    epochs = {int(epoch) for batch in oracle for epoch in batch["epoch"]}
    assert len(epochs) > 1 or config.get("batches_per_flow_batch", 1) == 3


@pytest.mark.parametrize("kind", FINITE)
def test_the_full_slots_of_finite_data_are_those_of_synthpix(kind: str, data: Path) -> None:
    config = KINDS[kind](data)
    with SynthPixDataset(config) as dataset:
        total = dataset._order.total
        assert total is not None
        oracle = [theirs(batch) for batch in islice(stream(config), total)]
        partial = 0
        for number, expected in enumerate(oracle):
            batch = ours(dataset.batch_at(number))
            valid = expected["mask"]
            partial += not valid.all()
            assert (batch["mask"] == valid).all()
            for name, value in batch.items():
                if value is None or name == "files" or (name in ("seeds", "keys")):
                    continue
                assert (value[valid] == expected[name][valid]).all(), name
        assert partial > 0


def test_the_layout_of_synthpix_can_be_had() -> None:
    config = base()
    oracle = [theirs(batch) for batch in islice(stream(config), 3)]
    with SynthPixDataset(config, layout="synthpix") as dataset:
        for expected, batch in zip(oracle, dataset, strict=False):
            assert differing(expected, ours(batch)) == []
            if batch.number == 2:
                break
