"""Match the histogram of an image to another."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def match_histogram(
    image: Float[Array, "height width"], counts: Float[Array, "256"]
) -> Float[Array, "height width"]:
    """Replace grey levels so that their distribution becomes that of a template.

    Levels are matched by their mid-ranks, the share of darker pixels plus half the share of equal
    ones: with the full share of equal ones, a large dark background would become as bright as
    the brightest of the pixels that the template has in its place.

    Args:
        image: Grey levels from 0 to 255; rounded down to whole levels.
        counts: Pixels of each grey level in the template.

    Returns:
        Whole grey levels.
    """
    level = jnp.clip(image.astype(jnp.int32), 0, 255)
    pixels = jnp.zeros(256, jnp.int32).at[level].add(1)
    rank = (jnp.cumsum(pixels) - pixels / 2) / image.size
    cumulative = jnp.cumsum(counts.astype(jnp.float32))
    reached = cumulative / cumulative[-1] < rank[:, None]
    new = jnp.minimum(jnp.sum(reached, axis=1), 255).astype(image.dtype)
    return new[level]
