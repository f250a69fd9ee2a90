"""Write a file atomically."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that is either absent or complete, also after a crash of the machine."""
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        write(unfinished)
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
