"""Sum Gaussian particles into images, integrated over pixels, exactly and in any order.

Every particle adds a window of (2 * radius + 1)^2 pixels, centred at the pixel that is nearest to
it. The sums are made in 32-bit integers (fixed point), so they are associative: the bits of an
image depend neither on the order of the particles nor on how a GPU schedules its atomics, nor on
how the work is cut into blocks.

`light` integrates one particle over the pixels of its window.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt32

from synthpix_torch.render.light import Factors, Shape, factors_of, shape_of, values_of

MAX_FRACTIONAL_BITS: Final = 16
"""Resolution of a contribution: 2^-16 grey levels, finer than float32 resolves a level of 255."""

_WINDOW_UPDATES = lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
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


class _Axis(NamedTuple):
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


class _Windows(NamedTuple):
    """Windows on one canvas, which holds all images one below the other.

    Attributes:
        row: First row of each window on the canvas; beyond the canvas if it is unseen.
        column: First column.
        y: Distance of the particle from the centre of its window.
        x: The same along the columns.
        diameter_y: Two standard deviations.
        diameter_x: Two standard deviations.
        rho: Correlation.
        peak: Intensity in units of the canvas.
    """

    row: Int32[Array, "*windows"]
    column: Int32[Array, "*windows"]
    y: Float[Array, "*windows"]
    x: Float[Array, "*windows"]
    diameter_y: Float[Array, "*windows"]
    diameter_x: Float[Array, "*windows"]
    rho: Float[Array, "*windows"]
    peak: Float[Array, "*windows"]


class _Spots(NamedTuple):
    """Particles of images as a GPU stores them.

    Attributes:
        start: First row of the window in the lower bits, first column in the upper bits.
        y: Position.
        x: Position.
        intensity: Grey level at the centre; zero if the window is unseen.
        shape: The numbers that are the same for all pixels of a window.
    """

    start: UInt32[Array, "images particles"]
    y: Float[Array, "images particles"]
    x: Float[Array, "images particles"]
    intensity: Float[Array, "images particles"]
    shape: Shape


def splat(
    particles: Particles,
    *,
    shape: tuple[int, int],
    radius: int,
    brightest: float,
    correlated: bool = True,
    block: int | None,
    lanes: int = 1,
) -> Float[Array, "images height width"]:
    """Sum the particles of each image.

    Light beyond the image is dropped. A particle whose position is not finite is invisible.

    Args:
        particles: See `Particles`, one row for each image.
        shape: Height and width of the images in pixels.
        radius: A window reaches this many pixels to each side of the central pixel.
        brightest: Bound on the intensity of a particle in grey levels.
        correlated: Whether `rho` is used; False saves time where it is 0.
        block: Windows that are computed at once, of those that are seen; best for a CPU. None
            computes all without a loop. Changes no bit of the result.
        lanes: Rows of narrow windows are filled with zeros to a multiple of this many pixels, for
            processors that compute so many at a time. Changes no bit of the result.

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
    width = -(-window // lanes) * lanes if window < 2 * lanes else window
    rows = _place(particles.y, size=shape[0], radius=radius)
    columns = _place(particles.x, size=shape[1], radius=radius)
    columns = columns._replace(size=columns.size + width - window)
    pixels = images * rows.size * columns.size
    if pixels + window * columns.size >= 2**31:
        raise ValueError(
            f"{images} images of {shape[0]} x {shape[1]} pixels have more pixels than 31 bits "
            "count. Render fewer images at once."
        )
    seen = rows.seen & columns.seen & (particles.intensity > 0)
    intensity = jnp.where(seen, particles.intensity, 0)
    if block is None:
        return _splat_at_once(
            particles._replace(intensity=intensity),
            rows=rows,
            columns=columns,
            shape=shape,
            radius=radius,
            correlated=correlated,
        )
    scale = _scale(intensity, rows=rows, columns=columns, window=window)
    height = images * rows.size
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    windows = _Windows(
        row=jnp.where(seen, image * rows.size + rows.start, height),
        column=columns.start,
        y=rows.centre,
        x=columns.centre,
        diameter_y=particles.diameter_y,
        diameter_x=particles.diameter_x,
        rho=particles.rho,
        peak=intensity * scale[:, None],
    )
    windows = jax.tree.map(lambda v: v.reshape(-1), windows)
    integrate = partial(_factors, radius=radius, width=width, correlated=correlated)
    canvas = jnp.zeros((height, columns.size), jnp.int32)
    # At most a quarter, because what fills the last block is computed in vain; whole vectors of a
    # CPU, because XLA computes the exponentials of a few numbers with other bits.
    half = max(16, min(block // 2, images * count // 8) // 16 * 16)
    canvas = _add_seen(canvas, windows, seen.reshape(-1), integrate=integrate, half=half)
    canvas = canvas.reshape(images, rows.size, columns.size)
    border = window - 1
    canvas = canvas[:, border : border + shape[0], border : border + shape[1]]
    return canvas.astype(particles.y.dtype) / scale[:, None, None]


def _splat_at_once(
    particles: Particles,
    *,
    rows: _Axis,
    columns: _Axis,
    shape: tuple[int, int],
    radius: int,
    correlated: bool,
) -> Float[Array, "images height width"]:
    """Sum all windows at once, for a GPU. The intensity of an unseen particle is zero.

    What passes a barrier is stored. All else is computed where it is used.
    """
    images, window = particles.y.shape[0], 2 * radius + 1
    # All rows of windows fit into the lower bits. An unseen window starts below the image.
    shift = rows.size.bit_length()
    start = (columns.start.astype(jnp.uint32) << shift) + rows.start.astype(jnp.uint32)
    spots = _Spots(
        start=jnp.where(particles.intensity > 0, start, shape[0] + 2 * radius),
        y=particles.y,
        x=particles.x,
        intensity=particles.intensity,
        shape=shape_of(
            (particles.diameter_y, particles.diameter_x),
            rho=particles.rho if correlated else None,
            peak=particles.intensity,
        ),
    )
    spots = lax.optimization_barrier(spots)
    scale = _scale(
        spots.intensity,
        rows=rows._replace(start=(spots.start % 2**shift).astype(jnp.int32)),
        columns=columns._replace(start=(spots.start >> shift).astype(jnp.int32)),
        window=window,
    )
    factors = factors_of(
        (spots.y - jnp.round(spots.y), spots.x - jnp.round(spots.x)),
        spots.shape._replace(light=spots.shape.light * scale[:, None]),
        peak=spots.intensity * scale[:, None],
        radius=radius,
        width=window,
    )
    image = lax.broadcasted_iota(jnp.int32, spots.y.shape, 0).reshape(-1)
    # Computed for each pixel below: stored for each row and column they take more memory.
    factors = factors._replace(down=None, right=None)
    # On one axis, or each pixel would find its window by more divisions.
    spots, factors = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), (spots, factors))
    spots, factors = lax.optimization_barrier((spots, factors))
    box = (*image.shape, window, window)
    # Starts are added first, because XLA would store what is computed from counts alone.
    place = spots.start[:, None, None] + lax.broadcasted_iota(jnp.uint32, box, 1)
    i = (place % 2**shift).astype(jnp.int32) - 2 * radius
    j = (place >> shift).astype(jnp.int32) + lax.broadcasted_iota(jnp.int32, box, 2) - 2 * radius
    apart = None
    if (coupling := spots.shape.coupling) is not None:
        down, right = i - spots.y[:, None, None], j - spots.x[:, None, None]
        apart = down * coupling.slope_y[:, None, None] - right * coupling.slope_x[:, None, None]
    canvas = jnp.zeros((images, *shape), jnp.int32)
    canvas = canvas.at[image[:, None, None], i, j].add(
        _fixed(factors, apart), mode="drop", wrap_negative_indices=False
    )
    return canvas.astype(particles.y.dtype) / scale[:, None, None]


def _add_seen(
    canvas: Int32[Array, "height width"],
    windows: _Windows,
    seen: Bool[Array, " n"],
    *,
    integrate: Callable[[_Windows], Factors],
    half: int,
) -> Int32[Array, "height width"]:
    """Add the windows that are seen, two times `half` of them at once."""
    block = 2 * half
    last = lax.associative_scan(jnp.add, seen.astype(jnp.int32))
    size = math.ceil(seen.size / block) * block
    place = jnp.where(seen, last - 1, size)
    order = jnp.zeros(size, jnp.int32).at[place].set(lax.iota(jnp.int32, seen.size), mode="drop")
    windows = jax.tree.map(lambda v: v.at[order].get(mode="promise_in_bounds"), windows)
    beyond = jnp.where(lax.iota(jnp.int32, size) < last[-1], windows.row, canvas.shape[0])
    windows = windows._replace(row=beyond)

    def add(turn: Int32[Array, ""], state: tuple[Array, Factors]) -> tuple[Array, Factors]:
        canvas, factors = state
        part = jax.tree.map(lambda v: lax.dynamic_slice(v, (turn * block,), (block,)), windows)

        def fill(side: Int32[Array, ""], factors: Factors) -> Factors:
            start = side * half
            made = integrate(jax.tree.map(lambda v: lax.dynamic_slice(v, (start,), (half,)), part))
            filled: Factors = jax.tree.map(
                lambda both, one: lax.dynamic_update_slice_in_dim(both, one, start, axis=0),
                factors,
                made,
            )
            return filled

        # In a loop, or XLA would integrate once for each pixel; two times, or it would inline it.
        factors = lax.fori_loop(0, 2, fill, factors)
        return _add_windows(canvas, part, factors), factors

    shapes = jax.eval_shape(integrate, jax.tree.map(lambda v: v[:block], windows))
    factors = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes)
    blocks = (last[-1] + (block - 1)) // block
    summed: Array = lax.fori_loop(0, blocks, add, (canvas, factors))[0]
    return summed


