"""Sum Gaussian particles into images, integrated over pixels, exactly and in any order.

Every particle adds a window of (2 * radius + 1)^2 pixels, centred at the pixel that is nearest to
it. The sums are made in 32-bit integers (fixed point), so they are associative: the bits of an
image depend neither on the order of the particles nor on how a GPU schedules its atomics, nor on
how the work is cut into blocks.

A pixel receives the integral of the particle over its area, its mean for a pixel of area 1. Along
y this is a difference of error functions. Given the row, the particle is taken for a Gaussian along
x with the exact conditional mean and the variance that matches its second moment, which is exact
where rho is 0, and integrated by error functions again. The light of all pixels is that of the
particle, whatever its size.
"""

import math
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

MAX_FRACTIONAL_BITS: Final = 16
"""Resolution of a contribution: 2^-16 grey levels, finer than float32 resolves a level of 255."""

_ROW_UPDATES = lax.ScatterDimensionNumbers(
    update_window_dims=(2,), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
)


class Particles(NamedTuple):
    """Particles of one image or, with one row for each, of several images.

    Positions are in pixels from the centre of the first pixel. Diameters are two standard
    deviations, in pixels. Intensity is the grey level at the centre; zero hides a particle.
    """

    y: Float[Array, "*images particles"]
    x: Float[Array, "*images particles"]
    diameter_y: Float[Array, "*images particles"]
    diameter_x: Float[Array, "*images particles"]
    rho: Float[Array, "*images particles"]
    intensity: Float[Array, "*images particles"]


class _Windows(NamedTuple):
    """Windows along one axis of a canvas, which holds each window that touches the image.

    Attributes:
        size: Pixels of the canvas.
        start: First pixel of each window on the canvas, 0 if unseen.
        centre: Distance of the particle from the centre of its window, 0 if unseen.
        seen: Whether the window touches the image.
    """

    size: int
    start: Int32[Array, "images particles"]
    centre: Float[Array, "images particles"]
    seen: Bool[Array, "images particles"]


class _Shapes(NamedTuple):
    """What the windows are computed from, a number of each for every particle.

    Attributes:
        amplitude: A quarter of the particle's light, in units of the canvas.
        y: Distance from the centre of the window.
        x: Distance from the centre of the window.
        inverse_y: 1 / standard deviation along y.
        inverse_x: 1 / standard deviation along x within a row.
        slope: Displacement along x for each standard deviation along y.
    """

    amplitude: Float[Array, "images particles"]
    y: Float[Array, "images particles"]
    x: Float[Array, "images particles"]
    inverse_y: Float[Array, "images particles"]
    inverse_x: Float[Array, "images particles"]
    slope: Float[Array, "images particles"]


