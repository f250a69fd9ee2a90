"""The order of records is that of Grain's own sampler, and their draws are synthpix's."""

import sys

import grain.python as grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from synthpix.make import AddJAXSeed

from synthpix_torch.data.record_order import RecordOrder, epoch_order

SEEDS = st.integers(0, 2**32 - 1)


def of_grain(records: int, *, shuffle: bool = True, seed: int = 0) -> grain.IndexSampler:
    return grain.IndexSampler(
        num_records=records, shuffle=shuffle, seed=seed, shard_options=grain.NoSharding()
    )


@examples(max_examples=150, deadline=None)
@given(
    records=st.one_of(st.integers(20, 400), st.integers(401, 70_000)),
    seed=SEEDS,
    place=st.floats(0, 1, exclude_max=True),
    epoch=st.integers(0, 2**33),
    shuffle=st.booleans(),
)
def test_the_order_is_that_of_grains_sampler(
    records: int, seed: int, place: float, epoch: int, shuffle: bool
) -> None:
    index = epoch * records + int(place * records)
    order = RecordOrder(records, shuffle=shuffle, seed=seed, loop=True)
    theirs = of_grain(records, shuffle=shuffle, seed=seed)
    assert order.number(index) == theirs[index].record_key


@pytest.mark.parametrize("records", [1, 2, 3, 10, 255, 256, 257, 65_535, 65_536, 65_537])
def test_the_order_of_few_and_of_many_records_is_that_of_grain(records: int) -> None:
    order = RecordOrder(records, shuffle=True, seed=2**32 - 1, loop=True)
    theirs = of_grain(records, seed=2**32 - 1)
    # The seed of the second epoch is 0 again.
    for index in {0, records // 2, records - 1, records, records + records // 3}:
        assert order.number(index) == theirs[index].record_key


@examples(max_examples=20, deadline=None)
@given(records=st.integers(1, 65_536), seed=SEEDS)
def test_an_epoch_serves_every_record_once(records: int, seed: int) -> None:
    np.testing.assert_array_equal(np.sort(epoch_order(records, seed)), np.arange(records))


def test_the_order_of_an_epoch_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(10, 0)[0] = 1


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_draws_are_those_of_synthpix(seed: int) -> None:
    order = RecordOrder(10, shuffle=True, seed=seed, loop=True)
    theirs = of_grain(10, seed=seed)
    for index in (0, 1, 9, 10, 12_345):
        drawn = AddJAXSeed().random_map({}, theirs[index].rng)
        assert order.draw(index) == drawn["jax_seed"]


def test_finite_data_has_one_epoch() -> None:
    assert len(RecordOrder(10, shuffle=True, seed=0, loop=False)) == 10
    assert len(RecordOrder(10, shuffle=True, seed=0, loop=True)) == sys.maxsize
