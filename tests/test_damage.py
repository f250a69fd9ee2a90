"""Damaged steps: each is found and named, none is restored silently."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crash import Saved, restored, save, step_of

from synthpix_torch import Checkpointer, CheckpointError
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.step import find_fault
from synthpix_torch.cli.inspect import describe_step


def files(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with steps 1 and 2. Not to be written to."""
    folder = tmp_path_factory.mktemp("two")
    save(folder, 1, 2)
    return folder


def test_500_flipped_bytes_are_never_restored_silently(two_steps: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    shutil.copytree(two_steps, tmp_path / "run")
    paths = files(tmp_path / "run" / "2")
    assert [str(path.relative_to(tmp_path / "run" / "2")) for path in paths] == [
        "_CHECKPOINT_METADATA",
        "checksums.sha256",
        "grain/process_0-of-1.json",
        "model/state.pt",
        "optimizer/state.pt",
        "sampler/metadata",
    ]
    saved = Saved()
    with Checkpointer(tmp_path / "run", read_only=True) as checkpoints:
        saved.register(checkpoints)
        for turn in range(500):
            # Every file has its turn, however small.
            path = paths[turn % len(paths)]
            content = path.read_bytes()
            if not content:
                continue
            place = rng.randrange(len(content))
            flipped = content[place] ^ (1 << rng.randrange(8))
            path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            with pytest.warns(UserWarning, match="Step 2 .*cannot be restored"):
                assert checkpoints.restore() == saved.number == 1
            path.write_bytes(content)
        assert checkpoints.restore() == saved.number == 2


def _empty(step: Path) -> None:
    files(step)[-1].write_bytes(b"")


def _truncate(step: Path) -> None:
    path = step / "model" / "state.pt"
    os.truncate(path, path.stat().st_size - 1)


def _link(step: Path) -> None:
    path = step / "model" / "state.pt"
    path.rename(step.parent / "elsewhere")
    path.symlink_to(step.parent / "elsewhere")


def _replace(step: Path, *names: str) -> None:
    shutil.rmtree(step)
    step.mkdir()
    for name in names:
        (step / name).write_text("theirs")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty file": (_empty, "was changed|is missing"),
    "missing file": (lambda step: (step / "model" / "state.pt").unlink(), "state.pt is missing"),
    "missing item": (lambda step: shutil.rmtree(step / "grain"), "json is missing"),
    "truncated": (_truncate, "model/state.pt was changed"),
    "foreign file": (lambda step: (step / "more").write_text(""), "more does not belong there"),
    "link": (_link, "model/state.pt was changed"),
    "no checksums": (
        lambda step: (step / "checksums.sha256").unlink(),
        "checksums.sha256 is missing",
    ),
    "no metadata": (
        lambda step: (step / "_CHECKPOINT_METADATA").unlink(),
        "_CHECKPOINT_METADATA is missing",
    ),
    "two items exchanged": (
        lambda step: _exchange(step / "model" / "state.pt", step / "optimizer" / "state.pt"),
        "state.pt was changed",
    ),
    "another step's item": (
        lambda step: shutil.copy(step.parent / "1" / "model" / "state.pt", step / "model"),
        "model/state.pt was changed",
    ),
    "empty folder": (
        lambda step: _replace(step),
        "synthpix_torch did not write it",
    ),
    "another program": (
        lambda step: _replace(step, "data"),
        "synthpix_torch did not write it",
    ),
}


