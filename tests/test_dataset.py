"""Passes, positions, windows, ranks and episodes follow docs/design.md."""

import itertools
import os
import pydoc
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import pytest
import torch
from counting import CountingDataset
from kinds import KINDS, base, few, fields
from oracle import differing, digest, ours, sampler, stream, theirs
from torch.utils.data import DataLoader, Dataset

from synthpix_torch import Batch, SynthPixDataset
from synthpix_torch.batch import to_batch
from synthpix_torch.stream import run as run_module


def numbers(batches: Any, count: int | None = None) -> list[int]:
    return [batch.number for batch in itertools.islice(batches, count)]


# What a batch is ----------------------------------------------------------------------------


def test_a_batch_has_torchs_shapes_and_dtypes() -> None:
    with SynthPixDataset(base(image_shape=(16, 20), flow_field_size=(24.0, 30.0))) as dataset:
        batch = dataset.batch_at(2)
    images, flow_fields, mask, *_ = batch
    assert (images.shape, images.dtype) == ((4, 2, 16, 20), torch.float32)
    assert (flow_fields.shape, flow_fields.dtype) == ((4, 2, 16, 20), torch.float32)
    assert (mask.shape, mask.dtype) == ((4,), torch.bool)
    assert batch.number == 2
    assert all(tensor.is_contiguous() for tensor in (images, flow_fields))


def test_flow_fields_reach_a_cpu_without_a_copy() -> None:
    with SynthPixDataset(base()) as dataset:
        reader = dataset.stream.flows.read(lambda index: index)
        flow_fields = next(reader).flow_fields
        reader.close()
    assert flow_fields is not None
    array = jax.device_put(flow_fields, jax.devices("cpu")[0])
    assert array.unsafe_buffer_pointer() == flow_fields.ctypes.data


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [False, True])
def test_dtype_and_range_of_the_images_can_be_chosen(dtype: torch.dtype, scale: bool) -> None:
    plain = SynthPixDataset(base()).batch_at(0).images
    made = SynthPixDataset(base(), image_dtype=dtype, scale_images=scale).batch_at(0)
    expected = (plain / 255 if scale else plain).to(dtype)
    # Within one compiled function the division is rounded together with what comes before it.
    tolerance = torch.finfo(dtype).eps if scale else 0.0
    assert made.images.dtype == dtype
    assert made.flow_fields.dtype == torch.float32
    torch.testing.assert_close(made.images, expected, rtol=tolerance, atol=0)


def test_a_batch_passes_through_torchs_default_conversion() -> None:
    with SynthPixDataset(base(), epoch_length=2) as dataset:
        batches = list(DataLoader(dataset, batch_size=None))
    assert [type(batch) for batch in batches] == [Batch, Batch]
    assert batches[1].images1.shape == (4, 1, 16, 16)


def test_a_batch_moves_with_tree_maps() -> None:
    batch = SynthPixDataset(base()).batch_at(0)
    moved = torch.utils._pytree.tree_map(
        lambda leaf: leaf.to(torch.float64) if isinstance(leaf, torch.Tensor) else leaf, batch
    )
    assert moved.params.rho_ranges.dtype == moved.images2.dtype == torch.float64


@pytest.mark.parametrize("options", [{}, {"batch_size": 16}, {"batch_size": 2, "drop_last": True}])
def test_a_dataloader_that_would_batch_again_is_refused_at_once(options: dict[str, Any]) -> None:
    dataset = CountingDataset()
    for data in (dataset, dataset.window(0, 4)):
        with pytest.raises(
            ValueError, match=r"complete batches.*DataLoader\(dataset, batch_size=N"
        ):
            iter(DataLoader(data, **options))
    assert dataset.position == 0


def test_a_collate_function_of_the_users_own_may_merge_batches() -> None:
    loader = DataLoader(CountingDataset(epoch_length=4), batch_size=2, collate_fn=numbers)
    assert list(loader) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("layout", ["torch", "synthpix"])
def test_unpacking_a_batch_into_two_names_says_what_to_write(layout: str) -> None:
    with SynthPixDataset(base(), layout=layout) as dataset:
        count = len(dataset.batch_at(0))
        with pytest.raises(ValueError, match=rf"has {count} fields .* into 2: write .for batch in"):
            for _x, _y in dataset:  # type: ignore[misc]
                pass
        _first, *_rest = dataset.batch_at(0)


