"""Integrate Gaussian particles over the pixels of their windows.

A pixel receives the mean of the particle over its area. Where rho is 0 that is a product of
differences of error functions. Else this product is multiplied by the coupling of the Gaussian that
has the second moments of the integrated particle, those of the particle plus 1/12 along each axis:
the ratio of its density to that without correlation, at the centre of the pixel.
docs/performance.md compares this with quadrature.
"""

import math
from typing import Final, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LARGEST_EXPONENT: Final = 10.0


class Coupling(NamedTuple):
    """Coefficients of the factor that couples y and x.

    Attributes:
        growth_y: Factor of the squared distance along y in the exponent of an axis.
        growth_x: The same along x.
        slope_y: Factor of the distance along y in the exponent that both axes share.
        slope_x: The same along x, with the sign of the correlation.
    """

    growth_y: Float[Array, "*windows"]
    growth_x: Float[Array, "*windows"]
    slope_y: Float[Array, "*windows"]
    slope_x: Float[Array, "*windows"]


class Shape(NamedTuple):
    """The numbers of a particle that are the same for all pixels of its window.

    Attributes:
        sigma_y: Standard deviation along y in pixels.
        sigma_x: The same along x.
        light: Factor of the values of all pixels.
        coupling: None without correlation.
    """

    sigma_y: Float[Array, "*windows"]
    sigma_x: Float[Array, "*windows"]
    light: Float[Array, "*windows"]
    coupling: Coupling | None


class Factors(NamedTuple):
    """Factors of the windows, a number for each row, or column, of each particle's window.

    Pixel (i, j) receives rows[i] * columns[j], and with correlated particles this times
    exp(-(down[i] - right[j])^2), at most `most`.
    """

    rows: Float[Array, "*windows width"]
    columns: Float[Array, "*windows width"]
    down: Float[Array, "*windows width"] | None
    right: Float[Array, "*windows width"] | None
    most: Float[Array, "*windows"] | None


def shape_of(
    diameters: tuple[Float[Array, "*windows"], Float[Array, "*windows"]],
    *,
    rho: Float[Array, "*windows"] | None,
    peak: Float[Array, "*windows"],
) -> Shape:
    """Compute the numbers that are the same for all pixels of a window.

    Args:
        diameters: Two standard deviations along y and along x, in pixels.
        rho: Correlation; None where it is 0.
        peak: Intensity at the centre, in any unit.
    """
    sigma_y, sigma_x = diameters[0] / 2.0, diameters[1] / 2.0
    light = peak * (2.0 * math.pi) * sigma_y * sigma_x
    if rho is None:
        return Shape(sigma_y, sigma_x, light, None)
    variance_y, variance_x = sigma_y**2 + 1.0 / 12.0, sigma_x**2 + 1.0 / 12.0
    r = rho * sigma_y * sigma_x / jnp.sqrt(variance_y * variance_x)
    size, less = jnp.abs(r), 1.0 - r**2
    light = light * jnp.sqrt((1.0 - rho**2) / less)
    # In standard deviations y and x, and with the square completed so that no exponent grows, the
    # ratio is exp(-|r| (y - sign(r) x)^2 / (2 (1 - r^2)) + |r| (y^2 + x^2) / (2 (1 + |r|))).
    both = size / (2.0 * less)
    alone = size / (2.0 * (1.0 + size))
    slope_y, slope_x = jnp.sqrt(both / variance_y), jnp.sqrt(both / variance_x)
    coupling = Coupling(alone / variance_y, alone / variance_x, slope_y, slope_x * jnp.sign(r))
    return Shape(sigma_y, sigma_x, light, coupling)


def factors_of(
    centre: tuple[Float[Array, "*windows"], Float[Array, "*windows"]],
    shape: Shape,
    *,
    peak: Float[Array, "*windows"],
    radius: int,
    width: int,
) -> Factors:
    """Integrate particles over the rows and over the columns of their windows.

    Args:
        centre: Distance of each particle from the centre of its window, along y and along x.
        shape: Its light is in the unit of the result.
        peak: Intensity at the centre, in the unit of the result.
        radius: A window reaches this many pixels to each side of the central pixel.
        width: Columns of a window, of which those beyond its end are dark.
    """
    pixel = jnp.arange(width, dtype=peak.dtype) - radius
    y, x = pixel[: 2 * radius + 1] - centre[0][..., None], pixel - centre[1][..., None]
    row, column = _integrate(y, shape.sigma_y), _integrate(x, shape.sigma_x)
    column = jnp.where(pixel <= radius, column, 0)
    light = shape.light[..., None]
    if shape.coupling is None:
        return Factors(row * light, column, None, None, None)
    growth_y, growth_x, slope_y, slope_x = shape.coupling
    return Factors(
        row * _grown(y, growth_y) * light,
        column * _grown(x, growth_x),
        y * slope_y[..., None],
        x * slope_x[..., None],
        peak,
    )


def values_of(
    factors: Factors, apart: Float[Array, "*windows window width"] | None
) -> Float[Array, "*windows window width"]:
    """Multiply the factors of every pixel.

    Args:
        factors: Their `down` and `right` are not used.
        apart: down[i] - right[j] of every pixel; None without correlation.
    """
    values = factors.rows[..., None] * factors.columns[..., None, :]
    if apart is None or factors.most is None:
        return values
    # Rounding and the approximation end here: the bound on sums stands on it.
    return jnp.minimum(values * jnp.exp(-(apart**2)), factors.most[..., None, None])


def _integrate(
    distance: Float[Array, "*windows width"], sigma: Float[Array, "*windows"]
) -> Float[Array, "*windows width"]:
    """Integrate a normal density over pixels at a distance from its mean."""
    inverse = (math.sqrt(0.5) / sigma)[..., None]
    # Both ends of each pixel, because differences of neighbours are not computed in parallel.
    return 0.5 * (lax.erf((distance + 0.5) * inverse) - lax.erf((distance - 0.5) * inverse))


def _grown(
    distance: Float[Array, "*windows width"], growth: Float[Array, "*windows"]
) -> Float[Array, "*windows width"]:
    """Compute the part of the coupling that depends on one axis."""
    # Beyond, there is no light to be multiplied.
    return jnp.exp(jnp.minimum(distance**2 * growth[..., None], _LARGEST_EXPONENT))
