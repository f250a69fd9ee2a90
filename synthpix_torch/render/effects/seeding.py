"""Inhomogeneous seeding: fewer particles where a density image is darker."""

from jaxtyping import Array, Bool, Float, UInt32

from synthpix_torch.draws import uniform
from synthpix_torch.render.effects.lookup import at_nearest_pixel


def accept(
    key: UInt32[Array, "k"],
    y: Float[Array, "particles"],
    x: Float[Array, "particles"],
    *,
    density: Float[Array, "height width"],
) -> Bool[Array, "particles"]:
    """Select the particles that exist, each with the probability of its pixel.

    This is independent thinning: particles seeded uniformly with a mean of N per pixel leave a mean
    of N * density per pixel, independently from pixel to pixel (Lewis and Shedler, Nav. Res.
    Logist. Q. 26, 1979).

    Args:
        key: Raw key.
        y: Rows in the first image, in pixels from the centre of its first pixel.
        x: Columns, likewise.
        density: Share of the configured seeding density, from 0 to 1; continued beyond its border.

    Returns:
        Whether each particle exists, in both images.
    """
    return uniform(key, shape=y.shape) < at_nearest_pixel(density, y, x)
