"""Reading the array files that a configuration names."""

from __future__ import annotations

import math
import os

import numpy as np
from jaxtyping import Bool, Float, Int

from synthpix_torch.checks import shown
from synthpix_torch.config.array_file import read_array


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
    counts = histogram.shape == (256,) and ((histogram >= 0) & (histogram <= 2 * pixels)).all()
    if not counts or not np.isclose(histogram.sum(dtype=float), pixels):
        raise ValueError(
            f"The histogram {path!r} must hold 256 counts that sum to the {pixels} pixels of an "
            f"image; its shape is {histogram.shape} and its dtype {histogram.dtype}."
        )
    return histogram


def read_background(
    path: str | None, image_shape: tuple[int, int]
) -> Float[np.ndarray, "h w"] | None:
    """Read the background light in grey levels.

    Args:
        path: A .npy file, None for no background.
        image_shape: Height and width that it must have.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a .npy file, or not an image of this shape with levels of at least 0.
    """
    return _read_levels(
        "background", path, image_shape, highest=1e12, words="grey levels of at least 0"
    )


def read_seeding(path: str | None, image_shape: tuple[int, int]) -> Float[np.ndarray, "h w"] | None:
    """Read the share of the seeding density in each pixel.

    Args:
        path: A .npy file, None for homogeneous seeding.
        image_shape: Height and width that it must have.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a .npy file, or not an image of this shape with values from 0 to 1.
    """
    return _read_levels("seeding_image", path, image_shape, highest=1.0, words="values from 0 to 1")


def read_body(path: str | None, image_shape: tuple[int, int]) -> Bool[np.ndarray, "h w"] | None:
    """Read the body in the flow: 1 in the body, 0 in the fluid.

    Args:
        path: A .npy file, None for no body.
        image_shape: Height and width that it must have.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a .npy file, not a mask of this shape, or leaves no fluid.
    """
    if path is None:
        return None
    body = _read_array("body_mask", path)
    if body.shape != image_shape or not np.isin(body, (0, 1)).all() or body.all():
        raise ValueError(
            f"The body_mask {path!r} must hold 1 in the body and 0 in the fluid, in the "
            f"image_shape {image_shape}; its shape is {body.shape}."
        )
    return body.astype(bool)


def _read_levels(
    key: str, path: str | None, image_shape: tuple[int, int], *, highest: float, words: str
) -> Float[np.ndarray, "h w"] | None:
    if path is None:
        return None
    image = _read_array(key, path)
    if (
        image.shape != image_shape
        or not (np.isfinite(image) & (image >= 0) & (image <= highest)).all()
    ):
        raise ValueError(
            f"The {key} {path!r} must hold {words} in the image_shape {image_shape}; its shape is "
            f"{image.shape} and its dtype {image.dtype}."
        )
    return image.astype(np.float32)


def _read_array(key: str, path: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The {key} file {shown(path)} does not exist.")
    try:
        array, _ = read_array(path)
    except ValueError as error:
        raise ValueError(f"The {key} cannot be used: {error}") from error
    # JAX has no numbers in another byte order.
    return array.astype(array.dtype.newbyteorder("="), copy=False)
