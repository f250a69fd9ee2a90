"""The effects at the stages of a renderer: seeding, light and camera."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from synthpix_torch.render.effects.body import outside
from synthpix_torch.render.effects.domains import Domain, effect_key
from synthpix_torch.render.effects.light_sheet import illumination, seed_depths
from synthpix_torch.render.effects.plan import Effects
from synthpix_torch.render.effects.seeding import accept
from synthpix_torch.render.effects.sensor import expose, quantise


class Seeds(NamedTuple):
    """Draws of the effects for each particle of a pair; None where no effect needs them.

    Attributes:
        depth: Depth in the first image in length units, 0 at the centre of the light sheet.
        exists: 0.0 where the seeding removes the particle, else 1.0.
    """

    depth: Float[Array, "*particles"] | None
    exists: Float[Array, "*particles"] | None


def seed(
    pair_key: UInt32[Array, "k"],
    y: Float[Array, "particles"],
    x: Float[Array, "particles"],
    *,
    effects: Effects,
) -> Seeds:
    """Draw depths and thin the particles of one pair.

    Args:
        pair_key: Raw key of the pair.
        y: Rows in the first image, in pixels from the centre of its first pixel.
        x: Columns, likewise.
        effects: The effects.
    """
    depth = exists = None
    if effects.sheet is not None:
        key = effect_key(pair_key, Domain.DEPTH)
        depth = seed_depths(key, sheet=effects.sheet, count=y.shape[0])
    if effects.density is not None:
        key = effect_key(pair_key, Domain.SEEDING)
        exists = accept(key, y, x, density=jnp.asarray(effects.density)).astype(y.dtype)
    if effects.body is not None:
        fluid = outside(y, x, body=jnp.asarray(effects.body)).astype(y.dtype)
        exists = fluid if exists is None else exists * fluid
    return Seeds(depth, exists)


def light_first(
    intensity: Float[Array, "*particles"], seeds: Seeds, *, effects: Effects
) -> Float[Array, "*particles"]:
    """Return the intensities in the first image."""
    return _lit(intensity, seeds.depth, seeds.exists, effects=effects)


def light_second(
    intensity: Float[Array, "*particles"],
    seeds: Seeds,
    *,
    y: Float[Array, "*particles"],
    x: Float[Array, "*particles"],
    rise: Float[Array, "*particles"] | float,
    effects: Effects,
) -> Float[Array, "*particles"]:
    """Return the intensities in the second image.

    Args:
        intensity: Grey levels at the centre of each particle.
        seeds: What `seed` drew.
        y: Rows in the second image, in pixels from the centre of its first pixel.
        x: Columns, likewise.
        rise: Displacement along z by the flow in length units.
        effects: The effects.
    """
    if effects.body is not None:
        intensity = intensity * outside(y, x, body=jnp.asarray(effects.body))
    depth = seeds.depth
    if effects.sheet is not None and depth is not None:
        depth = depth + (rise + effects.sheet.displacement)
    return _lit(intensity, depth, seeds.exists, effects=effects)


def capture(
    pair_key: UInt32[Array, "k"],
    light: Float[Array, "height width"],
    *,
    image: int,
    effects: Effects,
) -> Float[Array, "height width"]:
    """Add the background, then shot noise and gain.

    Args:
        pair_key: Raw key of the pair.
        light: Grey levels of the particles.
        image: 0 for the first image, 1 for the second.
        effects: The effects.

    Returns:
        Grey levels, neither clipped nor quantised.
    """
    if effects.background is not None:
        light = light + jnp.asarray(effects.background)
    if effects.sensor is not None:
        key = effect_key(pair_key, Domain.SHOT_NOISE, image)
        light = expose(key, light, sensor=effects.sensor)
    return light


def digitise(levels: Float[Array, "*shape"], *, effects: Effects) -> Float[Array, "*shape"]:
    """Clip grey levels to 0 to 255, and round them if the camera has a bit depth."""
    if effects.sensor is None:
        return jnp.clip(levels, 0, 255)
    return quantise(levels, sensor=effects.sensor)


def _lit(
    intensity: Float[Array, "*particles"],
    depth: Float[Array, "*particles"] | None,
    exists: Float[Array, "*particles"] | None,
    *,
    effects: Effects,
) -> Float[Array, "*particles"]:
    if effects.sheet is not None and depth is not None:
        intensity = intensity * illumination(depth, sheet=effects.sheet)
    return intensity if exists is None else intensity * exists
