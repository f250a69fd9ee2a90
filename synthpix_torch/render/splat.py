"""Sum Gaussian particles into images, integrated over pixels, exactly and in any order.

Every particle adds a window of (2 * radius + 1)^2 pixels, centred at the pixel that is nearest to
it. The sums are made in 32-bit integers (fixed point), so they are associative: the bits of an
image depend neither on the order of the particles nor on how a GPU schedules its atomics, nor on
how the work is cut into blocks.

A pixel receives the mean of the particle over its area. Where rho is 0 that is a product of
differences of error functions. Else this product is multiplied by the coupling of the Gaussian that
has the second moments of the integrated particle, those of the particle plus 1/12 along each axis:
the ratio of its density to that without correlation, at the centre of the pixel.
docs/performance.md compares this with quadrature.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

MAX_FRACTIONAL_BITS: Final = 16
"""Resolution of a contribution: 2^-16 grey levels, finer than float32 resolves a level of 255."""

_LARGEST_EXPONENT: Final = 10.0

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


class _Factors(NamedTuple):
    """Factors of the windows, a number for each row, or column, of each particle's window.

    Pixel (i, j) receives rows[i] * columns[j], and with correlated particles this times
    exp(-(down[i] - right[j])^2), at most `most`. Both may be given for each pixel instead.
    """

    rows: Float[Array, "*windows width"]
    columns: Float[Array, "*windows width"]
    down: Float[Array, "..."] | None
    right: Float[Array, "..."] | None
    most: Float[Array, "*windows"] | None


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
    bits = _fractional_bits(intensity, rows=rows, columns=columns, window=window)
    scale = lax.shift_left(jnp.ones_like(bits), bits).astype(particles.y.dtype)
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
    integrate = partial(
        _factors, radius=radius, width=width, correlated=correlated, by_pixel=block is None
    )
    canvas = jnp.zeros((height, columns.size), jnp.int32)
    if block is None:
        # Windows are placed once, not once for each of their pixels.
        windows = lax.optimization_barrier(windows)
        factors = integrate(windows)
        # Error functions are computed once for a window, not once for each of its pixels.
        row, column = lax.optimization_barrier((factors.rows, factors.columns))
        canvas = _add_windows(canvas, windows, factors._replace(rows=row, columns=column))
    else:
        # At most a quarter, because what fills the last block is computed in vain; whole vectors of
        # a CPU, because XLA computes the exponentials of a few numbers with other bits.
        half = max(16, min(block // 2, images * count // 8) // 16 * 16)
        canvas = _add_seen(canvas, windows, seen.reshape(-1), integrate=integrate, half=half)
    canvas = canvas.reshape(images, rows.size, columns.size)
    border = window - 1
    canvas = canvas[:, border : border + shape[0], border : border + shape[1]]
    return canvas.astype(particles.y.dtype) / scale[:, None, None]


def _add_seen(
    canvas: Int32[Array, "height width"],
    windows: _Windows,
    seen: Bool[Array, " n"],
    *,
    integrate: Callable[[_Windows], _Factors],
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

    def add(turn: Int32[Array, ""], state: tuple[Array, _Factors]) -> tuple[Array, _Factors]:
        canvas, factors = state
        part = jax.tree.map(lambda v: lax.dynamic_slice(v, (turn * block,), (block,)), windows)

        def fill(side: Int32[Array, ""], factors: _Factors) -> _Factors:
            start = side * half
            made = integrate(jax.tree.map(lambda v: lax.dynamic_slice(v, (start,), (half,)), part))
            filled: _Factors = jax.tree.map(
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


def _fractional_bits(
    intensity: Float[Array, "images particles"],
    *,
    rows: _Axis,
    columns: _Axis,
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
    shape = (images, cells_y + 1, cells_x + 1)
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    cell = (image * shape[1] + rows.start // window) * shape[2] + columns.start // window
    totals = jnp.zeros(math.prod(shape), jnp.int32).at[cell].add(whole, mode="promise_in_bounds")
    totals = totals.reshape(shape)
    totals = totals[:, :-1] + totals[:, 1:]
    totals = totals[:, :, :-1] + totals[:, :, 1:]
    bound = jnp.max(totals, axis=(1, 2))
    return jnp.minimum(lax.clz(jnp.maximum(bound, 1)) - 1, MAX_FRACTIONAL_BITS)


def _factors(
    windows: _Windows, *, radius: int, width: int, correlated: bool, by_pixel: bool
) -> _Factors:
    """Integrate particles over the rows and over the columns of their windows.

    With `by_pixel` the coupling is prepared for each pixel instead of each row and each column.
    """
    # From the left end of each window; what lies beyond the window is dark.
    pixel = jnp.arange(width, dtype=windows.y.dtype) - radius
    y, x = pixel[: 2 * radius + 1] - windows.y[..., None], pixel - windows.x[..., None]
    sigma_y, sigma_x = windows.diameter_y / 2.0, windows.diameter_x / 2.0
    row, column = _integrate(y, sigma_y), _integrate(x, sigma_x)
    column = jnp.where(pixel <= radius, column, 0)
    light = windows.peak * (2.0 * math.pi) * sigma_y * sigma_x
    if not correlated:
        return _Factors(row * light[..., None], column, None, None, None)
    variance_y, variance_x = sigma_y**2 + 1.0 / 12.0, sigma_x**2 + 1.0 / 12.0
    r = windows.rho * sigma_y * sigma_x / jnp.sqrt(variance_y * variance_x)
    size, less = jnp.abs(r), 1.0 - r**2
    light = light * jnp.sqrt((1.0 - windows.rho**2) / less)
    # In standard deviations y and x, and with the square completed so that no exponent grows, the
    # ratio is exp(-|r| (y - sign(r) x)^2 / (2 (1 - r^2)) + |r| (y^2 + x^2) / (2 (1 + |r|))).
    coupling = size / (2.0 * less)
    alone = size / (2.0 * (1.0 + size))

    def grown(
        distance: Float[Array, "*windows width"], variance: Float[Array, "*windows"]
    ) -> Float[Array, "*windows width"]:
        exponent = distance**2 * (alone / variance)[..., None]
        # Beyond, there is no light to be multiplied.
        return jnp.exp(jnp.minimum(exponent, _LARGEST_EXPONENT))

    slope_y, slope_x = jnp.sqrt(coupling / variance_y), jnp.sqrt(coupling / variance_x)
    slope_x = slope_x * jnp.sign(r)
    if by_pixel:
        # Two numbers of a window take less memory than one for each of its rows.
        slope_y, slope_x = lax.optimization_barrier((slope_y, slope_x))
        shape = (2 * radius + 1, width)
        i = jnp.broadcast_to(pixel[: shape[0], None], shape)
        j = jnp.broadcast_to(pixel, shape)
        down = (i - windows.y[..., None, None]) * slope_y[..., None, None]
        right = (j - windows.x[..., None, None]) * slope_x[..., None, None]
    else:
        down, right = y * slope_y[..., None], x * slope_x[..., None]
    return _Factors(
        row * grown(y, variance_y) * light[..., None],
        column * grown(x, variance_x),
        down,
        right,
        windows.peak,
    )


def _integrate(
    distance: Float[Array, "*windows width"], sigma: Float[Array, "*windows"]
) -> Float[Array, "*windows width"]:
    """Integrate a normal density over pixels at a distance from its mean."""
    inverse = (math.sqrt(0.5) / sigma)[..., None]
    # Both ends of each pixel, because differences of neighbours are not computed in parallel.
    return 0.5 * (lax.erf((distance + 0.5) * inverse) - lax.erf((distance - 0.5) * inverse))


def _values(factors: _Factors) -> Float[Array, "*windows window width"]:
    """Multiply the factors of every pixel."""
    values = factors.rows[..., None] * factors.columns[..., None, :]
    if factors.down is None or factors.right is None or factors.most is None:
        return values
    down, right = factors.down, factors.right
    if down.ndim < values.ndim:
        down, right = down[..., None], right[..., None, :]
    apart = down - right
    # Rounding and the approximation end here: the bound on sums stands on it.
    return jnp.minimum(values * jnp.exp(-(apart**2)), factors.most[..., None, None])


def _add_windows(
    canvas: Int32[Array, "height width"], windows: _Windows, factors: _Factors
) -> Int32[Array, "height width"]:
    """Add windows to the canvas; those beyond it are dropped."""
    fixed = lax.round(_values(factors), lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)
    return lax.scatter_add(
        canvas,
        jnp.stack([windows.row, windows.column], axis=-1),
        fixed,
        _WINDOW_UPDATES,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
