"""Sum Gaussian particles into images, exactly and in any order.

Every particle adds a window of (2 * radius + 1)^2 pixels. The sums are made in 32-bit integers
(fixed point), so they are associative: the bits of an image depend neither on the order of the
particles nor on how a GPU schedules its atomics, nor on how the work is cut into blocks.

How many fractional bits fit is decided for every image from its own particles, see
`_fractional_bits`.
"""

import math
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32

MAX_FRACTIONAL_BITS: Final = 16
"""Resolution of a contribution: 2^-16 grey levels, finer than float32 resolves a level of 255."""

_ROW_UPDATES = lax.ScatterDimensionNumbers(
    update_window_dims=(2,), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
)


class Particles(NamedTuple):
    """Particles of several images; every field has one row per image.

    Positions are in pixels, the origin is the centre of the first pixel. Diameters are two standard
    deviations, in pixels. Intensity is the grey level at the centre; zero hides a particle.
    """

    y: Float[Array, "images particles"]
    x: Float[Array, "images particles"]
    diameter_y: Float[Array, "images particles"]
    diameter_x: Float[Array, "images particles"]
    rho: Float[Array, "images particles"]
    intensity: Float[Array, "images particles"]


class _Axis(NamedTuple):
    """Placement of windows along one axis of the padded canvas."""

    size: int
    before: int
    padded: int
    start: Int32[Array, "images particles"]
    offset: Float[Array, "images particles window"]


def splat(
    particles: Particles,
    *,
    bounds: tuple[int, int],
    radius: int,
    brightest: float,
    block: int | None = None,
) -> Float[Array, "images height width"]:
    """Sum the particles of each image.

    Centres are clipped to [radius, size - radius - 1e-6] along each axis, as synthpix does, and
    pixels of a window beyond the bounds are dropped. A particle whose position is not finite is
    invisible or sits on the border; it never touches another image.

    Args:
        particles: See `Particles`.
        bounds: Height and width of the images in pixels.
        radius: A window reaches this many pixels to each side of the pixel of its centre.
        brightest: Bound on the intensity of a particle in grey levels.
        block: Particles of each image whose windows are held in memory at once; all if None. Does
            not change a bit of the result.

    Returns:
        Grey levels, not clipped, in the float type of the particles. The true sums rounded to
        2^-16, coarser only in images where more than 2^15 grey levels may meet in one pixel.

    Raises:
        ValueError: The particles of an image, or the pixels of all, are too many for 31 bits.
    """
    images, count = particles.y.shape
    if count * (math.ceil(brightest) + 1) >= 2**31:
        raise ValueError(
            f"{count} particles of up to {brightest} grey levels in one image can sum to more than "
            "31 bits hold. Use smaller images, a lower seeding density or lower intensities."
        )
    rows = _place(particles.y, size=bounds[0], radius=radius)
    columns = _place(particles.x, size=bounds[1], radius=radius)
    bits = _fractional_bits(particles.intensity, rows=rows, columns=columns, window=2 * radius + 1)
    scale = lax.shift_left(jnp.ones_like(bits), bits).astype(particles.y.dtype)

    pieces = (*_coefficients(particles, scale=scale), rows.offset, columns.offset)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    corner = ((image * rows.padded) + rows.start) * columns.padded + columns.start
    if images * rows.padded * columns.padded >= 2**31:
        raise ValueError(
            f"{images} images of {bounds[0]} x {bounds[1]} pixels have more pixels than 31 bits "
            "count. Render fewer images at once."
        )
    canvas = jnp.zeros(images * rows.padded * columns.padded, jnp.int32)
    if block is None or block >= count:
        canvas = _add_windows(canvas, corner, pieces, stride=columns.padded)
    else:
        blocks = math.ceil(count / block)
        padding = blocks * block - count

        def cut(values: Array) -> Array:
            # Zeros are particles without intensity at the first corner.
            values = jnp.pad(values, ((0, 0), (0, padding), *((0, 0),) * (values.ndim - 2)))
            return jnp.moveaxis(values.reshape(images, blocks, block, *values.shape[2:]), 1, 0)

        def add(canvas: Array, part: tuple[Array, tuple[Array, ...]]) -> tuple[Array, None]:
            return _add_windows(canvas, *part, stride=columns.padded), None

        canvas, _ = lax.scan(add, canvas, jax.tree.map(cut, (corner, pieces)))
    canvas = canvas.reshape(images, rows.padded, columns.padded)
    canvas = _wrap(_wrap(canvas, 1, rows), 2, columns)
    return canvas.astype(particles.y.dtype) / scale[:, None, None]


