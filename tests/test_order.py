"""The order of the stream: every claim is checked against counting by hand."""

from hypothesis import given
from hypothesis import strategies as st

from synthpix_torch.stream.order import Order

small = st.integers(1, 6)
orders = st.builds(
    Order, steps=small, streams=small, units=st.none() | st.integers(1, 12), episodic=st.booleans()
)
finite_orders = st.builds(
    Order, steps=small, streams=small, units=st.integers(1, 12), episodic=st.booleans()
)


@given(orders, st.integers(0, 200))
def test_place_is_the_formula_of_the_design(order: Order, number: int) -> None:
    if order.total is not None and number >= order.streams * (order.total // order.group_size):
        return
    stream, step = number % order.streams, number // order.streams
    unit = step // order.steps * order.streams + stream
    place = order.place(number)
    if order.episodic:
        assert (place.flow_batch, place.repetition) == (unit * order.steps + step % order.steps, 0)
    else:
        assert (place.flow_batch, place.repetition) == (unit, step % order.steps)


def test_one_stream_is_the_order_of_synthpix() -> None:
    order = Order(steps=3)
    places = [(order.place(n).flow_batch, order.place(n).repetition) for n in range(7)]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


@given(finite_orders)
def test_finite_data_serves_every_repetition_of_every_flow_batch_once(order: Order) -> None:
    assert order.total is not None
    served = sorted(
        (p.flow_batch, p.repetition) for p in (order.place(n) for n in range(order.total))
    )
    assert order.units is not None
    if order.episodic:
        assert served == [(f, 0) for f in range(order.units * order.steps)]
    else:
        assert served == [(f, k) for f in range(order.units) for k in range(order.steps)]


@given(orders, st.integers(0, 60))
def test_a_stream_takes_its_steps_in_time_order(order: Order, number: int) -> None:
    group = number // order.group_size
    if order.total is not None and number >= order.total:
        return
    later = number + order.streams_of(group)
    if later >= (group + 1) * order.group_size or (order.total and later >= order.total):
        assert order.place(number).last_step
        return
    here, there = order.place(number), order.place(later)
    if order.episodic:
        assert there.flow_batch == here.flow_batch + 1
    else:
        assert (there.flow_batch, there.repetition) == (here.flow_batch, here.repetition + 1)


@given(orders, st.integers(0, 40), st.integers(1, 9))
def test_first_use_is_where_a_reader_meets_a_flow_batch_for_the_first_time(
    order: Order, start: int, stride: int
) -> None:
    numbers = range(start, 300, stride)
    if order.total is not None:
        numbers = range(start, min(order.total, 300), stride)
    met: dict[int, int] = {}
    for number in numbers:
        met.setdefault(order.place(number).flow_batch, number)
    expected = list(met.values())
    if order.total is None:
        expected = expected[: len(expected) // 2]
        found = [order.first_use(start, stride, i) for i in range(len(expected))]
    else:
        found = [order.first_use(start, stride, i) for i in range(len(expected) + 2)]
        expected += [None, None]  # type: ignore[list-item]
    assert found == expected


@given(orders, st.integers(0, 40), st.integers(1, 9))
def test_used_again_tells_when_a_flow_batch_can_be_dropped(
    order: Order, start: int, stride: int
) -> None:
    stop = 300 if order.total is None else order.total
    numbers = list(range(start, stop, stride))
    flow_batches = [order.place(n).flow_batch for n in numbers]
    for i, number in enumerate(numbers[: len(numbers) // 2 if order.total is None else None]):
        assert order.used_again(number, stride) == (flow_batches[i] in flow_batches[i + 1 :])


@given(orders, st.integers(0, 200))
def test_no_flow_batch_before_the_first_one_is_needed_again(order: Order, number: int) -> None:
    if order.total is not None and number > order.total:
        return
    needed = order.first_flow_batch(number)
    stop = number + 2 * order.group_size if order.total is None else order.total
    assert all(order.place(n).flow_batch >= needed for n in range(number, stop))


plain_orders = orders.filter(lambda order: not order.episodic)


@given(
    plain_orders,
    st.none() | st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 9)), max_size=5),
)
def test_any_sequence_of_world_sizes_delivers_every_batch_once_in_order(
    order: Order, epoch_length: int | None, runs: list[tuple[int, int]]
) -> None:
    position, delivered = 0, []
    for world_size, wanted in [*runs, (1, 1000)]:
        length = order.pass_length(position, world_size, epoch_length=epoch_length)
        steps = min(wanted, 50 if length is None else length)
        ranks = [
            [position + rank + step * world_size for step in range(steps)]
            for rank in range(world_size)
        ]
        delivered += [number for step in zip(*ranks, strict=True) for number in step]
        position += steps * world_size
        if order.total is not None and length == steps:
            # Less than a step of all ranks is left, or an epoch has ended.
            assert position <= order.total
    assert delivered == list(range(position))


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), max_size=4))
def test_an_epoch_is_as_long_as_it_says_and_at_most_one_step_late(
    epoch_length: int, runs: list[tuple[int, int]]
) -> None:
    order, position = Order(steps=2), 0
    for world_size, passes in runs:
        size = epoch_length * world_size
        for number in range(passes):
            length = order.pass_length(position, world_size, epoch_length=epoch_length)
            assert length is not None
            assert 1 <= length <= epoch_length
            assert length == epoch_length or number == 0
            late = (position + length * world_size) % size
            assert late < world_size
            position += length * world_size


@given(orders, st.integers(0, 200))
def test_the_next_boundary_is_the_first_batch_of_a_group(order: Order, number: int) -> None:
    if order.total is not None and number > order.total:
        return
    boundary = order.next_boundary(number)
    assert boundary >= number
    assert boundary % order.group_size == 0 or boundary == order.total
    assert boundary - number < order.group_size


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**12))
def test_places_far_out_need_no_history(steps: int, streams: int, number: int) -> None:
    order = Order(steps=steps, streams=streams)
    place = order.place(number)
    group, stream = number // (steps * streams), number % streams
    assert place.flow_batch == group * streams + stream
    assert order.first_use(number, 1, 0) == number
