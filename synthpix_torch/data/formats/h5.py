"""Flow fields from HDF5 files."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import h5py
import numpy as np
from synthpix.data_sources import HDF5DataSource

from synthpix_torch.checks import reason
from synthpix_torch.config.array_file import require_file
from synthpix_torch.config.rules import LARGEST_COUNT
from synthpix_torch.data.formats.format import Format


class HDF5Fields(HDF5DataSource):  # type: ignore[misc]
    """synthpix's source of .h5 files, with the same records."""

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a flow field; overrides synthpix's reading.

        Args:
            file_path: Path to the .h5 file.

        Returns:
            `flow_fields`, the first dataset, and `file`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is corrupt, or its first member is no dataset of numbers.
        """
        [flow_field] = read_datasets(file_path, None).values()
        return {"flow_fields": flow_field, "file": file_path}


H5 = Format("*.h5", lambda paths, config, exact: HDF5Fields(paths))
"""The first data set of each file, shape (H, W, 2)."""


def read_datasets(path: str, names: Collection[str] | None) -> dict[str, np.ndarray]:
    """Read datasets of an HDF5 file.

    Args:
        path: The file.
        names: Names of datasets, None for the first; those that the file lacks are left out.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is corrupt, or a dataset holds no numbers or those of other files.
    """
    require_file(path)
    try:
        with h5py.File(path, "r") as file:
            if names is None:
                names = list(file)[:1]
                if not names:
                    raise ValueError("it holds nothing")
            return {name: _read(file, name) for name in names if name in file}
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
    return np.asarray(dataset[()])
