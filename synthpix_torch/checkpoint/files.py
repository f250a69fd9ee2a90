"""Read files that anyone may have written: regular files only, of limited length and depth."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

LENGTH: Final = 1 << 26
"""Bytes that a file of JSON or checksums may have."""
DEPTH: Final = 32
"""Levels that JSON may be nested."""

_CORRUPT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class CorruptError(ValueError):
    """A file is missing, not a regular file, too long, or malformed."""


def exists(path: Path) -> bool:
    """Return whether there is a file, folder or link of this name.

    Raises:
        OSError: This process cannot see it now, which does not mean that there is none.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in _CORRUPT:
            return False
        raise
    return True


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        CorruptError: It is missing, or a link, folder, pipe or device.
        OSError: This process cannot read it now, which does not mean that it is corrupt.
    """
    with _corrupt(path):
        # Before it is opened, because opening a device may change it and opening a pipe waits.
        if stat.S_ISREG(os.lstat(path).st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.fdopen(os.open(path, flags), "rb")
    raise CorruptError(f"{path} is not a regular file")


@contextmanager
def _corrupt(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CORRUPT:
            raise
        raise CorruptError(f"{path} cannot be opened: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most `LENGTH` bytes.

    Raises:
        CorruptError: There is no such file, or it is longer.
        OSError: This process cannot read it now.
    """
    with open_regular(path) as file:
        content = file.read(LENGTH + 1)
    if len(content) > LENGTH:
        raise CorruptError(f"{path} is longer than {LENGTH >> 20} MiB")
    return content


def read_json(path: Path) -> Any:
    """Read JSON of at most `LENGTH` bytes that is nested at most `DEPTH` levels.

    Raises:
        CorruptError: There is no such file, or it holds something else.
        OSError: This process cannot read it now.
    """
    content = read_bytes(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON: {error}") from error
    level = [value]
    for _ in range(DEPTH):
        level = [item for parent in level for item in _items(parent)]
    if level:
        raise CorruptError(f"{path} is nested more than {DEPTH} levels deep")
    return value


def _items(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def write_json(path: Path, content: Any) -> None:
    """Write JSON that `read_json` reads.

    Raises:
        ValueError: It is longer than `LENGTH` bytes.
    """
    text = json.dumps(content)
    if len(text) > LENGTH:
        raise ValueError(f"{path.name} would be longer than {LENGTH >> 20} MiB")
    path.write_text(text, encoding="utf-8")


def list_files(folder: Path) -> list[str]:
    """Return the sorted names of all files below a folder; links and devices count as files.

    Raises:
        CorruptError: A name is too long, or the folder is moved meanwhile.
        OSError: This process cannot read the folder now.
    """
    found, rest = [], [""]
    while rest:
        parent = rest.pop()
        with _corrupt(folder / parent), os.scandir(folder / parent) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    rest.append(f"{parent}{entry.name}/")
                else:
                    found.append(f"{parent}{entry.name}")
    return sorted(found)


def printable(text: str) -> str:
    """Return the beginning of a text with what a terminal would act on escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:500])
