"""Damaged steps: each is found and named, none is restored silently."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crash import Saved, restored, save, step_of
from strangers import METADATA, change_metadata, fuzz, reseal, snapshot

from synthpix_torch import Checkpointer, CheckpointError, SynthPixDataset
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.step import find_fault
from synthpix_torch.cli import main
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
    "link": (_link, "model/state.pt is not a regular file"),
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
    "pipe in place of the manifest": (
        lambda step: _pipe(step / METADATA),
        "_CHECKPOINT_METADATA is not a regular file",
    ),
    "pipe in place of a state": (
        lambda step: _pipe(step / "model" / "state.pt"),
        "state.pt is not a regular file",
    ),
    "pipe in place of the checksums": (
        lambda step: _pipe(step / "checksums.sha256"),
        "checksums.sha256 is not a regular file",
    ),
    "pipe in place of Grain's item": (
        lambda step: _pipe(step / "grain" / "process_0-of-1.json"),
        "json is not a regular file",
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


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


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

    monkeypatch.setattr(steps, "check_seal", refuse)
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
    reseal(tmp_path / "1")
    with pytest.raises(ValueError, match=r"format 2, this version .* reads 1: install version"):
        restored(tmp_path)


def test_checksums_are_those_of_sha256sum(two_steps: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "checksums.sha256"]
    subprocess.run(command, cwd=two_steps / "1", check=True)


def test_two_exchanged_steps_are_refused(two_steps: Path, tmp_path: Path) -> None:
    for step in (1, 2):
        shutil.copytree(two_steps / str(step), tmp_path / str(3 - step))
    for step in (1, 2):
        with pytest.raises(CheckpointError, match=f"Step {step} .*it was saved as step {3 - step}"):
            restored(tmp_path, step)


def test_a_step_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    read, saved = torch.load, Saved()

    def replaced_after_the_first(*arguments: Any, **options: Any) -> Any:
        state = read(*arguments, **options)
        monkeypatch.undo()
        saved.set(2)
        with Checkpointer(tmp_path) as writer:
            saved.register(writer)
            writer.save(1, overwrite=True)
        return state

    monkeypatch.setattr(torch, "load", replaced_after_the_first)
    reader = Saved()
    with Checkpointer(tmp_path, read_only=True) as checkpoints:
        reader.register(checkpoints)
        assert checkpoints.restore() == 1
    # All of the new step, or Saved.number raises.
    assert reader.number == 2


# Errors that say nothing about a step ------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ESTALE, errno.EACCES, errno.EIO])
@pytest.mark.parametrize(
    "name", [METADATA, "checksums.sha256", "process_0-of-1.json", "metadata", "state.pt"]
)
def test_a_file_that_cannot_be_read_now_is_an_error_and_not_a_corrupt_step(
    two_steps: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int
) -> None:
    opened = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path).endswith(f"/{name}"):
            raise OSError(error, os.strerror(error), path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    saved = Saved()
    saved.set(9)
    with Checkpointer(two_steps, read_only=True) as checkpoints:
        saved.register(checkpoints)
        for step in (None, 2):
            with pytest.raises(CheckpointError, match=rf"Step 2 .* cannot be read: .*{name}"):
                checkpoints.restore(step)
    assert saved.number == 9


# Folders of strangers ----------------------------------------------------------------------------


def _outside(folder: Path) -> Path:
    """Something precious that is no part of the folder of steps."""
    save(folder / "outside" / "run", 1)
    (folder / "outside" / "file").write_text("precious")
    (folder / "outside" / "7").mkdir()
    (folder / "outside" / "replaced").write_text("1 2")
    return folder / "outside"


LEADS_OUT: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "linked work folder": ("", lambda path, outside: path.symlink_to(outside)),
    "linked lock": ("lock", lambda path, outside: path.symlink_to(outside / "file")),
    "hard-linked lock": ("lock", lambda path, outside: os.link(outside / "file", path)),
    "pipe as lock": ("lock", lambda path, outside: os.mkfifo(path)),
    "linked decision": ("decided", lambda path, outside: path.symlink_to(outside)),
    "linked rest": ("deleted", lambda path, outside: path.symlink_to(outside)),
    "linked quarantine": ("quarantine", lambda path, outside: path.symlink_to(outside)),
    "linked temporary folder": ("saving", lambda path, outside: path.symlink_to(outside)),
    "dangling link": ("lock", lambda path, outside: path.symlink_to(outside / "new")),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", LEADS_OUT)
def test_nothing_outside_a_folder_is_touched(two_steps: Path, tmp_path: Path, case: str) -> None:
    outside = _outside(tmp_path)
    before = snapshot(outside)
    shutil.copytree(two_steps, tmp_path / "run")
    name, put = LEADS_OUT[case]
    path = tmp_path / "run" / ".synthpix_torch" / name
    shutil.rmtree(path) if not name else path.unlink(missing_ok=True)
    put(path, outside)
    saved = Saved()
    for read_only in (False, True):
        with Checkpointer(tmp_path / "run", read_only=read_only) as checkpoints:
            saved.register(checkpoints)
            with pytest.raises(CheckpointError, match="may lead out of the folder: delete it"):
                checkpoints.restore()
    with pytest.raises(CheckpointError, match="may lead out"):
        save(tmp_path / "run", 3)
    assert snapshot(outside) == before


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no objects": lambda mark: mark.pop("objects"),
    "objects in a list": lambda mark: mark.update(objects=[]),
    "an object outside": lambda mark: mark["objects"].update({"../../x": "torch"}),
    "a dataset without position": lambda mark: mark["datasets"]["data"].pop("position"),
    "a dataset of words": lambda mark: mark["datasets"].update(data="all"),
    "an epoch without end": lambda mark: mark["datasets"]["data"].update(epochs=10**400),
    "recipes of words": lambda mark: mark["recipes"].update(data="all"),
    "metrics of words": lambda mark: mark.update(metrics={"epe": "small"}),
    "a step of words": lambda mark: mark.update(step="two"),
    "deep": lambda mark: mark["recipes"].update(data={"x": _deep(60)}),
}


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else []


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_malformed_manifest_is_a_corrupt_step(
    two_steps: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_steps, tmp_path / "run")
    change_metadata(tmp_path / "run" / "2", MANIFESTS[case])
    with pytest.warns(UserWarning, match="Step 2 .*manifest is missing or malformed"):
        assert restored(tmp_path / "run") == 1
    assert main(["inspect", str(tmp_path / "run")]) == 1
    assert "manifest is missing or malformed" in capsys.readouterr().out


def test_inspect_prints_nothing_that_a_terminal_would_act_on(
    two_steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_steps, tmp_path / "run")
    change_metadata(tmp_path / "run" / "2", lambda mark: mark.update(version="\x1b[2J"))
    change_metadata(
        tmp_path / "run" / "1", lambda mark: mark["datasets"]["data"].update(fingerprint="\x07")
    )
    (tmp_path / "run" / "1" / "\x1b]0;title\x07").write_text("")
    main(["inspect", str(tmp_path / "run")])
    shown = capsys.readouterr().out
    assert "\\x1b]0;title\\x07 does not belong there" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


@pytest.mark.parametrize("content", ["[" * 100_000, " " * (1 << 26) + "{}"], ids=["deep", "long"])
def test_json_that_is_too_deep_or_too_long_is_a_corrupt_step(
    two_steps: Path, tmp_path: Path, content: str
) -> None:
    shutil.copytree(two_steps, tmp_path / "run")
    (tmp_path / "run" / "2" / METADATA).write_text(content)
    with pytest.warns(UserWarning, match="Step 2 .*_CHECKPOINT_METADATA was changed"):
        assert restored(tmp_path / "run") == 1
    shutil.copy(two_steps / "2" / METADATA, tmp_path / "run" / "2")
    (tmp_path / "run" / "2" / "sampler" / "metadata").write_text(content)
    reseal(tmp_path / "run" / "2")
    with pytest.raises(CheckpointError, match=r"Step 2 .*cannot be read: .*(not JSON|longer than)"):
        restored(tmp_path / "run")


def test_a_state_that_would_fill_the_memory_is_refused(two_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_steps, tmp_path / "run")
    path = tmp_path / "run" / "2" / "model" / "state.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    reseal(tmp_path / "run" / "2")
    with pytest.raises(CheckpointError, match=r"model/state.pt is compressed"):
        restored(tmp_path / "run")


@pytest.mark.parametrize("key", ["config", "arguments", "source"])
def test_a_malformed_recipe_is_refused(two_steps: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(two_steps, tmp_path / "run")
    change_metadata(tmp_path / "run" / "2", lambda mark: mark["recipes"]["data"].pop(key))
    with pytest.raises(CheckpointError, match="the recipe of data is malformed"):
        SynthPixDataset.from_checkpoint(tmp_path / "run")


def test_deeply_nested_folders_are_removed_or_refused(two_steps: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_steps, run)
    for path in (run / "2" / "deep", run / ".synthpix_torch" / "deleted"):
        for _ in range(1100):
            path.mkdir()
            path /= "d"
    refused = ""
    try:
        save(run, 3)
    except CheckpointError as error:
        refused = str(error)
    found = restored(run)
    subprocess.run(["rm", "-rf", run], check=True)
    # Newer versions of Python remove such folders.
    if refused:
        assert ".synthpix_torch is nested too deeply" in refused
    assert found == (2 if refused else 3)


@pytest.mark.timeout(120)
def test_a_spoiled_folder_is_restored_or_refused_and_nothing_else_changes(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, 25, seed=0)
    assert {"restore: loaded", "restore: CheckpointError", "inspected"} <= counts.keys(), counts


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_5000_spoiled_folders_are_restored_or_refused(tmp_path: Path) -> None:
    for seed in range(1, 6):
        (tmp_path / str(seed)).mkdir()
        fuzz(tmp_path / str(seed), 1000, seed=seed)


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
