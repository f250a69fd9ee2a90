"""Draw the particles of an image pair."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Real, UInt32

from synthpix_torch.config.config import Config
from synthpix_torch.draws import as_normal, as_uniform, words
from synthpix_torch.render.geometry import Geometry
from synthpix_torch.render.splat import Particles

LARGEST_CHANGE: Final = 3.0
"""Changes from the first image to the second end here, in standard deviations."""

_SMALLEST_DIAMETER: Final = 0.05
_LARGEST_RHO: Final = 0.99


class Drawn(NamedTuple):
    """The parameters of a pair.

    Attributes:
        density: Particles per pixel.
        diameter: Selected range of diameters in pixels.
        intensity: Selected range of intensities in grey levels.
        rho: Selected range of correlation coefficients.
    """

    density: Float[Array, ""]
    diameter: Real[Array, "2"]
    intensity: Real[Array, "2"]
    rho: Real[Array, "2"]


class StageKeys(NamedTuple):
    """Keys of the stages of a pair, all raw."""

    parameters: UInt32[Array, "k"]
    position: UInt32[Array, "k"]
    diameter: UInt32[Array, "k"]
    brightness: UInt32[Array, "k"]
    diameter_change: UInt32[Array, "k"]
    brightness_change: UInt32[Array, "k"]
    hidden: UInt32[Array, "k"]
    noise1: UInt32[Array, "k"]
    noise2: UInt32[Array, "k"]


def stage_keys(key: UInt32[Array, "k"]) -> StageKeys:
    """Split the key of a pair."""
    return StageKeys(*jax.random.split(key, len(StageKeys._fields)))


def window_radius(config: Config) -> int:
    """Return how many pixels the window of a particle reaches to each side of its central pixel.

    4 standard deviations of the largest particle, which is 2 diameters, and 2.6 where changes of
    the diameter can make it larger yet.
    """
    largest = max(high for _, high in config.diameter_ranges)
    changed = largest + LARGEST_CHANGE * math.sqrt(config.diameter_var)
    return max(math.ceil(2.0 * largest), math.ceil(1.3 * changed))


def brightest(config: Config) -> float:
    """Return a bound on the intensity of a particle in grey levels."""
    changed = LARGEST_CHANGE * math.sqrt(config.intensity_var)
    return max(high for _, high in config.intensity_ranges) + changed


def correlated(config: Config) -> bool:
    """Tell whether any particle can be elliptic along a diagonal."""
    return config.rho_var > 0 or any(map(any, config.rho_ranges))


def draw_parameters(key: UInt32[Array, "k"], *, config: Config) -> Drawn:
    """Draw the seeding density of a pair, and select its ranges."""
    density_key, *choices = jax.random.split(key, 4)
    low, high = config.seeding_density_range
    ranges = (config.diameter_ranges, config.intensity_ranges, config.rho_ranges)
    return Drawn(
        as_uniform(words(density_key, shape=())[0], minval=low, maxval=high),
        *(
            jnp.array(choice)[jax.random.randint(key, (), 0, len(choice))]
            for key, choice in zip(choices, ranges, strict=True)
        ),
    )


def draw_particles(
    keys: StageKeys,
    drawn: Drawn,
    *,
    config: Config,
    geometry: Geometry,
    count: int,
    layers: float = 1.0,
) -> tuple[Particles, Particles]:
    """Draw the particles of one pair, uniformly over the seeded area.

    Diameters along x and y have one distribution: the second is the first, changed by at most
    `ellipticity` pixels and reflected at the ends of the range. Changes from the first image to
    the second are normal with the configured variances.

    Args:
        keys: Keys of the stages.
        drawn: Parameters of the pair.
        config: The configuration.
        geometry: The seeded area.
        count: The result of `particle_count`.
        layers: How many times the particles of the configured density are seeded.

    Returns:
        The particles of both images, each `count` of them; the second still at the first positions.
    """
    shape = (count,)
    row, column = words(keys.position, shape=shape)
    y = geometry.seeded_from[0] + as_uniform(row) * geometry.seeded_size[0]
    x = geometry.seeded_from[1] + as_uniform(column) * geometry.seeded_size[1]
    size, shape_bits = words(keys.diameter, shape=shape)
    diameter_x = as_uniform(size, minval=drawn.diameter[0], maxval=drawn.diameter[1])
    diameter_y = diameter_x
    if config.ellipticity:
        difference = as_uniform(shape_bits, minval=-config.ellipticity, maxval=config.ellipticity)
        diameter_y = _reflected(diameter_x + difference, drawn.diameter[0], drawn.diameter[1])
    light, slant = words(keys.brightness, shape=shape)
    intensity = as_uniform(light, minval=drawn.intensity[0], maxval=drawn.intensity[1])
    rho = as_uniform(slant, minval=drawn.rho[0], maxval=drawn.rho[1])
    number = jnp.floor(geometry.seeded_area * layers * drawn.density + 0.5)
    exists = (lax.iota(jnp.int32, count) < number).astype(jnp.float32)
    first = Particles(y, x, diameter_y, diameter_x, rho, intensity * exists)
    second = _changed(first, keys, config=config)
    if config.p_hide_img1 or config.p_hide_img2:
        hide1, hide2 = words(keys.hidden, shape=shape)
        first = _hidden(first, hide1, probability=config.p_hide_img1)
        second = _hidden(second, hide2, probability=config.p_hide_img2)
    return first, second


def _changed(first: Particles, keys: StageKeys, *, config: Config) -> Particles:
    """Return the particles as they look in the second image."""
    second = first
    if config.diameter_var:
        down, right = words(keys.diameter_change, shape=first.y.shape)
        second = second._replace(
            diameter_y=_positive(first.diameter_y + _change(down, config.diameter_var)),
            diameter_x=_positive(first.diameter_x + _change(right, config.diameter_var)),
        )
    if config.intensity_var or config.rho_var:
        light, slant = words(keys.brightness_change, shape=first.y.shape)
        if config.intensity_var:
            changed = jnp.abs(first.intensity + _change(light, config.intensity_var))
            second = second._replace(intensity=jnp.where(first.intensity > 0, changed, 0))
        if config.rho_var:
            bound = max(_LARGEST_RHO, *(abs(end) for pair in config.rho_ranges for end in pair))
            changed = first.rho + _change(slant, config.rho_var)
            second = second._replace(rho=_reflected(changed, -bound, bound))
    return second


def _change(word: UInt32[Array, "n"], variance: float) -> Float[Array, "n"]:
    return jnp.clip(as_normal(word), -LARGEST_CHANGE, LARGEST_CHANGE) * math.sqrt(variance)


def _positive(diameter: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.maximum(jnp.abs(diameter), _SMALLEST_DIAMETER)


def _reflected(
    value: Float[Array, "n"], low: float | Real[Array, ""], high: float | Real[Array, ""]
) -> Float[Array, "n"]:
    """Fold values into a range; what is uniform within it stays so under symmetric changes."""
    width = jnp.asarray(high - low, jnp.float32)
    period = jnp.where(width > 0, 2 * width, 1.0)
    place = (value - low) / period
    place = (place - jnp.floor(place)) * period
    return jnp.where(width > 0, low + width - jnp.abs(place - width), low)


def _hidden(particles: Particles, word: UInt32[Array, "n"], *, probability: float) -> Particles:
    """Hide each particle with a probability."""
    if not probability:
        return particles
    return particles._replace(intensity=particles.intensity * (as_uniform(word) >= probability))


def particle_count(config: Config, geometry: Geometry, *, layers: float = 1.0) -> int:
    """Return the largest number of particles of a pair.

    At least one, for loops that cannot be empty; beyond the density it is invisible.
    """
    area = geometry.seeded_area * layers
    return max(1, math.floor(area * config.seeding_density_range[1] + 0.5))