def _place(centre: Float[Array, "images particles"], *, size: int, radius: int) -> _Axis:
    """Find the window of each particle on a canvas with a border of one window less a pixel."""
    nearest = jnp.round(centre)
    # False for what is not a number.
    seen = (nearest >= -radius) & (nearest <= size - 1 + radius)
    nearest = jnp.where(seen, nearest, 0)
    return _Axis(
        size=size + 4 * radius,
        start=jnp.where(seen, nearest.astype(jnp.int32) + radius, 0),
        centre=jnp.where(seen, centre - nearest, 0),
        seen=seen,
    )


def _scale(
    intensity: Float[Array, "images particles"],
    *,
    rows: _Axis,
    columns: _Axis,
    window: int,
) -> Float[Array, "images"]:
    """Choose per image the scale, a power of two, at which no sum can leave 31 bits.

    A pixel receives at most the intensity of a particle. Windows over one pixel start in one box of
    window x window positions, and such a box touches at most 2 x 2 cells of a grid of that pitch.
    So the largest total intensity of 2 x 2 cells bounds every pixel, however a flow gathers the
    particles. The totals are sums of integers and depend on no order either.
    """
    images = intensity.shape[0]
    # One more than the ceiling covers the rounding of every contribution.
    whole = jnp.where(intensity > 0, jnp.ceil(intensity).astype(jnp.int32) + 1, 0)
    cells_y, cells_x = -(-rows.size // window), -(-columns.size // window)
    shape = (images, cells_y + 1, cells_x + 1)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    cell = (image * shape[1] + rows.start // window) * shape[2] + columns.start // window
    totals = jnp.zeros(math.prod(shape), jnp.int32).at[cell].add(whole, mode="promise_in_bounds")
    totals = totals.reshape(shape)
    totals = totals[:, :-1] + totals[:, 1:]
    totals = totals[:, :, :-1] + totals[:, :, 1:]
    bound = jnp.max(totals, axis=(1, 2))
    bits = jnp.minimum(lax.clz(jnp.maximum(bound, 1)) - 1, MAX_FRACTIONAL_BITS)
    return lax.shift_left(jnp.ones_like(bits), bits).astype(intensity.dtype)


def _factors(windows: _Windows, *, radius: int, width: int, correlated: bool) -> Factors:
    """Integrate particles over the rows and over the columns of their windows."""
    shape = shape_of(
        (windows.diameter_y, windows.diameter_x),
        rho=windows.rho if correlated else None,
        peak=windows.peak,
    )
    centre = windows.y, windows.x
    return factors_of(centre, shape, peak=windows.peak, radius=radius, width=width)


def _fixed(
    factors: Factors, apart: Float[Array, "*windows window width"] | None
) -> Int32[Array, "*windows window width"]:
    """Round the values of all pixels."""
    values = values_of(factors, apart)
    return lax.round(values, lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)


def _add_windows(
    canvas: Int32[Array, "height width"], windows: _Windows, factors: Factors
) -> Int32[Array, "height width"]:
    """Add windows to the canvas; those beyond it are dropped."""
    apart = None
    if factors.down is not None and factors.right is not None:
        apart = factors.down[..., None] - factors.right[..., None, :]
    return lax.scatter_add(
        canvas,
        jnp.stack([windows.row, windows.column], axis=-1),
        _fixed(factors, apart),
        _WINDOW_UPDATES,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