def test_a_dataset_a_window_and_a_batch_describe_themselves_in_a_line(data: Path) -> None:
    with SynthPixDataset(base(image_shape=(16, 20), flow_field_size=(24.0, 30.0))) as dataset:
        pairs = "4 image pairs of 16 x 20 px"
        assert repr(dataset.batch_at(3)) == f"<Batch 3: {pairs} with flow fields, float32, cpu>"
        stream = f"an endless stream: {pairs} (particles), flow fields from kinematic, cpu"
        assert repr(dataset) == f"<SynthPixDataset at batch 0 of {stream}>"
        assert repr(dataset.window(2, 4)) == f"<Window of batches 2 to 3 of {dataset!r}>"
        # Tree maps put other things into the fields.
        other = dataset.batch_at(0)._replace(images=(4, 2))  # type: ignore[arg-type]
        assert repr(other).startswith("Batch(images=(4, 2), flow_fields=tensor(")
    with SynthPixDataset(KINDS["finite real"](data)) as dataset:
        assert repr(dataset).startswith("<SynthPixDataset at batch 0 of 3: 4 image pairs of 16 x")
        assert "(recorded)" in repr(dataset)
    with SynthPixDataset(own(), source=fields(14)) as dataset:
        assert "flow fields from ndarray" in repr(dataset)


def test_help_on_a_batch_shows_shapes_and_no_forward_references() -> None:
    text = pydoc.plain(pydoc.render_doc(Batch))
    assert "images: jaxtyping.Float[Tensor, 'n 2 h w'], flow_fields:" in text
    assert "ForwardRef" not in text


# Passes -------------------------------------------------------------------------------------


def test_endless_data_has_no_length_and_is_not_empty() -> None:
    dataset = SynthPixDataset(base())
    with pytest.raises(TypeError, match=r"endless.*epoch_length"):
        len(dataset)
    assert dataset


def test_an_epoch_length_ends_passes() -> None:
    with SynthPixDataset(base(), epoch_length=3) as dataset:
        assert len(dataset) == 3
        assert numbers(dataset) == [0, 1, 2]
        assert numbers(dataset) == [3, 4, 5]


def test_finite_data_ends_and_begins_again(data: Path) -> None:
    with SynthPixDataset(KINDS["finite real"](data)) as dataset:
        assert len(dataset) == 3
        batches = iter(dataset)
        assert numbers(batches) == [0, 1, 2]
        assert next(batches, None) is None
        assert dataset.position == 0
        assert numbers(dataset) == [0, 1, 2]


def test_an_epoch_length_does_not_outlast_finite_data(data: Path) -> None:
    with SynthPixDataset(KINDS["finite real"](data), epoch_length=2) as dataset:
        assert [numbers(dataset) for _ in range(3)] == [[0, 1], [2], [0, 1]]


def test_the_end_of_a_pass_is_final() -> None:
    with SynthPixDataset(base(), epoch_length=2) as dataset:
        batches = iter(dataset)
        assert numbers(batches) == [0, 1]
        assert [next(batches, None) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    "end",
    [
        lambda dataset: next(iter(dataset)),
        lambda dataset: dataset.seek(0),
        lambda dataset: dataset.load_state_dict(dataset.state_dict()),
        lambda dataset: dataset.close(),
    ],
)
def test_a_pass_that_is_over_says_so(end: Any) -> None:
    with SynthPixDataset(base()) as dataset:
        batches = iter(dataset)
        next(batches)
        end(dataset)
        with pytest.raises(RuntimeError, match=r"This pass is over.*Call iter\(dataset\) again"):
            next(batches)


def test_the_position_can_be_set() -> None:
    with SynthPixDataset(base()) as dataset:
        dataset.seek(5)
        assert numbers(dataset, 2) == [5, 6]
        assert dataset.position == 7


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (-1, ValueError, "at least 0"),
        (1.0, TypeError, "must be an integer, not 1.0"),
        ("1", TypeError, "must be an integer"),
        (True, TypeError, "must be an integer"),
        (4, ValueError, "The stream has no batch 4: it ends with batch 2"),
        (10**19, ValueError, "must be at most 1000000000000000"),
    ],
)
def test_a_batch_that_is_not_in_the_stream_is_refused(
    number: Any, error: type[Exception], message: str, data: Path
) -> None:
    with SynthPixDataset(KINDS["finite real"](data)) as dataset:
        for ask in (dataset.batch_at, dataset.seek, lambda n: dataset.window(n, 9)):
            with pytest.raises(error, match=message):
                ask(number)
        assert dataset.position == 0