def _place(centre: Float[Array, "images particles"], *, size: int, radius: int) -> _Axis:
    """Clip centres, find where their windows start and how far each pixel lies from the centre."""
    number = np.dtype(centre.dtype).type
    highest = number(size - radius - 1e-6)
    # The 1e-6 vanishes in float32 from 32 pixels on: the last window may overhang by one pixel. In
    # an image smaller than a window everything is clipped to `highest`, and windows start before 0.
    last = math.floor(highest - number(radius))
    first = min(last, 0)
    before = -first

    clipped = jnp.clip(centre, radius, highest)
    start = jnp.floor(clipped - radius).astype(jnp.int32)
    fraction = clipped - (start + radius).astype(centre.dtype)
    steps = jnp.arange(-radius, radius + 1, dtype=centre.dtype)
    return _Axis(
        size=size,
        before=before,
        padded=before + max(size, last + 2 * radius + 1),
        start=jnp.clip(start, first, max(last, 0)) + before,
        offset=steps - fraction[..., None],
    )


def _fractional_bits(
    intensity: Float[Array, "images particles"], *, rows: _Axis, columns: _Axis, window: int
) -> Int32[Array, "images"]:
    """Choose per image the resolution at which no sum can leave 31 bits.

    Windows over one pixel start in one box of window x window positions, and such a box touches at
    most 2 x 2 cells of a grid of that pitch. So the largest total intensity of 2 x 2 cells bounds
    every pixel, however a flow gathers the particles. The totals are sums of integers and depend on
    no order either.
    """
    images = intensity.shape[0]
    # One more than the ceiling covers the rounding of every contribution.
    whole = jnp.ceil(intensity).astype(jnp.int32) + 1
    cells_y, cells_x = -(-rows.padded // window), -(-columns.padded // window)
    totals = jnp.zeros((images, cells_y + 1, cells_x + 1), jnp.int32)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    totals = totals.at[image, rows.start // window, columns.start // window].add(whole)
    totals = totals[:, :-1] + totals[:, 1:]
    totals = totals[:, :, :-1] + totals[:, :, 1:]
    bound = jnp.max(totals, axis=(1, 2))
    return jnp.minimum(lax.clz(bound) - 1, MAX_FRACTIONAL_BITS)


def _coefficients(
    particles: Particles, *, scale: Float[Array, "images"]
) -> tuple[Float[Array, "images particles"], ...]:
    """Rewrite the correlated Gaussian as amplitude * exp(-(a dx - b dy)^2 - (c dy)^2).

    This is synthpix's -(dx^2/sx^2 + dy^2/sy^2 - 2 rho dx dy/(sx sy)) / (2 (1 - rho^2)) with its
    square completed: fewer operations a pixel, and an exponent that cannot become positive by
    cancellation.
    """
    half = math.sqrt(0.5)
    conditional = half / jnp.sqrt(1.0 - particles.rho**2)
    sigma_y, sigma_x = particles.diameter_y / 2.0, particles.diameter_x / 2.0
    return (
        particles.intensity * scale[:, None],
        conditional / sigma_x,
        conditional * particles.rho / sigma_y,
        half / sigma_y,
    )


def _add_windows(
    canvas: Int32[Array, "pixels"],
    corner: Int32[Array, "images particles"],
    pieces: tuple[Array, ...],
    *,
    stride: int,
) -> Int32[Array, "pixels"]:
    """Add each window to the flat canvas, one row of it per scatter index."""
    amplitude, a, b, c, dy, dx = pieces
    slanted = b[..., None] * dy
    squared = (c[..., None] * dy) ** 2
    exponent = (a[..., None, None] * dx[..., None, :] - slanted[..., None]) ** 2
    values = amplitude[..., None, None] * jnp.exp(-(exponent + squared[..., None]))
    fixed = lax.round(values, lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)
    window = fixed.shape[-1]
    starts = corner[..., None] + stride * jnp.arange(window, dtype=jnp.int32)
    return lax.scatter_add(
        canvas,
        starts.reshape(corner.size, window, 1),
        fixed.reshape(corner.size, window, window),
        _ROW_UPDATES,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )


def _wrap(
    canvas: Int32[Array, "images _ _"], dimension: int, axis: _Axis
) -> Int32[Array, "images _ _"]:
    """Crop the padded canvas; what lies before 0 goes to the far end, as negative indices do."""
    inside = lax.slice_in_dim(canvas, axis.before, axis.before + axis.size, axis=dimension)
    wrapped = min(axis.before, axis.size)
    if not wrapped:
        return inside
    tail = lax.slice_in_dim(canvas, axis.before - wrapped, axis.before, axis=dimension)
    padding = [(0, 0)] * canvas.ndim
    padding[dimension] = (axis.size - wrapped, 0)
    return inside + jnp.pad(tail, padding)
