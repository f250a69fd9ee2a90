"""Write files that survive a crash."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

# Bytes in a direct write, and what its length must be a multiple of.
_BUFFER: Final = 2**20
_BLOCK: Final = 4096


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that is either absent or complete, also after a crash of the machine."""
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        write(unfinished)
        sync(unfinished)
        os.replace(unfinished, path)
        sync(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_pieces(path: Path, pieces: Iterable[memoryview]) -> None:
    """Write a file from pieces of memory, past the page cache where the file system can.

    The page cache would copy every byte into new memory, which takes time of a core.
    """
    length = filled = 0
    # Begins with a page, as direct writes require; not closed, because an error may refer to it.
    buffer = memoryview(mmap.mmap(-1, _BUFFER, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    with path.open("wb", buffering=0) as file:
        descriptor = file.fileno()
        _set_direct(descriptor, True)
        for piece in pieces:
            length += len(piece)
            rest = piece
            while rest:
                count = min(len(rest), _BUFFER - filled)
                buffer[filled : filled + count] = rest[:count]
                rest = rest[count:]
                filled += count
                if filled == _BUFFER:
                    _write_all(descriptor, buffer)
                    filled = 0
        _write_all(descriptor, buffer[: -(-filled // _BLOCK) * _BLOCK])
        os.ftruncate(descriptor, length)


def _write_all(descriptor: int, content: memoryview) -> None:
    while content:
        try:
            content = content[os.write(descriptor, content) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not _set_direct(descriptor, False):
                raise


def _set_direct(descriptor: int, direct: bool) -> bool:
    """Choose whether writes bypass the page cache, and return whether that changed."""
    flag = getattr(os, "O_DIRECT", 0)
    before = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    after = before | flag if direct else before & ~flag
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, after)
    except OSError:
        return False
    return before != after


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
