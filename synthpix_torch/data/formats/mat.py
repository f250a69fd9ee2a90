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
from synthpix_torch.data.formats.h5 import read_datasets
from synthpix_torch.data.formats.mat5 import read_variables

_FLOW, _IMAGES = "V", ("I0", "I1")
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
        self._resizes = exact and config.include_images

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a record; overrides synthpix's reading.

        Args:
            file_path: Path to the .mat file, of MATLAB 5 to 7.3.

        Returns:
            `flow_fields` as float32, `file`, and with images `images1` and `images2`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is corrupt or lacks a variable.
        """
        require_file(file_path)
        names = (_FLOW, *(_IMAGES if self.include_images else ()))
        read = read_datasets if h5py.is_hdf5(file_path) else read_variables
        arrays = read(file_path, names)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"{file_path} holds no variable {', '.join(missing)}: add it.")
        flow_field = arrays[_FLOW]
        if flow_field.ndim == 3 and flow_field.shape[0] == 2 != flow_field.shape[2]:
            flow_field = np.moveaxis(flow_field, 0, 2)
        images = [arrays[name] for name in names[1:]]
        if self._resizes:
            try:
                flow_field = _resize_field(flow_field, self.output_shape)
                images = [_resize(image, self.output_shape, _BICUBIC) for image in images]
            except (ValueError, TypeError, IndexError) as error:
                raise ValueError(f"{file_path} cannot be resized: {error}") from error
        with np.errstate(over="ignore"):
            flow_field = flow_field.astype(np.float32)
        record = {f"images{number}": image for number, image in enumerate(images, start=1)}
        return {"flow_fields": flow_field, "file": file_path, **record}


MAT: Final = Format(
    "*.mat", lambda paths, config, exact: MATFields(paths, config, exact=exact), holds_images=True
)
"""The arrays V, and I0 and I1 if there are images, of MATLAB 5 to 7.3."""


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
