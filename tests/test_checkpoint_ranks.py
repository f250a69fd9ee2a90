"""Checkpoints by several processes: one writes, all read, all agree or all stop."""

from __future__ import annotations

from pathlib import Path

import checkpoint_ranks
import pytest
from crash import Saved
from kinds import base, few

from synthpix_torch import Checkpointer, SynthPixDataset


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """A folder that two ranks have saved to, and what each of them saw. Not to be written to."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    return folder, checkpoint_ranks.run(checkpoint_ranks.saves, folder, 2)


def test_rank_0_writes_alone(two: tuple[Path, list[dict[str, object]]]) -> None:
    folder, (first, second) = two
    assert first["lock"] == second["lock"] == str(first["pid"])
    assert sorted(path.name for path in folder.iterdir()) == [".synthpix_torch", "1", "2"]


def test_every_rank_goes_on_with_its_batches_and_its_random_state(
    two: tuple[Path, list[dict[str, object]]],
) -> None:
    folder, before = two
    after = checkpoint_ranks.run(checkpoint_ranks.restores, folder, 2)
    for rank in (0, 1):
        assert after[rank]["batches"] == before[rank]["batches"]
        assert after[rank]["draw"] == before[rank]["draw"]
        assert after[rank]["warnings"] == []
    assert after[0]["draw"] != after[1]["draw"]


def test_a_run_goes_on_with_more_ranks_and_says_which_random_states_there_are(
    two: tuple[Path, list[dict[str, object]]],
) -> None:
    folder, before = two
    after = checkpoint_ranks.run(checkpoint_ranks.restores, folder, 3)
    numbers = sorted(number for rank in after for number in rank["batches"])
    assert numbers == list(range(4, 10))
    assert [rank["draw"] for rank in after[:2]] == [rank["draw"] for rank in before]
    assert [rank["warnings"] for rank in after[:2]] == [[], []]
    (words,) = after[2]["warnings"]
    assert words == "rng was saved by 2 ranks: rank 2 keeps its current random state."


def test_ranks_that_differ_in_what_must_be_the_same_are_an_error_on_all_of_them(
    tmp_path: Path,
) -> None:
    for failures in checkpoint_ranks.run(checkpoint_ranks.disagrees, tmp_path / "run", 2):
        positions, steps, objects, seeds = failures
        assert "the position of data must be the same on all ranks" in positions
        assert "rank 0: 0 of" in positions
        assert "rank 1: 1 of" in positions
        assert "step must be the same on all ranks, but it is rank 0: 1, rank 1: 2" in steps
        assert "the registered objects must be the same" in objects
        assert "the position of data must be the same" in seeds
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".synthpix_torch"]


def test_what_fails_on_one_rank_is_undone_and_reported_on_all(tmp_path: Path) -> None:
    first, second = checkpoint_ranks.run(checkpoint_ranks.falls, tmp_path / "run", 2)
    assert first["not loaded"] == "RuntimeError: Rank 1 failed: ValueError: it fell"
    assert second["not loaded"] == "ValueError: it fell"
    assert first["position"] == second["position"] == 8
    assert first["not written"].startswith("CheckpointError: Step 2 could not be saved")
    assert second["not written"].startswith("RuntimeError: Rank 0 failed: CheckpointError: Step 2")
    with Checkpointer(tmp_path / "run") as checkpoints:
        assert checkpoints.steps() == [1, 3]


def test_a_failed_save_is_heard_by_all_ranks(tmp_path: Path) -> None:
    first, second = checkpoint_ranks.run(checkpoint_ranks.hears, tmp_path / "run", 2)
    for heard, words in (
        (first, "CheckpointError: Step"),
        (second, "RuntimeError: Rank 0 failed: CheckpointError: Step"),
    ):
        assert heard.pop("not due") == "none"
        assert list(heard) == ["due", "wait", "leave"]
        assert all(failure.startswith(words) for failure in heard.values()), heard


def test_no_rank_waits_for_one_that_failed(tmp_path: Path) -> None:
    first, second = checkpoint_ranks.run(checkpoint_ranks.gathers, tmp_path / "run", 2)
    assert first == ["RuntimeError: Rank 1 failed: ValueError: it fell"] * 2
    assert second == ["ValueError: it fell"] * 2


def test_a_rank_that_does_not_see_the_folder_is_an_error_on_all(tmp_path: Path) -> None:
    first, second = checkpoint_ranks.run(checkpoint_ranks.does_not_see, tmp_path / "run", 2)
    assert "on rank 1: all ranks need the same folder" in first
    assert "on rank 1: all ranks need the same folder" in second


def test_a_rank_that_was_given_by_hand_reads_and_does_not_write(tmp_path: Path) -> None:
    saved = Saved()
    saved.set(5)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=saved.dataset)
        checkpoints.save(1)
        checkpoints.wait()
        second = SynthPixDataset(base(**few), rank=1, world_size=2)
        with Checkpointer(tmp_path) as reader:
            reader.register(data=second)
            # The first still has the lock.
            assert reader.restore() == 1
            assert second.position == 5
            assert reader.save(2)
    assert checkpoints.steps() == [1]
