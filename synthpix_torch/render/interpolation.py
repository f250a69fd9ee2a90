"""Bilinear interpolation in flow fields, whose last samples continue beyond their edges."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32


def on_grid(
    fields: Float[Array, "fields height width components"],
    *,
    y: Float[np.ndarray, " rows"],
    x: Float[np.ndarray, " columns"],
) -> Float[Array, "fields rows columns components"]:
    """Interpolate on the grid of the coordinates y and x, in grid steps."""
    rows, below, down = _neighbours(y, fields.shape[1])
    columns, beside, right = _neighbours(x, fields.shape[2])
    down, right = down[:, None, None], right[:, None]
    fields = fields[:, rows] * (1 - down) + fields[:, below] * down
    return fields[:, :, columns] * (1 - right) + fields[:, :, beside] * right


def at_points(
    fields: Float[Array, "fields height width components"],
    *,
    field: Int32[Array, " sets"],
    y: Float[Array, "sets points"],
    x: Float[Array, "sets points"],
) -> tuple[Float[Array, "sets points"], ...]:
    """Interpolate each set of points in its own field.

    Args:
        fields: Samples on a regular grid.
        field: The field of each set.
        y: Coordinates in grid steps.
        x: Coordinates in grid steps.

    Returns:
        Each component at the points.
    """
    _, height, width, components = fields.shape
    row, below, down = _neighbours(y, height)
    column, beside, right = _neighbours(x, width)
    flat = fields.reshape(-1, components)
    base = field[:, None] * height

    def at(
        row: Int32[Array, "sets points"], column: Int32[Array, "sets points"]
    ) -> Float[Array, "sets points components"]:
        return flat.at[(base + row) * width + column].get(mode="promise_in_bounds")

    above_left, above_right = at(row, column), at(row, beside)
    below_left, below_right = at(below, column), at(below, beside)
    return tuple(
        (1 - down) * ((1 - right) * above_left[..., c] + right * above_right[..., c])
        + down * ((1 - right) * below_left[..., c] + right * below_right[..., c])
        for c in range(components)
    )


def _neighbours(
    coordinate: Float[Array, "..."] | Float[np.ndarray, "..."], size: int
) -> tuple[Int32[Array, "..."], Int32[Array, "..."], Float[Array, "..."]]:
    """Return the samples on both sides of each coordinate, and the weight of the second."""
    # In double precision as long as the coordinates are NumPy's.
    xp = np if isinstance(coordinate, np.ndarray) else jnp
    clamped = xp.clip(coordinate, 0, size - 1)
    first = xp.floor(clamped).astype(np.int32)
    weight = jnp.asarray(clamped - first, jnp.float32)
    return jnp.asarray(first), jnp.asarray(xp.minimum(first + 1, size - 1)), weight
