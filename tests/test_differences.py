"""Every difference from synthpix in docs/differences.md: what it does, what we do instead."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from kinds import KINDS, base, fields, write_mat, write_npy
from oracle import differing, ours, sampler, theirs

from synthpix_torch import PhysicsWarning, SynthPixDataset

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "differences.md"


def test_every_row_of_the_docs_names_a_test_that_exists() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| case |")]
    defined = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.rpartition(" | ")[2])
        assert named, row
        for name in named:
            assert name in defined or (TESTS.parent / name).exists(), row


def test_every_difference_shown_here_has_a_row_in_the_docs() -> None:
    shown = set(re.findall(r"^def (test_\w+_in_synthpix_\w+)", Path(__file__).read_text(), re.M))
    named = set(re.findall(r"`(test_\w+_in_synthpix_\w+)`", PAGE.read_text()))
    assert shown == named


def test_the_end_of_finite_data_is_final_in_synthpix_it_is_not(data: Path) -> None:
    config = KINDS["finite, repeated"](data)
    source = sampler(config)
    assert sum(1 for _ in source) == 12
    again = next(source)
    assert theirs(again)["files"][0] != ""

    with SynthPixDataset(config) as dataset:
        batches = iter(dataset)
        assert sum(1 for _ in batches) == 12
        with pytest.raises(StopIteration):
            next(batches)


def test_empty_slots_are_zero_in_synthpix_they_show_particles(data: Path) -> None:
    config = KINDS["finite, repeated"](data)
    expected = theirs(list(itertools.islice(sampler(config), 12))[-1])
    with SynthPixDataset(config) as dataset:
        batch = ours(dataset.batch_at(11))
    empty = ~expected["mask"]
    assert empty.sum() == 2
    assert (expected["images1"][empty].max(axis=(1, 2)) > 50).all()
    assert (batch["images1"][empty] == 0).all()
    assert (batch["images2"][empty] == 0).all()
    assert (batch["flow_fields"][empty] == 0).all()
    assert (batch["seeds"][empty] == 0).all()
    assert [batch["files"][i] for i in np.flatnonzero(empty)] == ["", ""]


def test_each_slot_has_the_seed_of_its_flow_field_in_synthpix_seeds_repeat_differently() -> None:
    config = base(batch_size=8, num_examples=11, loop=False)
    expected = theirs(list(sampler(config | {"loop": False}))[-1])
    with SynthPixDataset(config) as dataset:
        batch = ours(dataset.batch_at(1))
    files, seeds = np.array(batch["files"]), batch["seeds"]
    assert batch["mask"].tolist() == [True, True, True, False] * 2
    assert seeds[4:].tolist() == seeds[:4].tolist()
    assert files[4] == files[0]
    assert expected["seeds"][3] == expected["seeds"][0]
    assert expected["files"][3] != expected["files"][0]


def test_recorded_images_have_a_seed_in_every_slot_in_synthpix_they_do_not(data: Path) -> None:
    config = KINDS["finite real"](data)
    expected = theirs(list(sampler(config))[-1])
    with SynthPixDataset(config) as dataset:
        batch = ours(dataset.batch_at(2))
    assert expected["mask"].tolist() == batch["mask"].tolist() == [True, True, False, False]
    for name in ("seeds", "keys"):
        assert (len(expected[name]), len(batch[name])) == (2, 4)
        assert (batch[name][:2] == expected[name]).all()


def _episodes(data: Path, **changes: Any) -> dict[str, Any]:
    return KINDS["episodes"](data) | changes


def test_an_episode_may_be_one_step_long_in_synthpix_it_never_begins(data: Path) -> None:
    config = _episodes(data, episode_length=1)
    with pytest.raises(Exception, match="Episode ended"):
        next(sampler(config))
    with SynthPixDataset(config) as dataset:
        assert [batch.done.tolist() for batch in dataset if batch.done is not None] == [[True] * 4]


def test_next_episode_before_the_first_batch_stays_in_synthpix_it_skips(data: Path) -> None:
    config = _episodes(data)
    first = theirs(next(sampler(config)))
    source = sampler(config)
    source.next_episode()
    skipped = theirs(next(source))
    assert skipped["files"] != first["files"]
    with SynthPixDataset(config) as dataset:
        dataset.next_episode()
        assert next(iter(dataset)).files == first["files"]


def test_the_state_holds_the_position_within_an_episode_in_synthpix_it_does_not(
    data: Path,
) -> None:
    config = _episodes(data)
    source, other = sampler(config), sampler(config)
    next(source), next(source)
    other.state = source.state
    # The episode has three steps, and synthpix serves three more after the restore.
    for _ in range(3):
        next(other)
    with SynthPixDataset(config) as dataset, SynthPixDataset(config) as resumed:
        list(itertools.islice(dataset, 2))
        resumed.load_state_dict(dataset.state_dict())
        assert len(list(resumed)) == 1


def test_repeating_the_steps_of_an_episode_is_refused_in_synthpix_a_batch_is_lost(
    data: Path,
) -> None:
    config = _episodes(data, batches_per_flow_batch=2)
    source = sampler(config)
    steps = [theirs(next(source))["files"] for _ in range(5)]
    # The second batch of the last step.
    with pytest.raises(Exception, match="Episode ended"):
        next(source)
    source.next_episode()
    assert theirs(next(source))["files"] == steps[-1]
    with pytest.raises(ValueError, match="would repeat the steps of an episode"):
        SynthPixDataset(config)


def test_randomize_with_episodes_is_refused_in_synthpix_it_destroys_time_order(data: Path) -> None:
    config = _episodes(data, randomize=True)
    source = sampler(config)
    times = [
        int(file[-5]) - int(other[-5])
        for file, other in zip(
            theirs(next(source))["files"], theirs(next(source))["files"], strict=True
        )
    ]
    assert set(times) != {-1}
    with pytest.raises(ValueError, match="time order"):
        SynthPixDataset(config)


def test_unordered_files_of_an_episode_are_refused_in_synthpix_they_are_served(
    tmp_path: Path,
) -> None:
    config = base(
        scheduler_class=".npy",
        file_list=[str(write_npy(tmp_path, 11))],
        batch_size=1,
        flow_fields_per_batch=1,
        episode_length=11,
        randomize=False,
    )
    steps = itertools.islice(sampler(config), 11)
    names = [Path(theirs(batch)["files"][0]).name for batch in steps]
    assert names[:3] == ["flow_0.npy", "flow_1.npy", "flow_10.npy"]
    with pytest.raises(
        ValueError, match=r"flow_10\.npy comes before flow_2\.npy: give the numbers"
    ):
        SynthPixDataset(config)
    (tmp_path / "flow_10.npy").unlink()
    with SynthPixDataset(config | {"episode_length": 10}) as dataset:
        files = [Path(batch.files[0]).name for batch in dataset]
    assert files == [f"flow_{t}.npy" for t in range(10)]


def test_mat_flow_fields_keep_their_values_in_synthpix_they_are_resized(
    tmp_path: Path,
) -> None:
    write_mat(tmp_path, 4, (24, 24))
    config = base(scheduler_class=".mat", file_list=[str(tmp_path)], randomize=False)
    npy = tmp_path / "npy"
    npy.mkdir()
    for t in range(4):
        np.save(npy / f"flow_{t}.npy", scipy.io.loadmat(tmp_path / f"{t:03}.mat")["V"])
    with SynthPixDataset(config) as dataset:
        labels = dataset.batch_at(0).flow_fields
        assert dataset.batch_at(0).files[0].endswith("000.mat")
    as_npy = base(scheduler_class=".npy", file_list=[str(npy)], randomize=False)
    with SynthPixDataset(as_npy) as dataset:
        assert dataset.batch_at(0).flow_fields.equal(labels)
    assert 1.5 < labels.abs().max() < 2.01
    wrong = theirs(next(sampler(config)))["flow_fields"]
    # synthpix stretches a field of 24 rows to 256 and scales its values alike.
    assert abs(wrong).max() > 10 * abs(fields(4)).max() * 0.9


def test_an_unknown_key_is_refused_in_synthpix_it_is_ignored() -> None:
    sampler(base(batches_per_flowbatch=7))
    with pytest.raises(ValueError, match="did you mean 'batches_per_flow_batch'"):
        SynthPixDataset(base(batches_per_flowbatch=7))


@pytest.mark.parametrize("key", ["mask", "histogram"])
def test_mask_and_histogram_of_recorded_images_are_refused_in_synthpix_they_are_ignored(
    key: str, data: Path
) -> None:
    config = KINDS["finite real"](data)
    changed = config | {key: str(data / "npy" / "flow_0.npy")}
    assert differing(theirs(next(sampler(config))), theirs(next(sampler(changed)))) == []
    with pytest.raises(ValueError, match=f"Real images are served as they are: leave out {key}"):
        SynthPixDataset(changed)


def test_each_batch_has_its_own_labels_in_synthpix_they_are_shared() -> None:
    source = sampler(base(batches_per_flow_batch=2))
    first, second = next(source), next(source)
    assert first.flow_fields is second.flow_fields
    with SynthPixDataset(base(batches_per_flow_batch=2)) as dataset:
        a, b = itertools.islice(dataset, 2)
    assert a.flow_fields.data_ptr() != b.flow_fields.data_ptr()


def test_a_flow_beyond_the_speed_bounds_warns_in_synthpix_it_does_not(data: Path) -> None:
    config = base(scheduler_class=".npy", file_list=[str(data / "npy")], max_speed_x=1.0)
    next(sampler(config))
    with (
        SynthPixDataset(config) as dataset,
        pytest.warns(PhysicsWarning, match="leaves the speed bounds by up to .* px: max_speed_x=1"),
    ):
        next(iter(dataset))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intensity_ranges": [(1000, 4000)]}, "reach 4000, but images end at 255 grey levels"),
        ({"intensity_ranges": [(0.2, 0.8)]}, "images are almost black"),
        ({"noise_gaussian_mean": 200.0}, "large parts are white"),
        ({"diameter_ranges": [(8.0, 12.0)]}, "reach 12 px"),
    ],
)
def test_odd_settings_warn_in_synthpix_they_do_not(changes: dict[str, Any], words: str) -> None:
    config = base(**changes)
    sampler(config)
    with pytest.warns(PhysicsWarning, match=words):
        SynthPixDataset(config)
