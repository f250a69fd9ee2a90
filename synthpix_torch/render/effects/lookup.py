"""Values of maps in image coordinates at the positions of particles."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def at_nearest_pixel(
    image: Shaped[Array, "height width"], y: Float[Array, "*shape"], x: Float[Array, "*shape"]
) -> Shaped[Array, "*shape"]:
    """Read a map at the pixel that each position lies in.

    Args:
        image: One value per pixel of the images.
        y: Row in pixels; pixel i extends from i - 0.5 to i + 0.5.
        x: Column in pixels.

    Returns:
        The values. Beyond the border the nearest pixel of the border counts.
    """
    height, width = image.shape
    row = jnp.clip(jnp.round(y), 0, height - 1).astype(jnp.int32)
    column = jnp.clip(jnp.round(x), 0, width - 1).astype(jnp.int32)
    return image.at[row, column].get(mode="promise_in_bounds")
