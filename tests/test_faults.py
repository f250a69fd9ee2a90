"""Faults of folders, disks and processes: no step is lost, none is silently wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from crash import Saved, hold, restored, run, save, save_forever, step_of
from kinds import base, few

from synthpix_torch import Checkpointer, CheckpointError, SynthPixDataset
from synthpix_torch.checkpoint import folder as changes
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.step import find_fault
from synthpix_torch.cli.inspect import describe_step

# Killed processes ------------------------------------------------------------------------------


def kill_often(folder: Path, times: int, seed: int) -> dict[str, int]:
    """Kill a saving process again and again, and check what it leaves each time; what was seen."""
    rng = random.Random(seed)
    seen = {"kills": 0, "acknowledged": 0, "in the middle of a step": 0}
    for _ in range(times):
        process, connection = run(save_forever, folder)
        number = connection.recv()
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        while connection.poll():
            try:
                number = connection.recv()
            except EOFError:
                break
        work = [path.name for path in (folder / ".synthpix_torch").iterdir()]
        seen["in the middle of a step"] += work != ["lock"]
        seen["kills"] += 1
        saved = Saved()
        with warnings.catch_warnings(), Checkpointer(folder, keep=2, keep_every=9) as checkpoints:
            # A damaged step would be warned of.
            warnings.simplefilter("error")
            saved.register(checkpoints)
            found = checkpoints.restore()
            assert found == step_of(saved.number)
            assert saved.number >= number, f"{number} was acknowledged, {saved.number} came back"
            assert all(find_fault(folder / str(step)) is None for step in checkpoints.steps())
        assert [path.name for path in (folder / ".synthpix_torch").iterdir()] == ["lock"]
        seen["acknowledged"] = number
    return seen


def test_kill_9_at_any_time_loses_no_acknowledged_step_and_leaves_no_damaged_one(
    tmp_path: Path,
) -> None:
    seen = kill_often(tmp_path, 30, seed=0)
    assert seen["in the middle of a step"] > 0
    kept = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
    newest = max(kept)
    assert sorted(kept)[:-3] == [step for step in sorted(kept)[:-3] if step % 9 == 0]
    assert set(range(9, newest, 9)) <= set(kept)


class Killed(BaseException):
    """Stands for the death of the process: nothing on the disk changes after it."""


def test_a_death_at_any_change_of_the_folder_leaves_the_old_steps_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    save(tmp_path / "before", 1, 2, 3, 4)
    for moment in count():
        folder = tmp_path / str(moment)
        shutil.copytree(tmp_path / "before", folder)
        saved = Saved()
        saved.set(5)
        checkpoints = Checkpointer(folder, keep=1)
        saved.register(checkpoints)
        alive = _die(monkeypatch, moment)
        try:
            checkpoints.save(3, overwrite=True)
            checkpoints.close()
        except Killed:
            pass
        finally:
            monkeypatch.undo()
        checkpoints.close()
        with Checkpointer(folder) as checkpoints:
            saved.register(checkpoints)
            # A damaged step would be warned of, which is an error in the tests.
            left.append((checkpoints.restore(), saved.number))
            assert all(find_fault(folder / str(step)) is None for step in checkpoints.steps())
            assert [path.name for path in (folder / ".synthpix_torch").iterdir()] == ["lock"]
        if alive():
            break
    # Once the new step is decided on it stays.
    old, new = (4, 4), (3, 5)
    assert left == [old] * left.count(old) + [new] * left.count(new)
    assert min(left.count(old), left.count(new)) > 5, left


def _die(monkeypatch: pytest.MonkeyPatch, moment: int) -> Callable[[], bool]:
    """Let all changes that decide what is a step fail from a moment on; whether it has not come."""
    calls = iter(range(moment))
    dead = False

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal dead
            dead = dead or next(calls, None) is None
            if dead:
                raise Killed
            return change(*arguments, **options)

        return call

    for place, name in (
        (os, "rename"),
        (changes, "sync"),
        (changes, "_remove"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(place, name, dying(getattr(place, name)))
    return lambda: not dead


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_500_kills(tmp_path: Path) -> None:
    seen = kill_often(tmp_path, 500, seed=1)
    print(f"\n{seen}")
    assert seen["kills"] == 500


def test_a_second_writer_is_refused_with_the_number_of_the_first_until_that_is_killed(
    tmp_path: Path,
) -> None:
    process, connection = run(hold, tmp_path)
    try:
        assert connection.recv() == "ready"
        with (
            Checkpointer(tmp_path) as checkpoints,
            pytest.raises(CheckpointError, match=f"Process {process.pid} writes to"),
        ):
            checkpoints.restore()
        with pytest.raises(CheckpointError, match=f"Process {process.pid} writes to"):
            save(tmp_path, 2)
        assert restored(tmp_path) == 1
    finally:
        process.kill()
        process.join()
    save(tmp_path, 2)
    assert restored(tmp_path) == 2


def test_a_second_writer_in_the_same_process_is_refused_until_the_first_is_closed(
    tmp_path: Path,
) -> None:
    with Checkpointer(tmp_path) as first:
        first.restore()
        with (
            Checkpointer(tmp_path) as second,
            pytest.raises(CheckpointError, match=f"Process {os.getpid()} writes to"),
        ):
            second.restore()
    with Checkpointer(tmp_path) as second:
        second.restore()


def test_a_forgotten_checkpointer_locks_nothing(tmp_path: Path) -> None:
    Checkpointer(tmp_path).restore()
    with Checkpointer(tmp_path) as second:
        second.restore()


def test_a_program_that_ends_without_close_has_saved_its_last_step(tmp_path: Path) -> None:
    code = f"""
