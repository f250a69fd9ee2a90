"""Reading the array files that a configuration names."""

from __future__ import annotations

import math
import os

import numpy as np
from jaxtyping import Float, Int


def read_mask(path: str | None, image_shape: tuple[int, int]) -> Int[np.ndarray, "h w"] | None:
    """Read the image mask: 1 where a pixel is kept, 0 where it is hidden.

    Args:
        path: A .npy file, None for no mask.
        image_shape: Height and width that the mask must have.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a .npy file, or not a mask of this shape.
    """
    if path is None:
        return None
    mask = _read_array("mask", path)
    if mask.shape != image_shape or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"The mask {path!r} must hold only 0 and 1 in the image_shape {image_shape}; its "
            f"shape is {mask.shape}."
        )
    return mask


def read_histogram(
    path: str | None, image_shape: tuple[int, int]
) -> Float[np.ndarray, "256"] | None:
    """Read the number of pixels of each grey level.

    Args:
        path: A .npy file, None for no histogram.
        image_shape: Height and width of the images, whose pixels the counts must sum to.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a .npy file, or not a histogram of such images.
    """
    if path is None:
        return None
    histogram = _read_array("histogram", path)
    pixels = math.prod(image_shape)
    counts = histogram.shape == (256,) and (histogram >= 0).all()
    if not counts or not np.isclose(histogram.sum(), pixels):
        raise ValueError(
            f"The histogram {path!r} must hold 256 counts that sum to the {pixels} pixels of an "
            f"image; its shape is {histogram.shape} and its sum {histogram.sum()}."
        )
    return histogram


def _read_array(key: str, path: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The {key} file {path!r} does not exist.")
    try:
        array = np.load(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"The {key} file {path!r} is not a .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"The {key} file {path!r} must hold one array.")
    return array
