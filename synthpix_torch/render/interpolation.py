"""Bilinear interpolation in flow fields, whose last samples continue beyond their edges."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num


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
    fields = _take(fields, rows, axis=1) * (1 - down) + _take(fields, below, axis=1) * down
    return _take(fields, columns, axis=2) * (1 - right) + _take(fields, beside, axis=2) * right


def at_points(
    fields: Num[Array, "fields height width components"],
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
        samples = flat.at[(base + row) * width + column].get(mode="promise_in_bounds")
        return samples.astype(jnp.float32)

    above_left, above_right = at(row, column), at(row, beside)
    below_left, below_right = at(below, column), at(below, beside)
    return tuple(
        (1 - down) * ((1 - right) * above_left[..., c] + right * above_right[..., c])
        + down * ((1 - right) * below_left[..., c] + right * below_right[..., c])
        for c in range(components)
    )


def _neighbours(coordinate: Any, size: int) -> tuple[Any, Any, Float[Array, "..."]]:
    """Return the samples on both sides of each coordinate, and the weight of the second.

    The samples are NumPy's if the coordinates are, and these stay in double precision.
    """
    xp = np if isinstance(coordinate, np.ndarray) else jnp
    clamped = xp.clip(coordinate, 0, size - 1)
    first = xp.floor(clamped).astype(np.int32)
    weight = jnp.asarray(clamped - first, jnp.float32)
    return first, xp.minimum(first + 1, size - 1), weight


def _take(
    fields: Float[Array, "fields height width components"],
    samples: Int32[np.ndarray, " samples"],
    *,
    axis: int,
) -> Float[Array, "fields height width components"]:
    """Take samples along an axis."""
    first, count = int(samples[0]), len(samples)
    if (samples == first + np.arange(count)).all():
        # XLA moves slices as blocks and gathers one number at a time.
        return lax.slice_in_dim(fields, first, first + count, axis=axis)
    return jnp.take(fields, samples, axis=axis)
