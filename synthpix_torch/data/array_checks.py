"""Checks of the arrays of a record."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Num

_LARGEST: Final = 1e12
"""The largest magnitude of a value, and of a displacement in pixels: float32 can scale it."""


def check_flow_field(flow_field: np.ndarray, *, scale: float, where: str) -> None:
    """Raise unless an array is a flow field that JAX can hold.

    Args:
        flow_field: The array.
        scale: Pixels per unit of its values.
        where: Name of its record.

    Raises:
        ValueError: It has another shape than (H, W, 2) or (H, W, 3), or values that are not finite
            or do not fit into 32 bits.
    """
    if (
        flow_field.dtype.kind not in "fiu"
        or flow_field.itemsize > 8
        or flow_field.ndim != 3
        or flow_field.shape[2] < 2
        or flow_field.size == 0
    ):
        raise ValueError(
            f"{where} must hold numbers of shape (H, W, 2), "
            f"not {flow_field.dtype} of shape {flow_field.shape}."
        )
    if flow_field.shape[2] > 3:
        raise ValueError(
            f"{where} must have 2 components last, not shape {flow_field.shape}: "
            "transpose it to (H, W, 2)."
        )
    if not _fits(flow_field, scale=max(1.0, scale)):
        raise ValueError(
            f"{where} holds NaN, infinite or too large values: fix or leave out the record."
        )


def check_image(
    image: Num[np.ndarray, "..."], shape: tuple[int, int], *, brightest: float, where: str
) -> None:
    """Raise unless an array is a recorded image.

    Args:
        image: The image.
        shape: Height and width that it must have.
        brightest: Its largest allowed grey level.
        where: Name of its record.

    Raises:
        ValueError: It has another shape, or grey levels that are not finite or too large.
    """
    if image.dtype.kind not in "fiub" or image.itemsize > 8 or image.size == 0:
        raise ValueError(
            f"{where} holds an image of {image.dtype} and shape {image.shape}: images must hold "
            "numbers."
        )
    if image.shape != shape:
        raise ValueError(
            f"{where} holds an image of shape {image.shape}, not of shape {shape}: all images must "
            "have one shape and one grey level per pixel."
        )
    if not _fits(image):
        raise ValueError(
            f"{where} holds an image with NaN, infinite or too large values: fix the image."
        )
    if image.max() > brightest:
        raise ValueError(
            f"{where} holds an image with grey levels up to {image.max()}: scale_images and "
            "16-bit images are made for levels up to 255, leave them out."
        )


def _fits(array: Num[np.ndarray, "..."], *, scale: float = 1.0) -> bool:
    """Tell whether all values fit into JAX's 32 bits; NaN does not."""
    lowest, highest = float(array.min()), float(array.max())
    if array.dtype.kind != "f":
        return lowest >= -(2**31) and highest < 2**31
    return -_LARGEST / scale <= lowest and highest <= _LARGEST / scale
