"""Flow fields and recorded image pairs from HDF5 files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from synthpix.data_sources import HDF5DataSource

from synthpix_torch.checks import reason
from synthpix_torch.config.array_file import require_file
from synthpix_torch.config.config import Config
from synthpix_torch.config.rules import LARGEST_COUNT
from synthpix_torch.data.formats.format import Format
from synthpix_torch.data.formats.variables import image_names, make_record


class HDF5Fields(HDF5DataSource):  # type: ignore[misc]
    """synthpix's source of .h5 files, with variables by name."""

    def __init__(self, paths: list[str], config: Config) -> None:
        """Find the files; none is opened.

        Args:
            paths: Files and folders.
            config: The configuration, which may name the variables.

        Raises:
            ValueError: There is no file.
        """
        super().__init__(paths)
        self._flow = config.flow_variables
        self._images = image_names(config)

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a record; overrides synthpix's reading.

        Args:
            file_path: Path to the .h5 file.

        Returns:
            `flow_fields`, `file`, and with images `images1` and `images2`.

        Raises:
            OSError: The file cannot be opened.
            ValueError: It is corrupt, a variable is missing, or they are no flow field.
        """
        flow = self._flow or _usual(file_path, self._images)
        arrays = read_datasets(file_path, [*flow, *self._images])
        return make_record(file_path, arrays, flow=flow, images=self._images, present=list_datasets)


H5 = Format(
    "*.h5",
    lambda paths, config, exact: HDF5Fields(paths, config),
    holds_images=True,
    has_variables=True,
)
"""The first dataset of shape (H, W, 2), or u and v of shape (H, W), or configured variables."""


def read_datasets(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read datasets of an HDF5 file, with the order of dimensions of MATLAB if that wrote them.

    Args:
        path: The file.
        names: Names of datasets; those that the file lacks are left out.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is corrupt, or a dataset holds no numbers or those of other files.
    """
    with _opened(path) as file:
        return {name: _read(file, name) for name in names if name in file}


def list_datasets(path: str) -> list[str]:
    """Return the names of all members of an HDF5 file.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is corrupt.
    """
    with _opened(path) as file:
        return list(file)


def _usual(path: str, images: Sequence[str]) -> Sequence[str]:
    """Return the first dataset that is no image; u and v if that has not three dimensions."""
    with _opened(path) as file:
        names = [name for name in file if name not in images]
        if not names:
            raise ValueError("it holds no variable")
        first = file[names[0]]
        is_field = isinstance(first, h5py.Dataset) and first.ndim == 3
    return ("u", "v") if not is_field and {"u", "v"} <= set(names) else names[:1]


@contextmanager
def _opened(path: str) -> Iterator[h5py.File]:
    """Open a file; name it in the errors of reading it."""
    require_file(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Exception as error:
        # The system's errors have a number, those of the format have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read as an HDF5 file: {reason(error)}.") from error


def _read(file: h5py.File, name: str) -> np.ndarray:
    dataset = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be a dataset of numbers")
    # Data in other files, which could be any that this process can read.
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} refers to other files: write the numbers into this one")
    if math.prod(dataset.shape or (0,)) > LARGEST_COUNT:
        raise ValueError(f"{name} has the shape {dataset.shape}, which is too large")
    array = np.asarray(dataset[()])
    # MATLAB stores columns first: what is (H, W, 2) there is (2, W, H) in the file.
    return array.T if "MATLAB_class" in dataset.attrs else array
