"""Flow fields from .flo files of Middlebury, and recorded image pairs beside them.

A file holds displacements in pixels per frame, one per pixel: the magic number 202021.25, width and
height as 32-bit integers, then (u, v) row by row, all little-endian (Baker et al., A Database and
Evaluation Methodology for Optical Flow, Int. J. Comput. Vis. 92, 2011). Image pairs have the names
of the data sets for PIV of Cai, Zhou, Xu and Gao (Exp. Fluids 60, 73, 2019), called problem class 1
there: a_flow.flo, a_img1.tif, a_img2.tif.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Num
from PIL import Image
from synthpix.data_sources import FileDataSource

from synthpix_torch.checks import reason
from synthpix_torch.config.array_file import require_file
from synthpix_torch.config.config import Config
from synthpix_torch.data.formats.format import Format

_MAGIC: Final = struct.pack("<f", 202021.25)

_HEADER: Final = 12
"""Bytes before the first vector."""

_UNKNOWN: Final = 1e9
"""Components of this size mark a vector that is not known."""

_FLOW: Final = "_flow.flo"
_IMAGE_TYPES: Final = (".tif", ".tiff", ".png")

_GREY: Final = ("L", "I;16", "I;16B", "I", "F")
"""Pillow's modes of images with one grey level per pixel."""


class FloFields(FileDataSource):  # type: ignore[misc]
    """Random access to .flo files, with the image pairs beside them if they are configured."""

    _file_pattern = "**/*.flo"

    def __init__(self, paths: list[str], config: Config) -> None:
        """Find the files and their images; none is opened.

        Args:
            paths: Files and folders.
            config: The configuration, which tells whether there are images.

        Raises:
            ValueError: There is no file.
            FileNotFoundError: An image is missing.
        """
        super().__init__(paths)
        self._images = config.include_images
        if self._images:
            for path in self.file_list:
                _find_images(path)

    @property
    def include_images(self) -> bool:
        """True if records have images."""
        return self._images

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a record.

        Args:
            file_path: Path to the .flo file.

        Returns:
            `flow_fields`, `file`, and with images `images1` and `images2`.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is corrupt, has unknown vectors, or is no image of grey levels.
        """
        record = {"flow_fields": _read_flow(file_path), "file": file_path}
        if self._images:
            images = _find_images(file_path)
            record |= {f"images{i}": _read_image(path) for i, path in enumerate(images, start=1)}
        return record


FLO = Format("*.flo", lambda paths, config, exact: FloFields(paths, config), holds_images=True)
"""Displacements (u, v) in pixels per frame at each pixel."""


def write_flow(path: Path, field: Float[np.ndarray, "h w 2"]) -> None:
    """Write a flow field as a .flo file."""
    height, width, _ = field.shape
    header = _MAGIC + struct.pack("<ii", width, height)
    path.write_bytes(header + np.ascontiguousarray(field, "<f4").tobytes())


def _read_flow(path: str) -> Float[np.ndarray, "h w 2"]:
    require_file(path)
    with open(path, "rb", buffering=0) as file:
        header = file.read(_HEADER)
        if header[:4] == _MAGIC[::-1]:
            raise ValueError(f"{path} is a big-endian .flo file: write it little-endian.")
        if len(header) < _HEADER or header[:4] != _MAGIC:
            raise ValueError(
                f"{path} is not a .flo file: it must begin with the number 202021.25, width and "
                "height."
            )
        width, height = struct.unpack("<ii", header[4:])
        size, needed = os.fstat(file.fileno()).st_size, _HEADER + 8 * width * height
        # Before memory is allocated for what a corrupt header says.
        if width <= 0 or height <= 0 or size != needed:
            raise ValueError(
                f"{path} is corrupt: {width} x {height} vectors need {needed} bytes, it has {size}."
            )
        vectors = np.fromfile(file, "<f4")
    if vectors.size != 2 * width * height:
        raise ValueError(f"{path} is corrupt: it became shorter while it was read.")
    field: Float[np.ndarray, "h w 2"] = vectors.reshape(height, width, 2)
    unknown = np.count_nonzero((np.abs(field) >= _UNKNOWN).any(axis=2))
    if unknown:
        raise ValueError(
            f"{path} has {unknown} unknown vectors (components of 1e9 and more): fill them, or "
            "leave out the file."
        )
    return field


def _find_images(path: str) -> list[str]:
    """Return the paths of both images of a flow field."""
    stem = path.removesuffix(_FLOW)
    if stem == path:
        raise FileNotFoundError(
            f"{path} has no images: the flow field of an image pair must be named *{_FLOW}, the "
            "images *_img1.tif and *_img2.tif."
        )
    images = []
    for number in (1, 2):
        choices = [f"{stem}_img{number}{kind}" for kind in _IMAGE_TYPES]
        image = next(filter(os.path.isfile, choices), None)
        if image is None:
            raise FileNotFoundError(
                f"{path} has no image {number}: put {os.path.basename(choices[0])} (or .tiff, "
                ".png) beside it, or set include_images: false."
            )
        images.append(image)
    return images


def _read_image(path: str) -> Num[np.ndarray, "y x"]:
    require_file(path)
    try:
        with Image.open(path) as image:
            mode, pages = image.mode, getattr(image, "n_frames", 1)
            if mode not in _GREY or pages != 1:
                raise ValueError(
                    f"it has {pages} pages of mode {mode}, but must have one of grey levels"
                )
            levels = np.asarray(image)
    except Exception as error:
        # What Pillow raises for corrupt files is of many kinds.
        raise ValueError(f"{path} cannot be read as an image: {reason(error)}.") from error
    return levels.astype(levels.dtype.newbyteorder("="), copy=False)
