"""Colours of flow fields, as in the Middlebury benchmark (Baker et al. 2011)."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Bool, Float, UInt8

_POSITIONS: Final = (0, 15, 21, 25, 36, 49, 55)
_HUES: Final = np.array(
    [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)], np.float64
)
"""Red, yellow, green, cyan, blue, magenta and red again, at these positions on the wheel."""

_LAST: Final = 54
_INVALID: Final = 0.5


def colour_flow_field(
    flow_field: Float[np.ndarray, "2 y x"],
    *,
    largest: float,
    valid: Bool[np.ndarray, "y x"] | None = None,
) -> UInt8[np.ndarray, "y x 3"]:
    """Colour a flow field by direction and length.

    Zero is white, the hue is the direction (red to the right, yellow down, cyan to the left, violet
    up), and the colour is saturated where the length is `largest`. Longer vectors are darker.

    Args:
        flow_field: Channel 0 to the right, channel 1 down.
        largest: The length that is saturated, in the unit of the flow field.
        valid: Where there is a flow field; elsewhere the colour is grey.

    Returns:
        Red, green and blue from 0 to 255.
    """
    right, down = flow_field.astype(np.float64) / (largest or 1.0)
    length = np.hypot(right, down)[..., None]
    position = (np.arctan2(-down, -right) / np.pi + 1) / 2 * _LAST
    hue = np.stack([np.interp(position, _POSITIONS, channel) for channel in _HUES.T], axis=-1)
    colour = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    if valid is not None:
        colour[~valid] = _INVALID
    return np.asarray(np.floor(255 * colour), np.uint8)


def colour_wheel(size: int) -> UInt8[np.ndarray, "n n 4"]:
    """Draw the colours of all directions and lengths as a disc on a transparent square."""
    axis = np.linspace(-1, 1, size)
    flow_field = np.stack(np.meshgrid(axis, axis))
    colour = colour_flow_field(flow_field, largest=1.0)
    inside = np.hypot(*flow_field) <= 1
    return np.dstack([colour, np.where(inside, 255, 0).astype(np.uint8)])
