"""Checksums of a folder: written into it when it is complete, checked when it is read."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import NoReturn

CHECKSUMS = "checksums.sha256"
"""In the format of sha256sum, so that `sha256sum --check checksums.sha256` reads it too."""

_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)
"""What reading a folder fails with if the folder is at fault, and not the right to read it."""


def seal(folder: Path) -> None:
    """Write the checksums of all files of a folder, then bring everything to the disk.

    Nothing may be added or changed afterwards.
    """
    text = "".join(f"{_digest(folder / name)}  {name}\n" for name in _names(folder))
    # sha256sum takes this line for a comment.
    text += f"# {hashlib.sha256(text.encode()).hexdigest()}\n"
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, None if it is as it was when it was sealed.

    Reads every byte. Files that were added count as damage too.

    Raises:
        OSError: Something keeps this process from reading, which says nothing of the folder.
    """
    try:
        expected = _read_checksums(folder)
        found = set(_names(folder)) - {CHECKSUMS}
        if missing := sorted(expected.keys() - found):
            return f"{', '.join(missing)} is missing"
        if added := sorted(found - expected.keys()):
            return f"{', '.join(added)} does not belong there"
        for name, digest in expected.items():
            if _digest(folder / name) != digest:
                return f"{name} was changed"
    except ValueError as error:
        return str(error)
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        return str(error)
    return None


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.is_file():
        raise ValueError(f"{CHECKSUMS} is missing")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        text = ""
    *lines, last = text.splitlines(keepends=True) or [""]
    if last != f"# {hashlib.sha256(''.join(lines).encode()).hexdigest()}\n":
        raise ValueError(f"{CHECKSUMS} was changed")
    pairs = (line.rstrip("\n").split("  ", 1) for line in lines)
    return {name: digest for digest, name in pairs}


def _names(folder: Path) -> list[str]:
    """Names of all files below a folder, in a fixed order."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        # A link would take its content from elsewhere, so it counts as a file.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def _raise(error: OSError) -> NoReturn:
    raise error


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "not a file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