def test_looking_at_a_batch_does_not_disturb_the_iteration() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = iter(dataset)
        first = digest(next(batches))
        assert digest(dataset.batch_at(0)) == first
        dataset.batch_at(1000)
        assert next(batches).number == 1


def test_threads_that_share_a_pass_get_each_batch_once() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = iter(dataset)
        got: list[int] = []

        def take() -> None:
            got.extend(next(batches).number for _ in range(20))

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(40))
        assert dataset.position == 40


def test_a_batch_that_is_made_while_the_dataset_is_moved_is_not_delivered() -> None:
    reading, go = threading.Event(), threading.Event()

    class Waits(Counting):
        def __getitem__(self, index: int) -> np.ndarray:
            if index:
                reading.set()
                assert go.wait(60)
            return super().__getitem__(index)

    config = own(batch_size=1, flow_fields_per_batch=1, randomize=False, buffer_size=0)
    with SynthPixDataset(config, source=Waits(8), ahead=0) as dataset:
        start = dataset.state_dict()
        batches = iter(dataset)
        next(batches)
        errors: list[Exception] = []

        def take() -> None:
            try:
                next(batches)
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        assert reading.wait(60)
        dataset.load_state_dict(start)
        go.set()
        thread.join()
        assert "moved or closed by another thread" in str(errors[0])
        assert next(iter(dataset)).number == 0


# Windows ------------------------------------------------------------------------------------


def test_a_window_is_the_same_at_every_pass_and_disturbs_nothing() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = iter(dataset)
        next(batches)
        window = dataset.window(10, 14)
        first = [digest(batch) for batch in window]
        assert len(window) == len(first) == 4
        assert [digest(batch) for batch in DataLoader(window, batch_size=None)] == first
        assert first[2] == digest(dataset.batch_at(12))
        assert next(batches).number == 1


def test_ranks_share_a_window_equally_or_not_at_all() -> None:
    parts = []
    for rank in range(2):
        dataset = SynthPixDataset(base(), rank=rank, world_size=2)
        parts.append(numbers(dataset.window(3, 7)))
        with pytest.raises(ValueError, match="2 ranks cannot share a window of 3 batches equally"):
            iter(dataset.window(3, 6)).__next__()
    assert parts == [[3, 5], [4, 6]]


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="The window from 3 to 3 is empty"):
        SynthPixDataset(base()).window(3, 3)


# Ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_deliver_the_one_stream_together(streams: int, world_size: int) -> None:
    with SynthPixDataset(base(**few), streams=streams) as alone:
        expected = [digest(batch) for batch in itertools.islice(alone, 4 * world_size)]
    delivered: dict[int, str] = {}
    for rank in range(world_size):
        with SynthPixDataset(
            base(**few), streams=streams, rank=rank, world_size=world_size
        ) as dataset:
            for batch in itertools.islice(dataset, 4):
                delivered[batch.number] = digest(batch)
            assert dataset.position == 4 * world_size
    assert [delivered[number] for number in range(4 * world_size)] == expected


def test_ranks_of_another_number_go_on_in_the_middle_of_a_flow_batch() -> None:
    position, delivered = 0, []
    for world_size, steps in ((4, 1), (2, 2), (3, 1), (1, 2)):
        step: list[list[int]] = []
        for rank in range(world_size):
            with SynthPixDataset(base(**few), streams=2, rank=rank, world_size=world_size) as d:
                d.seek(position)
                step.append(numbers(d, steps))
                after = d.position
        position = after
        delivered += [number for together in zip(*step, strict=True) for number in together]
    assert delivered == list(range(position))


def test_every_rank_gets_equally_many_batches_of_finite_data(data: Path) -> None:
    config = KINDS["finite, repeated"](data)
    for world_size in (2, 5):
        parts = []
        for rank in range(world_size):
            with SynthPixDataset(config, rank=rank, world_size=world_size) as dataset:
                assert len(dataset) == 12 // world_size
                parts.append(numbers(dataset))
                assert dataset.position == 0
        assert sorted(itertools.chain(*parts)) == list(range(12 - 12 % world_size))


