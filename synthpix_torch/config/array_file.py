"""Reading .npy files, which are checked before memory is allocated for them."""

from __future__ import annotations

import math
import os
import stat
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import numpy as np

from synthpix_torch.checks import reason, shown

_NUMBERS: Final = "fiub"
_MAGIC: Final = b"\x93NUMPY"


class Header(NamedTuple):
    """The header of a file: its bytes and what they describe."""

    raw: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]


def require_file(path: str) -> None:
    """Raise unless a path is that of a regular file, which can be opened without waiting.

    Raises:
        OSError: There is no such file.
        ValueError: It is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is not a regular file: leave it out.")


def read_array(path: str, known: Header | None = None) -> tuple[np.ndarray, Header]:
    """Read the array of a .npy file as np.load does, but only numbers.

    Args:
        path: The file.
        known: The header of another file, which is not parsed again if this file has the same.

    Returns:
        The array and the header.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a .npy file of numbers, or holds less than its header says.
    """
    require_file(path)
    try:
        return _read(path, known)
    except OSError as error:
        # The system names the file only if it cannot be opened.
        error.filename = path
        raise


def _read(path: str, known: Header | None) -> tuple[np.ndarray, Header]:
    with open(path, "rb", buffering=0) as file:
        if known is None or file.read(len(known.raw)) != known.raw:
            file.seek(0)
            known = _parse(file, path)
        size, count = os.fstat(file.fileno()).st_size, math.prod(known.shape)
        needed = len(known.raw) + count * known.dtype.itemsize
        if size < needed:
            raise ValueError(
                f"{path} is not complete: it has {size} bytes, an array of {known.dtype} and shape "
                f"{shown(known.shape)} needs {shown(needed)}. Copy or write it again."
            )
        flat = np.fromfile(file, known.dtype, count)
    return flat.reshape(known.shape, order=known.order), known


def _parse(file: BinaryIO, path: str) -> Header:
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ValueError(f"{path} is not a .npy file: it begins with {magic!r}. Use numpy.save.")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_column, dtype = read(file)
    except SystemError:
        # Another thread was parsing: not the file's fault.
        raise
    # The header is parsed as Python, whose parser has errors of many kinds.
    except Exception as error:
        raise ValueError(
            f"{path} is not a .npy file: its header is corrupt ({reason(error)})."
        ) from error
    if dtype.kind not in _NUMBERS or dtype.itemsize > 8 or min(shape, default=0) < 0:
        raise ValueError(
            f"{path} must hold an array of numbers of up to 64 bits, not of {dtype} and shape "
            f"{shown(shape)}."
        )
    end = file.tell()
    file.seek(0)
    return Header(file.read(end), dtype, shape, "F" if by_column else "C")
