"""Kinematic flow fields generated on the device with JAX."""

from __future__ import annotations

import math
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from synthpix_torch.data.kinematic.settings import DOMAIN, NARROWEST, REACH, KinematicSettings
from synthpix_torch.draws import normal, uniform

DEVICE_BYTES: Final = 64 * 2**20
"""Memory for the noise and the filters of the fields that are generated at once."""


def kinematic_fields(
    records: Int[Array, "fields"], settings: KinematicSettings
) -> Float[Array, "fields height width 2"]:
    """Generate kinematic fields; field i depends on the settings and `records[i]` alone.

    They have the distribution of `KinematicFields` and not its values: the random numbers are
    JAX's. To be called under `jax.jit`, with the settings as constants.

    Args:
        records: Number of each record, taken modulo 2^32.
        settings: The distribution of the fields.

    Returns:
        Velocities (x, y) in length units per second, float32.
    """
    base = jax.random.fold_in(jax.random.PRNGKey(DOMAIN), np.uint32(settings.seed))
    (height, width), (step_y, step_x) = settings.shape, settings.spacing
    down = _nodes(height, step=step_y, settings=settings)
    across = _nodes(width, step=step_x, settings=settings)

    def generate(record: Int[Array, ""]) -> Float[Array, "height width 2"]:
        key = jax.random.fold_in(base, record.astype(jnp.uint32))
        return _field(key, nodes=(down, across), settings=settings)

    # Noise, noise smoothed along x in two layouts, the field before and after scaling, filters.
    numbers = 2 * down * (across + 2 * width) + 4 * height * width + height * down + width * across
    at_once = max(1, min(records.shape[0], DEVICE_BYTES // (4 * numbers)))
    fields: Array = lax.map(generate, records, batch_size=at_once)
    return fields


def _nodes(size: int, *, step: float, settings: KinematicSettings) -> int:
    """Return the number of nodes of the noise that the narrowest filter needs along an axis."""
    pitch = max(settings.filter_sigma_range[0], step)
    return math.floor((size - 1) * step / pitch) + 2 * REACH


def _field(
    key: UInt32[Array, "2"], *, nodes: tuple[int, int], settings: KinematicSettings
) -> Float[Array, "height width 2"]:
    """Generate a field from its key."""
    key_sigma, key_factor, key_noise = jax.random.split(key, 3)
    low, high = settings.filter_sigma_range
    sigma = uniform(key_sigma, shape=(), minval=low, maxval=high)
    low, high = settings.scale_factor_range
    factor = uniform(key_factor, shape=(), minval=low, maxval=high)

    (height, width), (step_y, step_x) = settings.shape, settings.spacing
    down, gain_down = smoothing(height, nodes[0], step=step_y, sigma=sigma)
    across, gain_across = smoothing(width, nodes[1], step=step_x, sigma=sigma)
    noise = normal(key_noise, shape=(nodes[1], 2 * nodes[0]))
    # Some GPUs would otherwise multiply with 10 bits of mantissa.
    exact = lax.Precision.HIGHEST
    columns = jnp.matmul(across, noise, precision=exact).reshape(width, nodes[0], 2)
    rows = jnp.swapaxes(columns, 0, 1).reshape(nodes[0], 2 * width)
    field = jnp.matmul(down, rows, precision=exact).reshape(height, width, 2)
    if settings.scale_mode == "peak":
        factor = factor / jnp.sqrt(jnp.max(field[..., 0] ** 2 + field[..., 1] ** 2))
    else:
        factor = factor * gain_down * gain_across / math.sqrt(3)
    return field * (factor * settings.pixel_velocity)


def smoothing(
    size: int, nodes: int, *, step: float, sigma: Float[Array, ""]
) -> tuple[Float[Array, "size nodes"], Float[Array, ""]]:
    """Write the Gaussian between the samples of an axis and the nodes of its noise as a matrix.

    The matrix of the host with all nodes; those beyond the host's contribute less than 1e-5.
    Wide filters need only the first nodes, the others lie outside the field.
    """
    pitch = jnp.maximum(sigma, step)
    sigma = jnp.maximum(sigma, NARROWEST * pitch)
    distance = (jnp.arange(nodes) - (REACH - 1)) * pitch - (jnp.arange(size) * step)[:, None]
    total = jnp.sum(jnp.exp(-0.5 * (jnp.arange(-REACH, REACH + 1) * pitch / sigma) ** 2))
    return jnp.exp(-0.5 * (distance / sigma) ** 2), 1 / (jnp.sqrt(pitch) * total)