def test_more_ranks_than_batches_are_left_begin_again(data: Path) -> None:
    config = KINDS["finite"](data)
    total = SynthPixDataset(config).stream.total
    assert total is not None
    for rank in range(3):
        dataset = CountingDataset(config, rank=rank, world_size=3)
        dataset.seek(total - 1)
        assert next(iter(dataset)).number == rank


def test_too_little_finite_data_for_the_ranks_is_an_error(data: Path) -> None:
    dataset = SynthPixDataset(KINDS["finite real"](data), rank=0, world_size=4)
    with pytest.raises(RuntimeError, match="3 batches, too few for 4 ranks"):
        next(iter(dataset))


def test_what_ranks_read_twice_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with SynthPixDataset(base(**few), rank=0, world_size=2, epoch_length=1) as dataset:
        for _ in range(3):
            list(dataset)
    assert caplog.text.count("each flow batch is read by 2 ranks; with streams=2") == 1


# Episodes -----------------------------------------------------------------------------------


def test_a_pass_is_an_episode(data: Path) -> None:
    with SynthPixDataset(KINDS["episodes"](data)) as dataset:
        assert len(dataset) == 3
        passes = [list(dataset) for _ in range(3)]
    for batches in passes:
        assert [bool(batch.done.all()) for batch in batches if batch.done is not None] == [
            False,
            False,
            True,
        ]
        times = [[int(file[-5]) for file in batch.files] for batch in batches]
        assert times[1] == [t + 1 for t in times[0]]
        assert times[2] == [t + 2 for t in times[0]]


def test_next_episode_goes_to_the_next_start_and_stays_there(data: Path) -> None:
    with SynthPixDataset(KINDS["episodes"](data)) as dataset:
        dataset.next_episode()
        assert dataset.position == 0
        next(iter(dataset))
        dataset.next_episode()
        dataset.next_episode()
        assert dataset.position == 3
        assert numbers(dataset) == [3, 4, 5]


def test_next_episode_at_a_start_commits_nothing(data: Path) -> None:
    with SynthPixDataset(KINDS["episodes"](data)) as dataset:
        dataset.track()
        list(dataset)
        dataset.next_episode()
        assert (dataset.uncommitted, dataset.state_dict()["sampler"]["position"]) == (3, 0)


def test_episodes_run_side_by_side(data: Path) -> None:
    config = KINDS["finite episodes"](data)
    with SynthPixDataset(config) as alone:
        episodes = [[b.files for b in alone], [b.files for b in alone]]
    with SynthPixDataset(config, streams=2) as dataset:
        batches = list(dataset)
        assert [[b.files for b in batches[c::2]] for c in (0, 1)] == episodes
        assert [bool(b.done.all()) for b in batches if b.done is not None] == [False] * 4 + [
            True
        ] * 2


def test_finite_episodes_begin_again(data: Path) -> None:
    with SynthPixDataset(KINDS["finite episodes"](data)) as dataset:
        count = dataset.stream.order.units
        assert count is not None
        passes = [numbers(dataset) for _ in range(count + 1)]
        assert passes[0] == passes[-1] == [0, 1, 2]
        dataset.seek(3 * count - 1)
        dataset.next_episode()
        assert dataset.position == 0


def test_ranks_that_cannot_share_episodes_are_an_error(data: Path) -> None:
    config = KINDS["episodes"](data)
    dataset = SynthPixDataset(config, rank=0, world_size=2, streams=3)
    with pytest.raises(RuntimeError, match="2 ranks cannot share 3 streams of episodes"):
        next(iter(dataset))
    with SynthPixDataset(config, rank=0, world_size=2, streams=2) as dataset:
        dataset.seek(3)
        with pytest.raises(RuntimeError, match="cannot continue within an episode at batch 3"):
            next(iter(dataset))
        dataset.next_episode()
        assert numbers(dataset) == [6, 8, 10]


def test_next_episode_without_episodes_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="There are no episodes"):
        SynthPixDataset(base()).next_episode()


def test_an_epoch_length_beside_episodes_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="A pass is an episode here"):
        SynthPixDataset(KINDS["episodes"](data), epoch_length=3)


