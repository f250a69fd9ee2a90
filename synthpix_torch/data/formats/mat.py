"""Flow fields and recorded image pairs from MATLAB files."""

from __future__ import annotations

from typing import Any, Final

import h5py
import numpy as np
from PIL import Image
from synthpix.data_sources import MATDataSource

from synthpix_torch.config.array_file import require_file
from synthpix_torch.config.config import Config
from synthpix_torch.data.formats.format import Format
from synthpix_torch.data.formats.h5 import list_datasets, read_datasets
from synthpix_torch.data.formats.mat5 import list_variables, read_variables
from synthpix_torch.data.formats.variables import image_names, make_record

_BICUBIC, _BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


class MATFields(MATDataSource):  # type: ignore[misc]
    """synthpix's source of .mat files, read without scipy, which corrupt files can crash."""

    def __init__(self, paths: list[str], config: Config, *, exact: bool) -> None:
        """Find the files; none is opened.

        Args:
            paths: Files and folders.
            config: The configuration.
            exact: Resize recorded images and their flow fields as synthpix does. Else they keep
                their shape and values (docs/differences.md).

        Raises:
            ValueError: There is no file.
        """
        shape = config.image_shape if config.include_images else (0, 0)
        super().__init__(paths, include_images=config.include_images, output_shape=shape)
        self._flow = config.flow_variables or ("V",)
        self._images = image_names(config)
        self._resizes = exact and config.include_images

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a record; overrides synthpix's reading.

        Args:
            file_path: Path to the .mat file, of MATLAB 5 to 7.3.

        Returns:
            `flow_fields` as float32, `file`, and with images `images1` and `images2`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is corrupt, a variable is missing, or they are no flow field.
        """
        require_file(file_path)
        packed = h5py.is_hdf5(file_path)
        read = read_datasets if packed else read_variables
        record = make_record(
            file_path,
            read(file_path, [*self._flow, *self._images]),
            flow=self._flow,
            images=self._images,
            present=list_datasets if packed else list_variables,
        )
        if self._resizes:
            try:
                record["flow_fields"] = _resize_field(record["flow_fields"], self.output_shape)
                for name in ("images1", "images2"):
                    record[name] = _resize(record[name], self.output_shape, _BICUBIC)
            except (ValueError, TypeError, IndexError) as error:
                raise ValueError(f"{file_path} cannot be resized: {error}") from error
        with np.errstate(over="ignore"):
            record["flow_fields"] = record["flow_fields"].astype(np.float32)
        return record


MAT: Final = Format(
    "*.mat",
    lambda paths, config, exact: MATFields(paths, config, exact=exact),
    holds_images=True,
    has_variables=True,
    resizes=True,
)
"""The variables V, and I0 and I1 if there are images, or configured ones, of MATLAB 5 to 7.3."""


def _resize_field(flow_field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a flow field and its values, as synthpix does."""
    if flow_field.shape[:2] == shape:
        return flow_field
    ratios = shape[1] / flow_field.shape[1], shape[0] / flow_field.shape[0]
    components = [
        _resize(flow_field[..., i], shape, _BILINEAR) * ratio for i, ratio in enumerate(ratios)
    ]
    return np.stack(components, axis=-1)


def _resize(image: np.ndarray, shape: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    if image.shape[:2] == shape:
        return image
    return np.asarray(Image.fromarray(image).resize(shape[::-1], resample))