import torch
from synthpix_torch import Checkpointer
checkpoints = Checkpointer({str(tmp_path)!r})
checkpoints.register(model=torch.nn.Linear(1000, 1000))
checkpoints.save(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert find_fault(tmp_path / "1") is None


# Disks and folders -----------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 8 KiB, as if the disk were full; the model has more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_reported_and_leaves_the_steps_before_and_no_rest(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    save(tmp_path, 1, 2)
    request.getfixturevalue("small_disk")
    with pytest.raises(CheckpointError, match=r"Step 3 could not be saved.*fix the cause"):
        save(tmp_path, 3)
    assert restored(tmp_path) == 2
    assert [path.name for path in (tmp_path / ".synthpix_torch").iterdir()] == ["lock"]


def test_a_run_goes_on_saving_once_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Saved()
    write = steps.write_step

    def half(place: Path, *arguments: Any) -> None:
        write(place, *arguments)
        raise OSError(28, "No space left on device")

    with Checkpointer(tmp_path) as checkpoints:
        saved.register(checkpoints)
        saved.set(1)
        checkpoints.save(1)
        checkpoints.wait()
        monkeypatch.setattr(steps, "write_step", half)
        checkpoints.save(2)
        with pytest.raises(CheckpointError, match="No space left"):
            checkpoints.wait()
        monkeypatch.undo()
        saved.set(2)
        checkpoints.save(2)
    assert restored(tmp_path) == 2


def test_a_folder_that_cannot_be_written_is_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        Checkpointer(tmp_path / "file" / "run") as checkpoints,
        pytest.raises(CheckpointError, match=r"Nothing can be written to .*file/run: .*read_only"),
    ):
        checkpoints.restore()