def test_relative_paths_are_refused_where_they_name_other_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    with SynthPixDataset(base(scheduler_class=".npy", file_list="npy")) as dataset:
        first = digest(dataset.batch_at(0))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RuntimeError, match="relative paths, and the working directory is no"):
            dataset.batch_at(0)
        monkeypatch.chdir(data)
        assert digest(dataset.batch_at(0)) == first
    with SynthPixDataset(base(scheduler_class=".npy", file_list=str(data / "npy"))) as dataset:
        monkeypatch.chdir(tmp_path)
        dataset.batch_at(0)


# Sources of the user's own ------------------------------------------------------------------


class Torch(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(fields(14)[index])


class Named:
    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"flow_fields": fields(14)[index], "file": f"field {index}"}


@pytest.mark.parametrize("source", [fields(14), list(fields(14)), Torch(), Named()])
def test_flow_fields_of_the_users_own_are_rendered_as_files_are(source: Any, data: Path) -> None:
    config = {key: value for key, value in base(**few).items() if key != "scheduler_class"}
    files = base(
        scheduler_class=".npy",
        file_list=[str(data / "npy" / f"flow_{t}.npy") for t in range(14)],
        **few,
    )
    expected = [theirs(batch) for batch in itertools.islice(stream(files), 5)]
    with SynthPixDataset(config, source=source, renderer="synthpix") as dataset:
        for number in (4, 0, 3):
            batch = ours(dataset.batch_at(number))
            assert differing(expected[number], batch) == ["files"]
    if isinstance(source, Named):
        assert batch["files"][0].startswith("field ")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "source must have __len__ and __getitem__, int has not"),
        (fields(0), ValueError, "source of flow fields is empty"),
        ([{"flow": 1}], ValueError, "a mapping without 'flow_fields'"),
        ([np.zeros((4, 4))], ValueError, r"must hold numbers of shape \(H, W, 2\)"),
    ],
)
def test_a_source_that_breaks_the_contract_is_refused(
    source: Any, error: type[Exception], message: str
) -> None:
    config = {key: value for key, value in base().items() if key != "scheduler_class"}
    with pytest.raises(error, match=message):
        SynthPixDataset(config, source=source)


class Counting:
    """Remembers which records were read, and how many at the same time."""

    def __init__(self, count: int, delay: float = 0.0) -> None:
        self.read: list[int] = []
        self.most = 0
        self._fields = fields(count)
        self._delay = delay
        self._now = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: int) -> np.ndarray:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._delay)
        with self._lock:
            self._now -= 1
            self.read.append(index)
        field: np.ndarray = self._fields[index]
        return field


def own(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in base(**changes).items() if k != "scheduler_class"}


def test_only_records_that_are_used_are_read() -> None:
    source = Counting(64)
    config = own(batch_size=8, flow_fields_per_batch=2, randomize=False)
    with SynthPixDataset(config, source=source) as dataset:
        list(itertools.islice(dataset, 4))
    used = {8 * flow_batch + slot for flow_batch in range(9) for slot in range(2)}
    assert {0, 1, 8, 9, 16, 17, 24, 25} <= set(source.read) <= used


def test_a_flow_batch_is_read_once_for_all_its_repetitions() -> None:
    source = Counting(64)
    config = own(batches_per_flow_batch=5, randomize=False, buffer_size=0)
    with SynthPixDataset(config, source=source, ahead=0) as dataset:
        list(itertools.islice(dataset, 10))
    # The first record once more, for its shape.
    assert source.read == [0, *range(8)]


def test_flow_batches_that_are_used_up_are_dropped() -> None:
    for streams in (1, 3):
        with SynthPixDataset(base(**few), streams=streams, ahead=0) as dataset:
            for _ in range(30):
                next(iter(dataset))
                assert dataset._delivery.run is not None
                assert dataset._delivery.run.loaded_flow_batches <= streams


def test_the_first_batch_does_not_wait_until_the_fields_of_others_are_read() -> None:
    def ahead(**arguments: Any) -> list[int]:
        with SynthPixDataset(**arguments) as dataset:
            found = []
            for _ in range(4):
                next(iter(dataset))
                assert dataset._delivery.run is not None
                found.append(dataset._delivery.run.dispatched)
        return found

    twice = own(batches_per_flow_batch=2)
    assert ahead(config=own(batches_per_flow_batch=1), source=Counting(640)) == [0, 2, 2, 2]
    # The second batch needs no other fields, and generated ones are there at once.
    assert ahead(config=twice, source=Counting(640)) == [1, 2, 2, 2]
    assert ahead(config=base(batches_per_flow_batch=1)) == [2, 2, 2, 2]


