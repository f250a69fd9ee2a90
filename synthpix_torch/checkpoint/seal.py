"""Seal a folder with the checksums of all its files, and check them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from synthpix_torch.checkpoint.files import (
    CorruptError,
    exists,
    list_files,
    open_regular,
    read_bytes,
)
from synthpix_torch.files import sync

CHECKSUMS = "checksums.sha256"


def seal(folder: Path) -> None:
    """Write the checksums of all files in a folder, then flush all of it to disk."""
    text = "".join(f"{_digest(folder / name)}  {name}\n" for name in list_files(folder))
    # sha256sum reads this line as a comment.
    text += f"# {hashlib.sha256(text.encode()).hexdigest()}\n"
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def check_seal(folder: Path) -> None:
    """Raise unless a folder holds exactly what was sealed. Reads every byte.

    Raises:
        CorruptError: Names what is missing, was added or was changed.
        OSError: This process cannot read it now, which does not mean that it is corrupt.
    """
    expected = _read_checksums(folder)
    found = set(list_files(folder)) - {CHECKSUMS}
    if missing := sorted(expected.keys() - found):
        raise CorruptError(f"{', '.join(missing)} is missing")
    if added := sorted(found - expected.keys()):
        raise CorruptError(f"{', '.join(added)} does not belong there")
    for name, digest in expected.items():
        if _digest(folder / name) != digest:
            raise CorruptError(f"{name} was changed")


def is_sealed(folder: Path) -> bool:
    """Return whether a folder has checksums, right or wrong.

    Raises:
        OSError: This process cannot read the folder now.
    """
    return exists(folder / CHECKSUMS)


def _read_checksums(folder: Path) -> dict[str, str]:
    if not is_sealed(folder):
        raise CorruptError(f"{CHECKSUMS} is missing")
    text = read_bytes(folder / CHECKSUMS).decode(errors="replace")
    *lines, last = text.splitlines(keepends=True) or [""]
    if last != f"# {hashlib.sha256(''.join(lines).encode()).hexdigest()}\n":
        raise CorruptError(f"{CHECKSUMS} was changed")
    pairs = (line.rstrip("\n").partition("  ") for line in lines)
    return {name: digest for digest, _, name in pairs}


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
