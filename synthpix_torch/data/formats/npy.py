"""Flow fields from .npy files, whose header is parsed once and not for each record.

np.load parses the header of each file as Python. Before 3.11.8 CPython counts the depth of what it
parses for all threads together (its issue 106905), so that a thread that reads in the background
makes another fail: `ast.parse`, which triton calls to compile, raises SystemError.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from synthpix.data_sources import NumpyDataSource

from synthpix_torch.data.formats.format import Format


class _Header(NamedTuple):
    """The header of a file: its bytes and what they describe."""

    raw: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]


class NumpyFields(NumpyDataSource):  # type: ignore[misc]
    """synthpix's source of .npy files, with the same records."""

    _header: _Header | None = None

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a flow field; overrides synthpix's reading.

        Args:
            file_path: Path to the .npy file.

        Returns:
            `flow_fields`, what np.load makes of the file, and `file`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a .npy file, or holds less than its header says.
        """
        flow_field = None if self._header is None else _read(file_path, self._header)
        if flow_field is None:
            flow_field = np.load(file_path)
            self._header = self._header or _header(file_path)
        return {"flow_fields": flow_field, "file": file_path}


NPY = Format("flow_*.npy", lambda paths, config, exact: NumpyFields(paths))
"""One array of shape (H, W, 2) a file."""


def _header(path: str) -> _Header | None:
    """Return the header of a file, None if the file holds no array."""
    mapped = np.load(path, mmap_mode="r")
    if not isinstance(mapped, np.memmap):
        return None
    with open(path, "rb") as file:
        raw = file.read(mapped.offset)
    return _Header(raw, mapped.dtype, mapped.shape, "C" if mapped.flags.c_contiguous else "F")


def _read(path: str, header: _Header) -> np.ndarray | None:
    """Read the array of a file; None unless it has that header and all that the header says."""
    size = math.prod(header.shape)
    with open(path, "rb", buffering=0) as file:
        if file.read(len(header.raw)) != header.raw:
            return None
        flat = np.fromfile(file, header.dtype, size)
    return flat.reshape(header.shape, order=header.order) if flat.size == size else None