def test_a_batch_is_waited_for_after_later_ones_were_dispatched() -> None:
    with SynthPixDataset(base()) as dataset:
        run = dataset.stream.run(0, ahead=1)
        in_flight = []
        with pytest.MonkeyPatch.context() as patch:

            def waiting(*args: Any, **kwargs: Any) -> Any:
                in_flight.append(1 + run.dispatched)
                return to_batch(*args, **kwargs)

            patch.setattr(run_module, "to_batch", waiting)
            for _ in range(3):
                next(run)
        run.close()
    assert in_flight == [2, 2, 2]


def test_reading_ahead_is_bounded_and_can_be_turned_off() -> None:
    config = own(randomize=False)
    for buffer, ahead, most in ((0, 0, 4), (4, 0, 8), (None, 2, 20)):
        source = Counting(640)
        with SynthPixDataset(
            config | {"buffer_size": buffer, "num_threads": 3}, source=source, ahead=ahead
        ) as dataset:
            batches = iter(dataset)
            next(batches)
            if ahead:
                next(batches)
            time.sleep(0.2)
            # One read for the shape.
            assert len(source.read) - 1 <= most + ahead * 4
            assert source.most <= max(1, 3 if buffer != 0 else 1)


def test_records_are_read_side_by_side_in_the_background() -> None:
    source = Counting(640, delay=0.05)
    with SynthPixDataset(own(randomize=False, num_threads=4), source=source) as dataset:
        next(iter(dataset))
        assert source.most == 4


def test_a_thread_reads_several_records_at_a_time() -> None:
    readers: dict[int, int] = {}

    class Noting(Counting):
        def __getitem__(self, index: int) -> np.ndarray:
            field = super().__getitem__(index)
            # The first read, for the shape, is overwritten.
            readers[index] = threading.get_ident()
            return field

    for threads, portion in ((2, 8), (8, 5), (40, 1)):
        readers.clear()
        config = own(batch_size=40, flow_fields_per_batch=40, randomize=False, num_threads=threads)
        with SynthPixDataset(config, source=Noting(400, delay=0.001)) as dataset:
            next(iter(dataset))
        alike = [readers[i] == readers[i + 1] for i in range(39)]
        assert all(same for i, same in enumerate(alike) if (i + 1) % portion)
        assert not all(alike)


def test_a_read_that_cpython_spoiled_is_repeated() -> None:
    class Spoiled(Counting):
        def __getitem__(self, index: int) -> np.ndarray:
            if len(self.read) % 3 == 1:
                self.read.append(index)
                raise SystemError("AST constructor recursion depth mismatch (before=75, after=71)")
            return super().__getitem__(index)

    spoiled = SynthPixDataset(own(), source=Spoiled(14))
    sound = SynthPixDataset(own(), source=fields(14))
    assert digest(spoiled.batch_at(1)) == digest(sound.batch_at(1))


# One dispatch -------------------------------------------------------------------------------


EAGER = ("jax/_src/numpy/", "jax/_src/lax/", "jax/_src/random.py", "jax/_src/pjit.py")


def eager_calls(work: Callable[[], Any]) -> set[str]:
    """Python functions of JAX that make or run operations one by one, as far as `work` calls any.

    A compiled function that has been called before calls none of them.
    """
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename.replace(os.sep, "/")
        if event == "call" and any(part in name for part in EAGER):
            called.add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return called


def test_a_batch_is_one_call_of_one_compiled_function(monkeypatch: pytest.MonkeyPatch) -> None:
    config = base(batches_per_flow_batch=1000)
    theirs = sampler(config)
    next(theirs), next(theirs)
    assert eager_calls(lambda: next(theirs))
    with SynthPixDataset(config, ahead=0) as dataset:
        batches = iter(dataset)
        next(batches)
        steps: list[Any] = []
        renderer = dataset.stream.renderer
        step = renderer.programs.step

        def counted(*arguments: Any) -> Any:
            steps.append(arguments)
            return step(*arguments)

        monkeypatch.setattr(renderer, "programs", renderer.programs._replace(step=counted))
        assert eager_calls(lambda: numbers(batches, 50)) == set()
    assert len(steps) == 50
