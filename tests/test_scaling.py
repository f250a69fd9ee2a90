"""The formulas of docs/distributed.md are those of the order."""

from math import gcd

import pytest

from synthpix_torch.stream.order import Order


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 64, 1024])
@pytest.mark.parametrize("streams", [1, 2, 8, 64, 1024])
@pytest.mark.parametrize("repetitions", [1, 3, 8])
def test_use_and_reading_of_flow_batches_scale_as_documented(
    world_size: int, streams: int, repetitions: int
) -> None:
    order = Order(steps=repetitions, streams=streams)
    shared = gcd(streams, world_size)
    # So many groups that every rank has done the same number of steps.
    batches = order.group_size * world_size // gcd(order.group_size, world_size)
    read = 0
    ranks = {0, 1, world_size - 1} & set(range(world_size))
    for rank in ranks:
        in_use: set[int] = set()
        most = 0
        for number in range(rank, batches, world_size):
            flow_batch = order.place(number).flow_batch
            read += flow_batch not in in_use
            in_use.add(flow_batch)
            most = max(most, len(in_use))
            if not order.used_again(number, world_size):
                in_use.discard(flow_batch)
        assert most <= streams // shared
    flow_batches = batches // repetitions
    amplification = read / len(ranks) * world_size / flow_batches
    assert amplification == pytest.approx(min(world_size / shared, repetitions))


def test_the_table_is_the_formula() -> None:
    for world_size in (1, 8, 64, 1024):
        for streams in (1, world_size):
            shared = gcd(streams, world_size)
            expected = 8 if streams == 1 and world_size > 1 else 1
            assert min(world_size / shared, 8) == expected
            assert streams // shared == 1
