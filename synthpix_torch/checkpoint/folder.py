"""A folder of steps: each is written atomically, and one process writes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from synthpix_torch.checkpoint.step import sync

WORK = ".synthpix_torch"
"""The lock, steps being written or deleted, and the quarantine of corrupt steps."""


class CheckpointError(RuntimeError):
    """A step cannot be saved or read, or another process writes to the folder."""


class CleanupError(CheckpointError):
    """The new step is saved, but steps that it replaces could not be deleted yet."""


class Location(NamedTuple):
    """The location of a step.

    Attributes:
        path: Its folder.
        inode: Distinguishes that folder from another one of the same name.
    """

    path: Path
    inode: int


class Folder:
    """The steps in a folder, named by their number as Orbax names them.

    Reading needs no lock; `write`, `delete` and `quarantine` need `lock` first.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read and write nothing yet.

        Raises:
            ValueError: The path is a URL.
        """
        if "://" in os.fspath(path):
            raise ValueError(f"{path} is not on a local disk: choose a folder, and copy it there.")
        self.path = Path(path).absolute()
        self._work = self.path / WORK
        self._lock: _Lock | None = None

    def steps(self) -> list[int]:
        """Return the numbers of all steps in order, complete or corrupt.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        return sorted(self.locations())

    def locations(self) -> dict[int, Location]:
        """Return where each step is now; a step that was moved or replaced compares unequal.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        try:
            while True:
                decided, replaced = self._decided()
                paths = {number: self.path / str(number) for number in _numbers(self.path)}
                for number in replaced:
                    paths.pop(number, None)
                paths |= {number: self._work / "decided" / str(number) for number in decided}
                with suppress(FileNotFoundError):
                    found = {n: Location(path, path.stat().st_ino) for n, path in paths.items()}
                    # Else a writer has moved steps in the meantime.
                    if self._decided() == (decided, replaced):
                        return found
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be read: {error}. Fix that, or choose another folder."
            ) from error

    def step(self, number: int) -> Path:
        """Return where a step is, or would be."""
        decided = self._work / "decided" / str(number)
        return decided if decided.exists() else self.path / str(number)

    # Writing -----------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the only writer until `unlock` or the end of the process, and recover.

        What a killed writer has begun is completed or removed.

        Raises:
            CheckpointError: Another process writes, the folder cannot be written, or it was removed
                or replaced since it was locked.
        """
        if self._lock is not None:
            self._lock.check(self.path)
            return
        try:
            _make(self._work)
            self._lock = _Lock(self._work / "lock")
            try:
                self._recover()
            except BaseException:
                self.unlock()
                raise
        except BlockingIOError as error:
            raise CheckpointError(
                f"Process {error.strerror} writes to {self.path}: end it, or choose another "
                "folder. Pass read_only=True to restore only."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"Nothing can be written to {self.path}: {error.strerror}. Choose another folder, "
                "or pass read_only=True to restore only."
            ) from error

    def unlock(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write(self, number: int, write: Callable[[Path], None], replacing: Iterable[int]) -> None:
        """Write a step atomically.

        Args:
            number: The step.
            write: Writes it to the path that it is called with, and flushes it to disk.
            replacing: Steps that are deleted when this one is complete. A kill at any time leaves
                either all of them or this one.

        Raises:
            CleanupError: The step is saved, but not all of `replacing` is deleted.
            Exception: The step could not be written; nothing has changed.
        """
        path = self._work / "saving" / str(number)
        decided = self._work / "decided"
        try:
            self.lock()
            _remove(path.parent)
            path.parent.mkdir()
            write(path)
            self.lock()
            if replacing:
                decided.mkdir(exist_ok=True)
                (decided / "replaced").write_text(" ".join(map(str, replacing)))
                sync(decided / "replaced")
                sync(decided)
            os.rename(path, (decided if replacing else self.path) / str(number))
        except BaseException:
            self._clear()
            raise
        try:
            if replacing:
                sync(decided)
                sync(self._work)
            sync(self.path)
            self._recover()
        except Exception as error:
            # The next lock recovers.
            self.unlock()
            raise CleanupError(str(error)) from error

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete steps; each is renamed first, so that no step is ever incomplete."""
        for number in sorted(numbers, reverse=True):
            self._move(number, "deleted")
            _remove(self._work / "deleted")

    def quarantine(self, number: int) -> Path:
        """Move a corrupt step aside for inspection, and return its new path."""
        return self._move(number, "quarantine")

    def _move(self, number: int, name: str) -> Path:
        path = self._work / name / f"{number}-{uuid.uuid4().hex[:8]}"
        path.parent.mkdir(exist_ok=True)
        os.rename(self.path / str(number), path)
        sync(self.path)
        return path

    def _decided(self) -> tuple[list[int], list[int]]:
        """Return the complete step, if any, that replaces others, and those."""
        folder = self._work / "decided"
        decided = _numbers(folder)
        replaced = list(decided)
        if decided:
            with suppress(FileNotFoundError):
                replaced += map(int, (folder / "replaced").read_text().split())
        return decided, replaced

    def _recover(self) -> None:
        """Complete a replacement that was decided, and remove the rest."""
        decided, replaced = self._decided()
        self.delete({*replaced} & {*_numbers(self.path)})
        for number in decided:
            os.rename(self._work / "decided" / str(number), self.path / str(number))
            sync(self.path)
        self._clear()

    def _clear(self) -> None:
        """Remove temporary folders as far as possible, if the lock still holds."""
        if self._lock is not None:
            with suppress(CheckpointError):
                self._lock.check(self.path)
                for rest in ("decided", "saving", "deleted"):
                    shutil.rmtree(self._work / rest, ignore_errors=True)


class _Lock:
    """A lock on a file, which the system releases when the process ends."""

    def __init__(self, path: Path) -> None:
        """Acquire the lock.

        Raises:
            BlockingIOError: Another process holds it; its number is the text of the error.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.release = weakref.finalize(self, os.close, self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 20).decode(errors="replace") or "unknown"
            self.release()
            raise BlockingIOError(errno.EWOULDBLOCK, owner) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())
        _LOCKS.add(self)

    def check(self, folder: Path) -> None:
        """Raise unless the lock still holds.

        Raises:
            CheckpointError: The file was removed or replaced, or this is a forked child.
        """
        if not self.release.alive:
            raise CheckpointError(
                f"This process was forked from the one that writes to {folder}: save there only."
            )
        try:
            same = os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            same = False
        if not same:
            raise CheckpointError(
                f"{folder} was removed or replaced while it was in use: put it back, or start "
                "again with another folder."
            )


_LOCKS: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked child would otherwise hold the lock after its parent was killed.
    for lock in tuple(_LOCKS):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers that name subfolders, in order; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in found if name.isdecimal() and str(int(name)) == name)


def _make(folder: Path) -> None:
    """Make a folder and its parents, and flush them to disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
