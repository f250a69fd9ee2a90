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
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

MAX_FRACTIONAL_BITS: Final = 16
"""Resolution of a contribution: 2^-16 grey levels, finer than float32 resolves a level of 255."""

_LARGEST_EXPONENT: Final = 10.0

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


class _Factors(NamedTuple):
    """Factors of the windows, a number for each row, or column, of each particle's window.

    Pixel (i, j) receives rows[i] * columns[j], and with correlated particles this times
    exp(-(down[i] - right[j])^2), at most `most`.
    """

    rows: Float[Array, "images particles width"]
    columns: Float[Array, "images particles width"]
    down: Float[Array, "images particles width"] | None
    right: Float[Array, "images particles width"] | None
    most: Float[Array, "images particles"] | None


def splat(
    particles: Particles,
    *,
    shape: tuple[int, int],
    radius: int,
    brightest: float,
    correlated: bool = True,
    block: int,
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
        block: Particles of each image whose windows are held in memory at once. Changes no bit of
            the result.
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
    seen = rows.seen & columns.seen
    bits = _fractional_bits(
        jnp.where(seen, particles.intensity, 0), rows=rows, columns=columns, window=window
    )
    scale = lax.shift_left(jnp.ones_like(bits), bits).astype(particles.y.dtype)
    # From the left end of each window; what lies beyond the window is dark.
    pixel = jnp.arange(width, dtype=particles.y.dtype) - radius
    factors = _factors(
        particles, rows, columns, scale=scale, pixel=pixel, radius=radius, correlated=correlated
    )
    image = jnp.arange(images, dtype=jnp.int32)[:, None]
    corner = (image * rows.size + rows.start) * columns.size + columns.start
    # An index beyond the canvas drops the window.
    corner = jnp.where(seen, corner, pixels)

    def add(canvas: Array, part: tuple[Array, _Factors]) -> tuple[Array, None]:
        corner, factors = part
        return _add_windows(
            canvas, corner, _values(factors, window=window), stride=columns.size
        ), None

    # Some images at a time or, of images with many particles, some particles of one. Two times at
    # least: XLA would inline a loop of one step, and repeat the factors for every pixel.
    together = max(n for n in range(1, max(images // 2, 1) + 1) if images % n == 0)
    blocks = max(1 if images > 1 else 2, math.ceil(count / block))
    together = together if blocks == 1 else 1
    padding = -count % blocks

    def cut(values: Array, filler: int = 0) -> Array:
        if padding:
            widths = ((0, 0), (0, padding), *((0, 0),) * (values.ndim - 2))
            values = jnp.pad(values, widths, constant_values=filler)
        size = (count + padding) // blocks
        return values.reshape(images * blocks // together, together, size, *values.shape[2:])

    canvas, _ = lax.scan(
        add, jnp.zeros(pixels, jnp.int32), (cut(corner, pixels), jax.tree.map(cut, factors))
    )
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


def _factors(
    particles: Particles,
    rows: _Windows,
    columns: _Windows,
    *,
    scale: Float[Array, "images"],
    pixel: Float[Array, "width"],
    radius: int,
    correlated: bool,
) -> _Factors:
    """Integrate particles over the rows and over the columns of their windows."""
    sigma_y, sigma_x = particles.diameter_y / 2.0, particles.diameter_x / 2.0
    row = _integrate(pixel - rows.centre[..., None], sigma_y)
    column = _integrate(pixel - columns.centre[..., None], sigma_x)
    column = jnp.where(pixel <= radius, column, 0)
    peak = particles.intensity * scale[:, None]
    light = peak * (2.0 * math.pi) * sigma_y * sigma_x
    if not correlated:
        return _Factors(row * light[..., None], column, None, None, None)
    variance_y, variance_x = sigma_y**2 + 1.0 / 12.0, sigma_x**2 + 1.0 / 12.0
    r = particles.rho * sigma_y * sigma_x / jnp.sqrt(variance_y * variance_x)
    size, less = jnp.abs(r), 1.0 - r**2
    light = light * jnp.sqrt((1.0 - particles.rho**2) / less)
    # In standard deviations y and x, and with the square completed so that no exponent grows, the
    # ratio is exp(-|r| (y - sign(r) x)^2 / (2 (1 - r^2)) + |r| (y^2 + x^2) / (2 (1 + |r|))).
    coupling = size / (2.0 * less)
    y, x = pixel - rows.centre[..., None], pixel - columns.centre[..., None]
    alone = size / (2.0 * (1.0 + size))

    def grown(
        distance: Float[Array, "images particles width"],
        variance: Float[Array, "images particles"],
    ) -> Float[Array, "images particles width"]:
        exponent = distance**2 * (alone / variance)[..., None]
        # Beyond, there is no light to be multiplied.
        return jnp.exp(jnp.minimum(exponent, _LARGEST_EXPONENT))

    return _Factors(
        row * grown(y, variance_y) * light[..., None],
        column * grown(x, variance_x),
        y * jnp.sqrt(coupling / variance_y)[..., None],
        x * (jnp.sqrt(coupling / variance_x) * jnp.sign(r))[..., None],
        peak,
    )


def _integrate(
    distance: Float[Array, "images particles width"], sigma: Float[Array, "images particles"]
) -> Float[Array, "images particles width"]:
    """Integrate a normal density over pixels at a distance from its mean."""
    inverse = (math.sqrt(0.5) / sigma)[..., None]
    # Both ends of each pixel, because differences of neighbours are not computed in parallel.
    return 0.5 * (lax.erf((distance + 0.5) * inverse) - lax.erf((distance - 0.5) * inverse))


def _values(factors: _Factors, *, window: int) -> Float[Array, "images particles window width"]:
    """Multiply the factors of every pixel."""
    rows = factors.rows[..., :window, None]
    values = rows * factors.columns[..., None, :]
    if factors.down is None or factors.right is None or factors.most is None:
        return values
    apart = factors.down[..., :window, None] - factors.right[..., None, :]
    # Rounding and the approximation end here: the bound on sums stands on it.
    return jnp.minimum(values * jnp.exp(-(apart**2)), factors.most[..., None, None])


def _add_windows(
    canvas: Int32[Array, "pixels"],
    corner: Int32[Array, "images particles"],
    values: Float[Array, "images particles rows width"],
    *,
    stride: int,
) -> Int32[Array, "pixels"]:
    """Add each window to the flat canvas, one row of it per scatter index."""
    fixed = lax.round(values, lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)
    rows, width = fixed.shape[-2:]
    starts = corner[..., None] + stride * jnp.arange(rows, dtype=jnp.int32)
    return lax.scatter_add(
        canvas,
        starts.reshape(corner.size, rows, 1),
        fixed.reshape(corner.size, rows, width),
        _ROW_UPDATES,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
