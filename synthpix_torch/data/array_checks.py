"""Checks of the arrays of a record."""

from __future__ import annotations

import numpy as np
from jaxtyping import Num


def check_flow_field(flow_field: np.ndarray, *, where: str) -> None:
    """Raise unless an array is a flow field that JAX can hold.

    Raises:
        ValueError: It has another shape than (H, W, 2) or (H, W, 3), or values that are not finite
            or do not fit into 32 bits.
    """
    if flow_field.dtype.kind not in "fiu" or flow_field.ndim != 3 or flow_field.shape[2] < 2:
        raise ValueError(
            f"{where} must hold numbers of shape (H, W, 2), "
            f"not {flow_field.dtype} of shape {flow_field.shape}."
        )
    if flow_field.shape[2] > 3:
        raise ValueError(
            f"{where} must have 2 components last, not shape {flow_field.shape}: "
            "transpose it to (H, W, 2)."
        )
    # JAX converts floats to float32 and integers to 32 bits.
    if flow_field.dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = bool(np.isfinite(flow_field.astype(np.float32, copy=False)).all())
    else:
        fits = flow_field.itemsize < 8 or not (np.abs(flow_field.astype(float)) >= 2**31).any()
    if not fits:
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
    if image.shape != shape:
        raise ValueError(
            f"{where} holds an image of shape {image.shape}, not of shape {shape}: all images must "
            "have one shape and one grey level per pixel."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError(f"{where} holds an image with NaN or infinite values: fix the image.")
    if image.max() > brightest:
        raise ValueError(
            f"{where} holds an image with grey levels up to {image.max()}: scale_images and "
            "16-bit images are made for levels up to 255, leave them out."
        )