def _as_nobody(folder: Path, say: Any) -> None:
    saved = Saved()
    os.setuid(65534)
    try:
        with Checkpointer(folder) as checkpoints:
            saved.register(checkpoints)
            checkpoints.restore()
    except CheckpointError as error:
        say.send(str(error))
    say.send(restored(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes away the rights of the administrator")
def test_a_read_only_folder_restores_with_read_only_alone(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path(path.root):
            path.chmod(path.stat().st_mode | 0o055)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    process, connection = run(_as_nobody, tmp_path)
    assert "Permission denied. Choose another folder, or pass read_only=True" in connection.recv()
    assert connection.recv() == 1
    process.join()


def test_a_run_in_a_lower_layer_of_an_overlay_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2, 3)

    def identify(path: Path) -> tuple[int, int]:
        # An inode is used again for another folder.
        return path.stat().st_ino, path.stat().st_mtime_ns

    inherited = {identify(tmp_path / str(step)) for step in (1, 2, 3)}
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if identify(source) in inherited:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    save(tmp_path, 4, keep=2)
    saved = Saved()
    saved.set(5)
    with Checkpointer(tmp_path) as checkpoints:
        saved.register(checkpoints)
        assert checkpoints.steps() == [3, 4]
        checkpoints.save(3, overwrite=True)
        checkpoints.wait()
        saved.set(9)
        assert checkpoints.restore() == 3
        assert saved.number == 5
    assert [path.name for path in (tmp_path / ".synthpix_torch").iterdir()] == ["lock"]


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(UserWarning, match=f"{tmp_path.name} has no locks .*one process alone"):
        save(tmp_path, 1)
    assert restored(tmp_path) == 1


@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_a_folder_that_is_removed_under_way_is_reported(tmp_path: Path, again: bool) -> None:
    folder = tmp_path / "run"
    saved = Saved()
    with Checkpointer(folder) as checkpoints:
        saved.register(checkpoints)
        checkpoints.save(1)
        checkpoints.wait()
        shutil.rmtree(folder)
        if again:
            save(folder, 5)
        with pytest.raises(CheckpointError, match="removed or replaced while it was in use"):
            checkpoints.save(2)
    assert restored(folder) == (5 if again else None)


def test_a_folder_that_is_removed_while_a_step_is_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = steps.write_step

    def remove(place: Path, *arguments: Any) -> None:
        write(place, *arguments)
        shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(steps, "write_step", remove)
    with pytest.raises(CheckpointError, match="removed or replaced"):
        save(tmp_path / "run", 1)


FORKS = """
import multiprocessing, sys, time
import torch
from synthpix_torch import Checkpointer, CheckpointError
from synthpix_torch.checkpoint import step as steps

def slow(*arguments, write=steps.write_step):
    time.sleep(1)
    write(*arguments)

def child():
    try:
        checkpoints.save(2)
    except CheckpointError as error:
        print(error, flush=True)

steps.write_step = slow
checkpoints = Checkpointer(sys.argv[1])
checkpoints.register(model=torch.nn.Linear(2, 2))
checkpoints.save(1)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
print("exit", process.exitcode)
process.kill()
checkpoints.close()
print("steps", checkpoints.steps())
"""


def test_a_forked_process_neither_writes_nor_waits_for_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    words, *rest = done.stdout.splitlines()
    assert "the process that this one was forked from" in words
    assert rest == ["exit 0", "steps [1]"]


def test_a_failure_outlives_a_wait_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()

    def fail(*_: Any) -> None:
        interrupted.wait(60)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(steps, "write_step", fail)
    saved = Saved()
    with Checkpointer(tmp_path) as checkpoints:
        saved.register(checkpoints)
        checkpoints.save(1)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            # Inside, as a busy machine may be late.
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            checkpoints.wait()
        interrupted.set()
        with pytest.raises(CheckpointError, match="Step 1 could not be saved"):
            checkpoints.wait()


def test_a_folder_that_cannot_be_made_is_reported_at_once(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(**{"n" * 256: torch.nn.Linear(2, 2)})
        checkpoints.save(1)
        with pytest.raises(CheckpointError, match="File name too long"):
            checkpoints.wait()


# Steps that replace others ---------------------------------------------------------------------


@pytest.fixture
def decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a kill left a new step 2 (number 5) that replaces 2, 3 and 4; 2 is left."""
    save(tmp_path, 1, 2, 3, 4)
    delete = changes.Folder.delete

    def die(folder: changes.Folder, numbers: set[int]) -> None:
        delete(folder, numbers - {2})
        if numbers:
            raise Killed

    monkeypatch.setattr(changes.Folder, "delete", die)
    saved = Saved()
    saved.set(5)
    checkpoints = Checkpointer(tmp_path)
    saved.register(checkpoints)
    checkpoints.save(2, overwrite=True)
    with pytest.raises(Killed):
        checkpoints.close()
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".synthpix_torch", "1", "2"]
    return tmp_path


def test_a_decided_step_is_there_for_those_who_only_read(decided: Path) -> None:
    saved = Saved()
    with Checkpointer(decided, read_only=True) as checkpoints:
        saved.register(checkpoints)
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.restore() == 2
    assert saved.number == 5
    assert describe_step(decided, 2)["datasets"]["data"]["position"] == 5
    assert SynthPixDataset(base(**few), load_from=decided).position == 5


def test_a_reader_takes_a_step_that_is_moved_under_way_for_what_it_is(
    decided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish_first(step: Path) -> str | None:
        if step.parent.name == "decided":
            writer = changes.Folder(decided)
            writer.lock()
            writer.unlock()
            assert not step.exists()
        return find_fault(step)

    saved = Saved()
    with Checkpointer(decided, read_only=True) as checkpoints:
        saved.register(checkpoints)
        monkeypatch.setattr(steps, "find_fault", finish_first)
        assert checkpoints.restore() == 2
    assert saved.number == 5


def test_a_decided_step_outlives_a_recovery_that_fails(
    decided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Saved()
    with Checkpointer(decided) as checkpoints:
        saved.register(checkpoints)
        monkeypatch.setattr(os, "rename", _fails)
        with pytest.raises(CheckpointError, match="Nothing can be written"):
            checkpoints.restore()
        monkeypatch.undo()
        assert checkpoints.restore() == 2
        assert saved.number == 5
        checkpoints.save(6)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 6]
    assert [path.name for path in (decided / ".synthpix_torch").iterdir()] == ["lock"]


def test_a_changed_list_of_replaced_steps_is_an_error_with_a_way_out(decided: Path) -> None:
    path = decided / ".synthpix_torch" / "decided" / "replaced"
    content = path.read_bytes()
    rng = random.Random(0)
    for place in (0, 1, 2, *rng.sample(range(len(content)), 20)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        for use in (restored, save):
            with pytest.raises(CheckpointError, match=r"Move newer .*, then delete .*replaced"):
                use(decided, 2)
    path.unlink()
    saved = Saved()
    with Checkpointer(decided) as checkpoints:
        saved.register(checkpoints)
        assert checkpoints.restore() == 2
    assert saved.number == 5


def test_a_list_of_replaced_steps_of_an_older_version_is_read(decided: Path) -> None:
    (decided / "4").mkdir()
    (decided / ".synthpix_torch" / "decided" / "replaced").write_text("2 3 4")
    writer = changes.Folder(decided)
    assert writer.steps() == [1, 2]
    writer.lock()
    assert writer.steps() == [1, 2]
    assert not (decided / "4").exists()


def test_finishing_a_decided_step_leaves_newer_ones_of_others_alone(decided: Path) -> None:
    (decided / "50").mkdir()
    (decided / "50" / "theirs").write_text("precious")
    with Checkpointer(decided) as checkpoints:
        checkpoints.register(other=torch.nn.Linear(2, 2))
        with (
            pytest.warns(UserWarning, match="Step 50 .* synthpix_torch did not write it"),
            pytest.raises(ValueError, match="Not registered: data"),
        ):
            checkpoints.restore()
        assert checkpoints.steps() == [1, 2, 50]
    assert (decided / "50" / "theirs").read_text() == "precious"


def test_steps_that_cannot_be_deleted_are_told_apart_from_a_step_that_cannot_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, 2, 3)
    saved = Saved()
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        saved.register(checkpoints)
        for step, overwrite in ((2, True), (5, False)):
            monkeypatch.setattr(changes.Folder, "_move", _fails)
            saved.set(10 * step)
            checkpoints.save(step, overwrite=overwrite)
            with pytest.raises(CheckpointError, match=f"Step {step} is saved in .* tries again"):
                checkpoints.wait()
            assert f"Step {step} is saved in" in caplog.text
            monkeypatch.undo()
            assert checkpoints.steps()[-1] == step
            assert checkpoints.restore() == step
            assert saved.number == 10 * step
        checkpoints.save(6)
        checkpoints.wait()
        assert checkpoints.steps() == [5, 6]
    assert [path.name for path in (tmp_path / ".synthpix_torch").iterdir()] == ["lock"]


def _fails(*_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error")
