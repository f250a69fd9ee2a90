"""Every batch has the bits of synthpix's own iterator."""

from itertools import islice
from pathlib import Path

import pytest
from kinds import KINDS, RESIZED, base
from oracle import differing, ours, stream, theirs

from synthpix_torch import SynthPixDataset

ENDLESS = [name for name in KINDS if "finite" not in name and "device" not in name]
FINITE = [name for name in KINDS if "finite" in name]


@pytest.mark.parametrize("kind", ENDLESS)
def test_batches_are_those_of_synthpix_in_any_order_and_across_an_epoch(
    kind: str, data: Path
) -> None:
    config = (KINDS | RESIZED)[kind](data)
    oracle = [theirs(batch) for batch in islice(stream(config), 16)]
    with SynthPixDataset(config, renderer="synthpix") as dataset:
        while dataset.position < len(oracle):
            for batch in dataset:
                assert differing(oracle[batch.number], ours(batch)) == []
                if dataset.position == len(oracle):
                    break
        for number in (13, 0, 5, 2, 12, 1):
            assert differing(oracle[number], ours(dataset.batch_at(number))) == []
    epochs = {int(epoch) for batch in oracle for epoch in batch["epoch"]}
    assert len(epochs) > 1 or config.get("batches_per_flow_batch", 1) == 3


@pytest.mark.parametrize("kind", FINITE)
def test_the_full_slots_of_finite_data_are_those_of_synthpix(kind: str, data: Path) -> None:
    config = (KINDS | RESIZED)[kind](data)
    with SynthPixDataset(config, renderer="synthpix") as dataset:
        total = dataset.stream.order.total
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
    with SynthPixDataset(config, layout="synthpix", renderer="synthpix") as dataset:
        for expected, batch in zip(oracle, dataset, strict=False):
            assert differing(expected, ours(batch)) == []
            if batch.number == 2:
                break


@pytest.mark.parametrize("kind", [name for name in ENDLESS if "real" not in name])
def test_our_own_renderer_uses_the_records_of_synthpix_in_its_order(kind: str, data: Path) -> None:
    config = KINDS[kind](data)
    oracle = [theirs(batch) for batch in islice(stream(config), 5)]
    with SynthPixDataset(config) as dataset:
        for number in (4, 0, 3):
            expected, batch = oracle[number], ours(dataset.batch_at(number))
            for name in ("files", "epoch", "mask", "done"):
                assert differing({name: expected[name]}, {name: batch[name]}) == [], name
            for name in ("images1", "images2", "keys"):
                assert (batch[name] != expected[name]).any(), name


def test_fields_made_on_the_device_are_a_function_of_the_number(data: Path) -> None:
    config = base(scheduler_class="kinematic-device", batches_per_flow_batch=2)
    with SynthPixDataset(config) as dataset, SynthPixDataset(config) as again:
        batches = [ours(batch) for batch in islice(dataset, 9)]
        for number in (8, 1, 0, 5):
            assert differing(batches[number], ours(again.batch_at(number))) == []
    # An epoch has 14 records: each makes the same field again in the next.
    fields = {
        file: batch["flow_fields"][i] for batch in batches for i, file in enumerate(batch["files"])
    }
    assert len(fields) == 14
    assert len({field.tobytes() for field in fields.values()}) == 14
    assert all(abs(field).max() <= 2.0 for field in fields.values())


def test_synthpix_makes_no_fields_on_the_device() -> None:
    with pytest.raises(ValueError, match="synthpix makes no flow fields on the device"):
        SynthPixDataset(base(scheduler_class="kinematic-device"), renderer="synthpix")
