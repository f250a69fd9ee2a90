"""Digital camera: from light to grey levels.

The linear model of EMVA Standard 1288 (release 4.0, section 2). Light is given in grey levels at a
gain of 1, so that images with and without a sensor have one unit; 255 is always full scale. With
light E, k = electrons_per_grey_level and gain g

    y = g * Poisson(k * E) / k + dark offset + read noise,    clipped to 0..255, then quantised

of mean g * E + dark offset and variance g**2 * E / k + read noise**2 + q**2 / 12, where
q = 255 / (2**bit_depth - 1) is the distance of the levels. Dark offset and read noise are
`noise_gaussian_mean` and `noise_gaussian_std`, which are not part of this module.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from synthpix_torch.render.effects.poisson import poisson


class Sensor(NamedTuple):
    """A camera; the defaults change nothing.

    Attributes:
        electrons_per_grey_level: Photo-electrons per grey level of light; 0 for no shot noise.
        gain: Factor from light to output grey levels.
        bit_depth: Bits of the analogue-to-digital converter; 0 for no quantisation.
    """

    electrons_per_grey_level: float = 0.0
    gain: float = 1.0
    bit_depth: int = 0


def expose(
    key: UInt32[Array, "k"], light: Float[Array, "height width"], *, sensor: Sensor
) -> Float[Array, "height width"]:
    """Add shot noise and amplify.

    Args:
        key: Raw key of this image.
        light: Grey levels of at least 0, not clipped.
        sensor: The camera.

    Returns:
        Grey levels of at least 0, not clipped.
    """
    per_level = sensor.electrons_per_grey_level
    if per_level:
        light = poisson(key, light * per_level) / per_level
    return light * sensor.gain if sensor.gain != 1.0 else light


def quantise(levels: Float[Array, "*shape"], *, sensor: Sensor) -> Float[Array, "*shape"]:
    """Round to the nearest level of the converter and saturate.

    Args:
        levels: Grey levels.
        sensor: The camera.

    Returns:
        Grey levels on the scale from 0 to 255: multiples of 255 / (2**bit_depth - 1), whole numbers
        for 8 bit. Without a bit depth only clipped.
    """
    clipped = jnp.clip(levels, 0, 255)
    if not sensor.bit_depth:
        return clipped
    steps = float(2**sensor.bit_depth - 1)
    return jnp.round(clipped * (steps / 255.0)) * (255.0 / steps)