def _exchange(one: Path, other: Path) -> None:
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_named_and_the_one_before_is_used(
    two_steps: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    spoil, words = DAMAGES[damage]
    spoil(folder / "2")
    with pytest.warns(UserWarning, match=f"Step 2 .*is skipped: .*({words})") as caught:
        assert restored(folder) == 1
    assert caught[0].filename == restored.__code__.co_filename
    with pytest.raises(CheckpointError, match=f"Step 2 .*({words})"):
        restored(folder, 2)


def test_a_step_that_this_process_may_not_read_is_an_error_and_stays_where_it_is(
    two_steps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(steps, "_digest", refuse)
    saved = Saved()
    with Checkpointer(two_steps, read_only=True) as checkpoints:
        saved.register(checkpoints)
        for step in (None, 2):
            with pytest.raises(CheckpointError, match=r"Step 2 .* cannot be read: .*denied"):
                checkpoints.restore(step)
    assert "Permission denied" in describe_step(two_steps, 2)["corrupt"]


def test_damaged_steps_are_moved_aside_by_the_next_save_not_deleted(
    two_steps: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    _truncate(folder / "2")
    saved = Saved()
    with Checkpointer(folder, keep=1) as checkpoints:
        saved.register(checkpoints)
        with pytest.warns(UserWarning, match="Step 2"):
            assert checkpoints.restore() == 1
        saved.set(2)
        checkpoints.save(2)
    assert restored(folder) == 2
    (aside,) = (folder / ".synthpix_torch" / "quarantine").iterdir()
    assert (aside / "model" / "state.pt").exists()


def test_a_step_of_another_program_that_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "3").mkdir()
    with pytest.raises(ValueError, match="3 was written by another program"):
        save(tmp_path, 2)
    with Checkpointer(tmp_path) as checkpoints:
        Saved().register(checkpoints)
        with pytest.raises(ValueError, match="3 was written by another program"):
            checkpoints.save(2, overwrite=True)
    assert (tmp_path / "3").is_dir()


def test_a_reader_whose_newest_step_is_deleted_under_way_takes_the_one_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    looked_at = []

    def replaced(step: Path) -> str | None:
        looked_at.append(step.name)
        if looked_at == ["1"]:
            save(tmp_path, 2, keep=1)
        return find_fault(step)

    monkeypatch.setattr(steps, "find_fault", replaced)
    assert restored(tmp_path) == 2
    assert looked_at == ["1", "2"]


def test_nothing_whole_restores_nothing_and_says_why(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for step in (1, 2):
        _truncate(tmp_path / str(step))
    with pytest.warns(UserWarning, match="cannot be restored") as caught:
        assert restored(tmp_path) is None
    assert [str(warning.message)[:6] for warning in caught] == ["Step 2", "Step 1"]


def test_a_step_of_a_newer_version_is_an_error_that_names_the_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "1" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    from synthpix_torch.checkpoint.step import CHECKSUMS, seal

    (tmp_path / "1" / CHECKSUMS).unlink()
    seal(tmp_path / "1")
    with pytest.raises(ValueError, match=r"format 2, this version .* reads 1: install version"):
        restored(tmp_path)


def test_checksums_are_those_of_sha256sum(two_steps: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "checksums.sha256"]
    subprocess.run(command, cwd=two_steps / "1", check=True)


# The cases of NVIDIA DALI's checkpoints, as far as they exist here -------------------------------


def test_a_restored_run_is_saved_and_restored_again(tmp_path: Path) -> None:
    save(tmp_path / "a", 3)
    saved = Saved()
    with Checkpointer(tmp_path / "a") as first, Checkpointer(tmp_path / "b") as second:
        saved.register(first)
        saved.register(second)
        first.restore()
        second.save(step_of(3))
        second.wait()
        saved.set(7)
        second.restore()
    assert saved.number == restored(tmp_path / "b") == 3


def test_a_state_is_taken_before_during_and_after_the_iteration(tmp_path: Path) -> None:
    saved = Saved()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=saved.dataset)
        checkpoints.save(0)
        batches = iter(saved.dataset)
        checkpoints.save(1)
        first, second = next(batches), next(batches)
        checkpoints.save(2)
        saved.dataset.close()
        checkpoints.save(3)
        for step, number in ((0, 0), (1, 0), (2, 2), (3, 2)):
            checkpoints.restore(step)
            assert saved.dataset.position == number
        checkpoints.restore(1)
        again = iter(saved.dataset)
        assert torch.equal(next(again).images, first.images)
        # Under way, too.
        checkpoints.restore(1)
        again = iter(saved.dataset)
        assert torch.equal(next(again).images, first.images)
        assert torch.equal(next(again).images, second.images)


def test_the_folder_moves_and_is_copied(two_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_steps, tmp_path / "elsewhere")
    assert restored(tmp_path / "elsewhere") == 2
