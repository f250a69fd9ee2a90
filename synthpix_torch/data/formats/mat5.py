"""Reading arrays of numbers from MATLAB 5 files (save -v6 and -v7).

scipy.io.loadmat parses all that a file holds, and looks up the type tags of data without checking
them: one wrong byte can end the process. Here only the wanted variables are parsed, and each tag
and length is checked before it is used. "MAT-File Format", The MathWorks, chapter 1, describes the
file.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import numpy as np

from synthpix_torch.checks import readable

_MATRIX, _COMPRESSED, _FLAGS, _DIMENSIONS = 14, 15, 6, 5
_TYPES: Final = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_NUMERIC: Final = range(6, 16)
"""Classes of arrays: double, single, and integers of 8 to 64 bits."""

_COMPLEX: Final = 0x0800
_MOST_DIMENSIONS: Final = 32
_HEADER: Final = 128
_START: Final = 2**16
"""Bytes that hold the header of any array, whose name has at most 63 characters."""


class _Element(NamedTuple):
    """A tagged element: its type, where its data begins, its bytes and where the next begins."""

    kind: int
    start: int
    size: int
    end: int


class _Part(NamedTuple):
    """A variable: its name, its bytes, whether these are compressed, and its byte order."""

    name: str
    data: memoryview
    packed: bool
    order: str


def read_variables(path: str, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read the variables of some names, as scipy.io.loadmat with squeeze_me=True does.

    Args:
        path: The file.
        names: Names of variables; those that the file lacks are left out.

    Returns:
        Arrays in the type that their data is stored in.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is corrupt, of another version, or a variable is no array of real numbers.
    """
    try:
        return {part.name: _read_matrix(part) for part in _parts(path) if part.name in names}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}.") from error


def list_variables(path: str) -> list[str]:
    """Return the names of all variables of a file, for error messages.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is corrupt or of another version.
    """
    try:
        return [readable(part.name) for part in _parts(path)]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}.") from error


def _parts(path: str) -> Iterator[_Part]:
    """Find the variables of a file."""
    with open(path, "rb") as file:
        raw = file.read()
    mark = raw[126:_HEADER]
    if len(raw) < _HEADER or mark not in (b"IM", b"MI"):
        raise ValueError("it has not the header of MATLAB 5 (save -v6 or -v7)")
    order = "<" if mark == b"IM" else ">"
    at = _HEADER
    while at < len(raw):
        element = _tag(raw, at, order)
        if element.kind not in (_MATRIX, _COMPRESSED):
            raise ValueError(f"it has an element of type {element.kind} where a variable begins")
        packed = element.kind == _COMPRESSED
        # Compressed elements are not padded.
        at = element.start + element.size if packed else element.end
        data = memoryview(raw)[element.start : element.start + element.size]
        start = memoryview(_decompress(data, _START))[8:] if packed else data
        yield _Part(_name(start, order), data, packed, order)


def _tag(raw: bytes | memoryview, at: int, order: str) -> _Element:
    """Read the tag at a place, which has 8 bytes, or 4 with up to 4 bytes of data behind it."""
    if at + 8 > len(raw):
        raise ValueError("it ends within an element")
    first, size = struct.unpack_from(f"{order}II", raw, at)
    if first >> 16:
        element = _Element(first & 0xFFFF, at + 4, first >> 16, at + 8)
        if element.size > 4:
            raise ValueError(f"it has a small element of {element.size} bytes")
        return element
    element = _Element(first, at + 8, size, at + 8 + size + -size % 8)
    if element.start + size > len(raw):
        raise ValueError("it ends within an element")
    return element


def _unpack(packed: memoryview, order: str) -> memoryview:
    """Decompress a matrix, and not more than its dimensions allow for."""
    start = _decompress(packed, _START)
    if len(start) < 8:
        raise ValueError("it ends within compressed data")
    kind, size = struct.unpack_from(f"{order}II", start)
    shape, data = _describe(memoryview(start)[8:], order)
    # The tag, the values and the padding.
    if kind != _MATRIX or size > data + 8 + 8 * math.prod(shape) + 8:
        raise ValueError(f"it has a variable of shape {shape} in {size} bytes of type {kind}")
    whole = _decompress(packed, 8 + size, to_end=True)
    if len(whole) < 8 + size:
        raise ValueError("it ends within compressed data")
    return memoryview(whole)[8:]


def _decompress(packed: memoryview, most: int, *, to_end: bool = False) -> bytes:
    """Decompress at most `most` bytes, `to_end` with the checksum behind them."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, most)
        if to_end and not stream.eof:
            stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(f"it holds compressed data that is corrupt ({error})") from error
    if to_end and not stream.eof:
        raise ValueError("it holds compressed data that does not end")
    return found


def _describe(matrix: memoryview, order: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of an array of real numbers, and where its data begins."""
    flags = _tag(matrix, 0, order)
    if flags.kind != _FLAGS or flags.size != 8:
        raise ValueError("it has an array without flags")
    [word] = struct.unpack_from(f"{order}I", matrix, flags.start)
    if word & 0xFF not in _NUMERIC or word & _COMPLEX:
        raise ValueError(f"its variable {_name(matrix, order)} is no array of real numbers")
    dimensions = _tag(matrix, flags.end, order)
    count = dimensions.size // 4
    # Some programs write unsigned dimensions.
    if dimensions.kind not in (_DIMENSIONS, _FLAGS) or not 2 <= count <= _MOST_DIMENSIONS:
        raise ValueError("it has an array without dimensions")
    shape = struct.unpack_from(f"{order}{count}i", matrix, dimensions.start)
    if min(shape) < 0:
        raise ValueError(f"it has an array of shape {shape}")
    return shape, _tag(matrix, dimensions.end, order).end


def _name(matrix: memoryview, order: str) -> str:
    flags = _tag(matrix, 0, order)
    name = _tag(matrix, _tag(matrix, flags.end, order).end, order)
    return bytes(matrix[name.start : name.start + name.size]).decode("latin1")


def _read_matrix(part: _Part) -> np.ndarray:
    name, order = part.name, part.order
    matrix = _unpack(part.data, order) if part.packed else part.data
    shape, at = _describe(matrix, order)
    data = _tag(matrix, at, order)
    if data.kind not in _TYPES:
        raise ValueError(f"its variable {name} has data of the unknown type {data.kind}")
    dtype = np.dtype(order + _TYPES[data.kind])
    if data.size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its variable {name} of shape {shape} has {data.size} bytes of {dtype}")
    flat = np.frombuffer(matrix, dtype, math.prod(shape), data.start)
    return np.squeeze(flat.reshape(shape, order="F").astype(dtype.newbyteorder("=")))