def splat(
    particles: Particles,
    *,
    shape: tuple[int, int],
    radius: int,
    brightest: float,
    correlated: bool = True,
    block: int | None = None,
) -> Float[Array, "images height width"]:
    """Sum the particles of each image.

    Light beyond the image is dropped. A particle whose position is not finite is invisible.

    Args:
        particles: See `Particles`, one row for each image.
        shape: Height and width of the images in pixels.
        radius: A window reaches this many pixels to each side of the central pixel.
        brightest: Bound on the intensity of a particle in grey levels.
        correlated: Whether `rho` is used; False saves time where it is 0.
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
    window = 2 * radius + 1
    rows = _place(particles.y, size=shape[0], radius=radius)
    columns = _place(particles.x, size=shape[1], radius=radius)
    pixels = images * rows.size * columns.size
    if pixels + window * columns.size >= 2**31:
        raise ValueError(
            f"{images} images of {shape[0]} x {shape[1]} pixels have more pixels than 31 bits "
            "count. Render fewer images at once."
        )
    seen = rows.seen & columns.seen
    bits = _fractional_bits(
        jnp.where(seen, particles.intensity, 0), rows=rows, columns=columns, window=window
    )
    scale = lax.shift_left(jnp.ones_like(bits), bits).astype(particles.y.dtype)
    shapes = _shapes(particles, rows, columns, scale=scale, correlated=correlated)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    corner = (image * rows.size + rows.start) * columns.size + columns.start
    # An index beyond the canvas drops the window.
    corner = jnp.where(seen, corner, pixels)

    def add(canvas: Array, part: tuple[Array, _Shapes]) -> tuple[Array, None]:
        corner, shapes = part
        values = _values(shapes, radius=radius, correlated=correlated)
        return _add_windows(canvas, corner, values, stride=columns.size), None

    canvas = jnp.zeros(pixels, jnp.int32)
    if block is None or block >= count:
        canvas, _ = add(canvas, (corner, shapes))
    else:
        blocks = math.ceil(count / block)
        padding = ((0, 0), (0, blocks * block - count))

        def cut(values: Array, filler: int = 0) -> Array:
            values = jnp.pad(values, padding, constant_values=filler)
            return jnp.moveaxis(values.reshape(images, blocks, block), 1, 0)

        canvas, _ = lax.scan(add, canvas, (cut(corner, pixels), jax.tree.map(cut, shapes)))
    canvas = canvas.reshape(images, rows.size, columns.size)
    border = window - 1
    canvas = canvas[:, border : border + shape[0], border : border + shape[1]]
    return canvas.astype(particles.y.dtype) / scale[:, None, None]


def _place(centre: Float[Array, "images particles"], *, size: int, radius: int) -> _Windows:
    """Find the window of each particle on a canvas with a border of one window less a pixel."""
    nearest = jnp.round(centre)
    # False for what is not a number.
    seen = (nearest >= -radius) & (nearest <= size - 1 + radius)
    nearest = jnp.where(seen, nearest, 0)
    return _Windows(
        size=size + 4 * radius,
        start=jnp.where(seen, nearest.astype(jnp.int32) + radius, 0),
        centre=jnp.where(seen, centre - nearest, 0),
        seen=seen,
    )


def _fractional_bits(
    intensity: Float[Array, "images particles"],
    *,
    rows: _Windows,
    columns: _Windows,
    window: int,
) -> Int32[Array, "images"]:
    """Choose per image the resolution at which no sum can leave 31 bits.

    A pixel receives at most the intensity of a particle. Windows over one pixel start in one box of
    window x window positions, and such a box touches at most 2 x 2 cells of a grid of that pitch.
    So the largest total intensity of 2 x 2 cells bounds every pixel, however a flow gathers the
    particles. The totals are sums of integers and depend on no order either.
    """
    images = intensity.shape[0]
    # One more than the ceiling covers the rounding of every contribution.
    whole = jnp.where(intensity > 0, jnp.ceil(intensity).astype(jnp.int32) + 1, 0)
    cells_y, cells_x = -(-rows.size // window), -(-columns.size // window)
    totals = jnp.zeros((images, cells_y + 1, cells_x + 1), jnp.int32)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    totals = totals.at[image, rows.start // window, columns.start // window].add(whole)
    totals = totals[:, :-1] + totals[:, 1:]
    totals = totals[:, :, :-1] + totals[:, :, 1:]
    bound = jnp.max(totals, axis=(1, 2))
    return jnp.minimum(lax.clz(jnp.maximum(bound, 1)) - 1, MAX_FRACTIONAL_BITS)


def _shapes(
    particles: Particles,
    rows: _Windows,
    columns: _Windows,
    *,
    scale: Float[Array, "images"],
    correlated: bool,
) -> _Shapes:
    sigma_y, sigma_x = particles.diameter_y / 2.0, particles.diameter_x / 2.0
    amplitude = particles.intensity * scale[:, None] * (sigma_y * sigma_x) * (math.pi / 2.0)
    within_row, slope = sigma_x, jnp.zeros_like(sigma_x)
    if correlated:
        explained = particles.rho**2
        amplitude = amplitude * jnp.sqrt(1.0 - explained)
        slope = particles.rho * sigma_x
        # The mean moves within the row by the variance of y there: 1/12 if the particle is large.
        moved = explained / (12.0 * sigma_y**2 + 1.0)
        within_row = sigma_x * jnp.sqrt(1.0 - explained + moved)
    return _Shapes(amplitude, rows.centre, columns.centre, 1.0 / sigma_y, 1.0 / within_row, slope)


def _values(
    shapes: _Shapes, *, radius: int, correlated: bool
) -> Float[Array, "images particles window window"]:
    """Integrate particles over the pixels of their windows."""
    number = np.dtype(shapes.y.dtype).type
    edge = jnp.arange(-radius, radius + 2, dtype=shapes.y.dtype) - number(0.5)
    half = number(math.sqrt(0.5))
    edges_y = (edge - shapes.y[..., None]) * shapes.inverse_y[..., None]
    row = jnp.diff(lax.erf(edges_y * half))
    if not correlated:
        edges_x = (edge - shapes.x[..., None]) * (shapes.inverse_x * half)[..., None]
        column = jnp.diff(lax.erf(edges_x))
        return (row * shapes.amplitude[..., None])[..., None] * column[..., None, :]
    # The mean of y within each row, in standard deviations.
    density = jnp.exp(-0.5 * edges_y**2) * number(math.sqrt(2.0 / math.pi))
    mean = -jnp.diff(density) / jnp.maximum(row, number(1e-30))
    mean = jnp.clip(mean, edges_y[..., :-1], edges_y[..., 1:])
    centre = shapes.x[..., None] + shapes.slope[..., None] * mean
    inverse = (shapes.inverse_x * half)[..., None, None]
    column = jnp.diff(lax.erf((edge - centre[..., None]) * inverse))
    return (row * shapes.amplitude[..., None])[..., None] * column


def _add_windows(
    canvas: Int32[Array, "pixels"],
    corner: Int32[Array, "images particles"],
    values: Float[Array, "images particles window window"],
    *,
    stride: int,
) -> Int32[Array, "pixels"]:
    """Add each window to the flat canvas, one row of it per scatter index."""
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
