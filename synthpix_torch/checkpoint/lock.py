"""A lock on a folder, held by one process."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
import weakref
from pathlib import Path

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of a file system that is mounted without locks, as Lustre without the option `flock`."""


class Lock:
    """A lock on a file, which the system releases when the process ends."""

    def __init__(self, path: Path) -> None:
        """Acquire the lock, or warn that the file system has none.

        Raises:
            BlockingIOError: Another process holds it; its number is the text of the error.
            OSError: The file cannot be opened, or is a link.
        """
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(path, flags, 0o644)
        self.release = weakref.finalize(self, os.close, self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 20).decode(errors="replace")
            self.release()
            known = owner if owner.isdecimal() else "unknown"
            raise BlockingIOError(errno.EWOULDBLOCK, known) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"The file system of {path.parent.parent} has no locks ({error.strerror}), so that "
                "a second writer would not be noticed: let one process alone write there.",
                stacklevel=2,
            )
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())
        _LOCKS.add(self)

    def fault(self) -> str | None:
        """Return why the lock does not hold any more, None if it does."""
        if not self.release.alive:
            return "is written by the process that this one was forked from: save there only"
        try:
            same = os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            same = False
        if same:
            return None
        return (
            "was removed or replaced while it was in use: put it back, or start again with another "
            "folder"
        )


_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked child would otherwise hold the lock after its parent was killed.
    for lock in tuple(_LOCKS):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
