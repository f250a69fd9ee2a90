"""Light sheet of finite thickness, through which particles move.

Particles are seeded in a slab that holds every particle which is lit in either image. The light of
a particle depends on its depth z in each image, so the loss and gain of particles by out-of-plane
motion, and with it the loss of correlation, need no model of their own. The sheet is centred at
z = 0 and viewed by parallel projection: depth changes neither position nor diameter.

Sources: Keane and Adrian, "Theory of cross-correlation analysis of PIV images" (Appl. Sci. Res. 49,
1992); Raffel et al., "Particle Image Velocimetry: A Practical Guide" (Springer), mathematical
background of statistical evaluation.
"""

import math
from typing import Final, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from synthpix_torch.draws import uniform

Profile = Literal["top-hat", "gaussian"]

_GAUSSIAN_REACH: Final = 1.0
"""Half depth of the seeded Gaussian sheet in thicknesses: 4 standard deviations, exp(-8) = 3e-4."""


class LightSheet(NamedTuple):
    """A light sheet and the out-of-plane motion through it; depths in length units.

    Attributes:
        profile: "top-hat" is uniform inside the thickness and dark outside, "gaussian" is
            exp(-8 z**2 / thickness**2).
        thickness: Full thickness of a top-hat; of a Gaussian the full width at exp(-2).
        displacement: Constant displacement along z between the images.
        slowest: Least displacement along z of any particle, `displacement` included.
        fastest: Largest displacement along z of any particle, `displacement` included.
    """

    profile: Profile
    thickness: float
    displacement: float = 0.0
    slowest: float = 0.0
    fastest: float = 0.0

    @property
    def slab(self) -> tuple[float, float]:
        """Lowest and highest depth in the first image at which a particle may be seen in either."""
        reach = self.thickness * (0.5 if self.profile == "top-hat" else _GAUSSIAN_REACH)
        return -reach - max(0.0, self.fastest), reach - min(0.0, self.slowest)

    @property
    def slab_thicknesses(self) -> float:
        """Depth of the slab in thicknesses of the sheet.

        The seeding density counts the particles in one thickness, so the slab holds this many
        times as many particles.
        """
        low, high = self.slab
        return (high - low) / self.thickness


def seed_depths(
    key: UInt32[Array, "k"], *, sheet: LightSheet, count: int
) -> Float[Array, "particles"]:
    """Draw depths in the first image, uniform over the slab, in length units."""
    low, high = sheet.slab
    return uniform(key, shape=(count,), minval=low, maxval=high)


def illumination(z: Float[Array, "*shape"], *, sheet: LightSheet) -> Float[Array, "*shape"]:
    """Return the light at depth z relative to that at the centre of the sheet, from 0 to 1."""
    relative = z / sheet.thickness
    if sheet.profile == "top-hat":
        return (jnp.abs(relative) <= 0.5).astype(z.dtype)
    return jnp.exp(-8.0 * relative**2)


def correlation_factor(displacement: float, *, sheet: LightSheet) -> float:
    """Return F_O, the share of the correlation that out-of-plane motion leaves.

    F_O is the normalised autocorrelation of the profile I0 at the displacement: the integral of
    I0(z) I0(z + d) over that of I0(z)**2.

    Args:
        displacement: The common displacement d of all particles along z in length units.
        sheet: The sheet; its own displacements are not used.

    Returns:
        1 - |d| / thickness, at least 0, for a top-hat; exp(-4 d**2 / thickness**2) for a Gaussian.
    """
    relative = abs(displacement) / sheet.thickness
    if sheet.profile == "top-hat":
        return max(0.0, 1.0 - relative)
    return math.exp(-4.0 * relative**2)
