"""Background light that does not come from particles."""

import numpy as np
from jaxtyping import Float


def gradient(
    shape: tuple[int, int], rise: tuple[float, float]
) -> Float[np.ndarray, "height width"]:
    """Make a background that changes linearly over the image, 0 at its darkest corner.

    Args:
        shape: Height and width in pixels.
        rise: Grey levels from the first to the last row, and from the first to the last column;
            negative where the first is brighter.

    Returns:
        Grey levels.
    """
    y, x = (
        value * np.linspace(0.0, 1.0, size) + max(0.0, -value)
        for size, value in zip(shape, rise, strict=True)
    )
    return (y[:, None] + x[None, :]).astype(np.float32)
