"""A folder of steps: each is written atomically, and one process writes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from synthpix_torch.checkpoint.files import CorruptError, exists, read_bytes
from synthpix_torch.checkpoint.lock import Lock
from synthpix_torch.files import sync

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
        changed: Time in ns, as a file system may use an inode again.
    """

    path: Path
    inode: int
    changed: int


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
        self._lock: Lock | None = None

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
                    found = {number: _locate(path) for number, path in paths.items()}
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
        return decided if exists(decided) else self.path / str(number)

    # Writing -----------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the only writer until `unlock` or the end of the process, and recover.

        What a killed writer has begun is completed or removed.

        Raises:
            CheckpointError: Another process writes, the folder cannot be written, it was removed
                or replaced since it was locked, or a link in it leads elsewhere.
        """
        if self._lock is not None:
            if fault := self._lock.fault():
                raise CheckpointError(f"{self.path} {fault}.")
            return
        try:
            self._check_work()
            _make(self._work)
            self._lock = Lock(self._work / "lock")
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
        except RecursionError as error:
            raise CheckpointError(
                f"{self._work} is nested too deeply to be removed: delete it."
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
                (decided / "replaced").write_text(_sealed(" ".join(map(str, replacing))))
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
        self._rename(self.path / str(number), path)
        sync(self.path)
        return path

    def _rename(self, source: Path, target: Path) -> None:
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A folder in a lower layer of an overlay, as in the image of a container.
            copy = self._work / "saving" / source.name
            _remove(copy)
            shutil.copytree(source, copy, symlinks=True)
            for parent, _, files in os.walk(copy, topdown=False):
                for path in (*(Path(parent, name) for name in files), Path(parent)):
                    if not path.is_symlink():
                        sync(path)
            os.rename(copy, target)
            _remove(source)

    def _decided(self) -> tuple[list[int], list[int]]:
        """Return the complete step, if any, that replaces others, and those."""
        self._check_work()
        decided = _numbers(self._work / "decided")
        path = self._work / "decided" / "replaced"
        if not decided:
            return [], []
        try:
            return decided, [*decided, *_read_sealed(path)]
        except ValueError as error:
            if not exists(path):
                return decided, decided
            raise CheckpointError(
                f"The list of the steps that step {decided[-1]} replaces cannot be read: {error}. "
                f"Move newer steps elsewhere, then delete {path}."
            ) from error

    def _check_work(self) -> None:
        """Raise if something in the work folder could lead out of it.

        Raises:
            CheckpointError: It is not a folder, or the lock not a file, of the folder alone.
        """
        for name in ("", "decided", "saving", "deleted", "quarantine", "lock"):
            path = self._work / name
            with suppress(FileNotFoundError):
                found = os.lstat(path)
                own = stat.S_ISREG if name == "lock" else stat.S_ISDIR
                if not own(found.st_mode) or (name == "lock" and found.st_nlink > 1):
                    raise CheckpointError(
                        f"{path} is a link or of another kind than synthpix_torch makes, and may "
                        "lead out of the folder: delete it."
                    )

    def _recover(self) -> None:
        """Complete a replacement that was decided, and remove the rest."""
        decided, replaced = self._decided()
        self.delete({*replaced} & {*_numbers(self.path)})
        for number in decided:
            self._rename(self._work / "decided" / str(number), self.path / str(number))
            sync(self.path)
        self._clear()

    def _clear(self) -> None:
        """Remove temporary folders as far as possible, if the lock still holds."""
        if self._lock is not None and self._lock.fault() is None:
            for rest in ("decided", "saving", "deleted"):
                shutil.rmtree(self._work / rest, ignore_errors=True)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers that name subfolders, in order; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in found if name.isdecimal() and str(int(name)) == name)


def _locate(path: Path) -> Location:
    found = path.stat()
    return Location(path, found.st_ino, found.st_mtime_ns)


def _sealed(text: str) -> str:
    return f"{text}\n# {hashlib.sha256(text.encode()).hexdigest()}\n"


def _read_sealed(path: Path) -> list[int]:
    """Return numbers that were written with `_sealed`, or before version 0.3.0 without it."""
    text = read_bytes(path).decode(errors="replace")
    numbers = text.partition("\n")[0]
    if text not in (numbers, _sealed(numbers)) or not numbers.replace(" ", "").isdecimal():
        raise CorruptError(f"{path} was changed")
    return [int(number) for number in numbers.split()]


def _make(folder: Path) -> None:
    """Make a folder and its parents, and flush them to disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
