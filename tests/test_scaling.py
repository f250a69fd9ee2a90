"""The formulas and the table of docs/distributed.md agree with `Order`."""

import re
from math import gcd
from pathlib import Path

import pytest

from synthpix_torch.stream.order import Order

PAGE = Path(__file__).parent.parent / "docs" / "distributed.md"


def count(order: Order, world_size: int) -> tuple[int, float]:
    """Walk through the stream as the ranks do.

    Returns:
        The largest number of flow batches active on one rank, and how often each flow batch is
        read by all ranks together.
    """
    # Enough groups for every rank to do the same number of steps.
    batches = order.group_size * world_size // gcd(order.group_size, world_size)
    read = most = 0
    # All ranks read equally many: three of them tell for all.
    ranks = {0, 1, world_size - 1} & set(range(world_size))
    for rank in ranks:
        active: set[int] = set()
        for number in range(rank, batches, world_size):
            flow_batch = order.place(number).flow_batch
            read += flow_batch not in active
            active.add(flow_batch)
            most = max(most, len(active))
            if not order.used_again(number, world_size):
                active.discard(flow_batch)
    return most, read / len(ranks) * world_size / (batches // order.steps)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 64, 1024])
@pytest.mark.parametrize("streams", [1, 2, 8, 64, 1024])
@pytest.mark.parametrize("repetitions", [1, 3, 8])
def test_active_flow_batches_and_read_amplification_follow_the_formulas(
    world_size: int, streams: int, repetitions: int
) -> None:
    shared = gcd(streams, world_size)
    active, amplification = count(Order(steps=repetitions, streams=streams), world_size)
    assert active <= streams // shared
    assert amplification == pytest.approx(min(world_size / shared, repetitions))


def test_the_table_for_8_repetitions_agrees_with_the_order() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.M)
    assert [int(row[0]) for row in rows] == [1, 8, 64, 1024]
    for world_size, *cells in (map(int, row) for row in rows):
        one_stream = count(Order(steps=8, streams=1), world_size)
        stream_per_rank = count(Order(steps=8, streams=world_size), world_size)
        assert [*one_stream, *stream_per_rank] == cells
