"""A folder of steps on disk: each is there whole or not at all, and one process writes."""

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

from synthpix_torch.checkpoint.integrity import sync

WORK = ".synthpix_torch"
"""What is not a step: the lock, steps being written or deleted, and damaged ones moved aside."""


class CheckpointError(RuntimeError):
    """A step could not be saved or read, or the folder belongs to another process."""


class UnfinishedError(CheckpointError):
    """A step is complete, but steps that it replaces could not be moved out of its way yet."""


class Place(NamedTuple):
    """Where a step is.

    Attributes:
        path: Its folder.
        inode: Tells that folder from another one of the same name.
    """

    path: Path
    inode: int


class Folder:
    """The steps below a path, named by their number as Orbax names them.

    Reading needs nothing more. To write, call `lock` first.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Nothing is read or written yet.

        Raises:
            ValueError: The path is an address.
        """
        if "://" in os.fspath(path):
            raise ValueError(f"{path} is not on a local disk: choose a folder, and copy it there.")
        self.path = Path(path).absolute()
        self._work = self.path / WORK
        self._lock: _Lock | None = None

    def steps(self) -> list[int]:
        """Numbers of all steps, in order; whether they are whole is another question.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        return sorted(self.places())

    def places(self) -> dict[int, Place]:
        """Where each step is now; another place, or the same with another step, is not equal.

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
                    places = {n: Place(path, path.stat().st_ino) for n, path in paths.items()}
                    if self._decided() == (decided, replaced):
                        return places
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be read: {error}. Mend that, or choose another folder."
            ) from error

    def step(self, number: int) -> Path:
        """Where a step is, or would be."""
        decided = self._work / "decided" / str(number)
        return decided if decided.exists() else self.path / str(number)

    # Writing -----------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the one writer, until `unlock` or the end of the process, however it ends.

        Whatever a writer that was killed had begun is finished or removed.

        Raises:
            CheckpointError: Another writer lives, or nothing can be written here, or the folder
                was removed or replaced since it was locked.
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
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write(self, number: int, write: Callable[[Path], None], replacing: Iterable[int]) -> None:
        """Write a step and make it one, for good, once it is complete.

        Args:
            number: The step.
            write: Writes it to a place that it is given, down to the disk.
            replacing: Steps that go when this one comes. A kill at any time leaves either all of
                them, or this one in their place.

        Raises:
            UnfinishedError: The step is there, but what it replaces is still in the way.
            Exception: The step could not be written; nothing has changed.
        """
        place = self._work / "saving" / str(number)
        decided = self._work / "decided"
        try:
            self.lock()
            _remove(place.parent)
            place.parent.mkdir()
            write(place)
            self.lock()
            if replacing:
                decided.mkdir(exist_ok=True)
                (decided / "replaced").write_text(" ".join(map(str, replacing)))
                sync(decided / "replaced")
                sync(decided)
            os.rename(place, (decided if replacing else self.path) / str(number))
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
            # Whoever takes the lock next finishes it.
            self.unlock()
            raise UnfinishedError(str(error)) from error

    def discard(self, numbers: Iterable[int]) -> None:
        """Delete steps, each of which stops being a step before the first file is deleted."""
        for number in sorted(numbers, reverse=True):
            self._move(number, "deleted")
            _remove(self._work / "deleted")

    def set_aside(self, number: int) -> Path:
        """Move a damaged step out of the way, for a person to look at; where to."""
        return self._move(number, "damaged")

    def _move(self, number: int, name: str) -> Path:
        place = self._work / name / f"{number}-{uuid.uuid4().hex[:8]}"
        place.parent.mkdir(exist_ok=True)
        os.rename(self.path / str(number), place)
        sync(self.path)
        return place

    def _decided(self) -> tuple[list[int], list[int]]:
        """The step, if there is one, that is complete and is to replace others; and those."""
        folder = self._work / "decided"
        decided = _numbers(folder)
        replaced = list(decided)
        if decided:
            with suppress(FileNotFoundError):
                replaced += map(int, (folder / "replaced").read_text().split())
        return decided, replaced

    def _recover(self) -> None:
        """Finish what was begun."""
        decided, replaced = self._decided()
        self.discard({*replaced} & {*_numbers(self.path)})
        for number in decided:
            os.rename(self._work / "decided" / str(number), self.path / str(number))
            sync(self.path)
        self._clear()

    def _clear(self) -> None:
        """Remove what was begun and is of no use, as far as that is possible and is ours."""
        if self._lock is None:
            return
        with suppress(CheckpointError):
            self._lock.check(self.path)
            for rest in ("decided", "saving", "deleted"):
                shutil.rmtree(self._work / rest, ignore_errors=True)


class _Lock:
    """A lock on a file that the system releases when the process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: Another process has it; the text of the error is its number.
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
        """Raise unless the file is still the one that was locked.

        Raises:
            CheckpointError: It was removed or replaced, or this is a forked child.
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


def _numbers(folder: Path) -> list[int]:
    """The folders in a folder that are named by a number, in order."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in found if name.isdecimal() and str(int(name)) == name)


def _make(folder: Path) -> None:
    """Make a folder and those above it, for good."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


_LOCKS: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    """A forked child would keep the lock when its parent is killed."""
    for lock in tuple(_LOCKS):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
