"""Kinematic flow fields generated on the device with JAX.

A sample is a sum over the 2 * REACH nodes of the noise around it, along each axis. A CPU multiplies
with matrices that hold these weights and zeros, which its libraries do fast. On a GPU the sums are
written out: with 10 of some 70 nodes they need a seventh of the work, and no library or compiler
chooses the order of their terms by time.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, UInt32

from synthpix_torch.data.kinematic.settings import DOMAIN, NARROWEST, REACH, KinematicSettings
from synthpix_torch.draws import normal, uniform

CPU_BYTES: Final = 64 * 2**20
"""Memory for the noise, the filters and the samples of the fields that are generated at once."""

GPU_BYTES: Final = 256 * 2**20
"""The same on a GPU, which needs many fields at once to be busy."""

Smooth = Callable[[Float[Array, "nodes_across twice_nodes_down"], Array], Array]


def kinematic_fields(
    numbers: UInt32[Array, "2 fields"], settings: KinematicSettings
) -> Float[Array, "fields height width 2"]:
    """Generate kinematic fields; field i depends on the settings and `numbers[:, i]` alone.

    They have the distribution of `KinematicFields` and not its values: the random numbers are
    JAX's. To be called under `jax.jit`, with the settings as constants.

    Args:
        numbers: Seed of the data set and number of the record, for each field.
        settings: The distribution of the fields; their seed is not used, so that one program serves
            all seeds.

    Returns:
        Velocities (x, y) in length units per second, float32.
    """
    fields: Array = lax.platform_dependent(
        numbers,
        cpu=partial(fields_by_products, settings=settings),
        default=partial(fields_by_sums, settings=settings),
    )
    return fields


def fields_by_products(
    numbers: UInt32[Array, "2 fields"], settings: KinematicSettings
) -> Float[Array, "fields height width 2"]:
    """Generate kinematic fields with matrix products."""
    (height, width), (step_y, step_x) = settings.shape, settings.spacing
    nodes = down, across = _nodes(settings)

    def smooth(noise: Array, sigma: Array) -> Array:
        vertical = smoothing(height, down, step=step_y, sigma=sigma)
        horizontal = smoothing(width, across, step=step_x, sigma=sigma)
        # Some devices would otherwise multiply with 10 bits of mantissa.
        exact = lax.Precision.HIGHEST
        columns = jnp.matmul(horizontal, noise, precision=exact).reshape(width, down, 2)
        rows = jnp.swapaxes(columns, 0, 1).reshape(down, 2 * width)
        field: Array = jnp.matmul(vertical, rows, precision=exact).reshape(height, width, 2)
        return field

    # Noise, noise smoothed along x in two layouts, the field before and after scaling, filters.
    values = 2 * down * (across + 2 * width) + 4 * height * width + height * down + width * across
    at_once = max(1, min(numbers.shape[1], CPU_BYTES // (4 * values)))
    generate = partial(_field, nodes=nodes, settings=settings, smooth=smooth)
    fields: Array = lax.map(generate, numbers.T, batch_size=at_once)
    return fields


def fields_by_sums(
    numbers: UInt32[Array, "2 fields"], settings: KinematicSettings
) -> Float[Array, "fields height width 2"]:
    """Generate kinematic fields with a sum over the nodes around each sample."""
    (height, width), (step_y, step_x) = settings.shape, settings.spacing
    nodes = down, across = _nodes(settings)

    def smooth(noise: Array, sigma: Array) -> Array:
        # A kernel that sums would otherwise draw the noise again for each of its terms.
        noise = lax.optimization_barrier(noise.reshape(across, down, 2).swapaxes(0, 1))
        rows = _sum(noise, *taps(width, step=step_x, sigma=sigma), axis=1)
        return _sum(lax.optimization_barrier(rows), *taps(height, step=step_y, sigma=sigma), axis=0)

    # Noise, and noise smoothed along x; XLA keeps the field before scaling in the result.
    values = 2 * down * (across + width)
    most = max(1, GPU_BYTES // (4 * values))
    count = numbers.shape[1]
    # Groups of the same size: a smaller last one would be compiled again.
    groups = next(n for n in range(1, count + 1) if count % n == 0 and count // n <= most)
    generate = jax.vmap(partial(_field, nodes=nodes, settings=settings, smooth=smooth))
    fields: Array = lax.map(generate, numbers.T.reshape(groups, count // groups, 2))
    return fields.reshape(count, *fields.shape[2:])


def _nodes(settings: KinematicSettings) -> tuple[int, int]:
    """Return the nodes of the noise that the narrowest filter needs along each axis."""
    least = settings.filter_sigma_range[0]
    down, across = (
        math.floor((size - 1) * step / max(least, step)) + 2 * REACH
        for size, step in zip(settings.shape, settings.spacing, strict=True)
    )
    return down, across


def _field(
    number: UInt32[Array, "2"],
    *,
    nodes: tuple[int, int],
    settings: KinematicSettings,
    smooth: Smooth,
) -> Float[Array, "height width 2"]:
    """Generate a field from the seed and its number."""
    base = jax.random.fold_in(jax.random.PRNGKey(DOMAIN), number[0])
    key: UInt32[Array, "2"] = jax.random.fold_in(base, number[1])
    key_sigma, key_factor, key_noise = jax.random.split(key, 3)
    low, high = settings.filter_sigma_range
    sigma = uniform(key_sigma, shape=(), minval=low, maxval=high)
    low, high = settings.scale_factor_range
    factor = uniform(key_factor, shape=(), minval=low, maxval=high)
    field = smooth(normal(key_noise, shape=(nodes[1], 2 * nodes[0])), sigma)
    if settings.scale_mode == "peak":
        factor = factor / jnp.sqrt(jnp.max(field[..., 0] ** 2 + field[..., 1] ** 2))
    else:
        down, across = (gain(step=step, sigma=sigma) for step in settings.spacing)
        factor = factor * down * across / math.sqrt(3)
    return field * (factor * settings.pixel_velocity)


def smoothing(
    size: int, nodes: int, *, step: float, sigma: Float[Array, ""]
) -> Float[Array, "size nodes"]:
    """Write the Gaussian between the samples of an axis and the nodes of its noise as a matrix.

    The matrix of the host with all nodes; those beyond the host's contribute less than 1e-5.
    Wide filters need only the first nodes, the others lie outside the field.
    """
    pitch, sigma = _widths(step, sigma)
    distance = (jnp.arange(nodes) - (REACH - 1)) * pitch - (jnp.arange(size) * step)[:, None]
    return jnp.exp(-0.5 * (distance / sigma) ** 2)


def taps(
    size: int, *, step: float, sigma: Float[Array, ""]
) -> tuple[Int32[Array, "size"], Float[Array, "size taps"]]:
    """Return the first node of each sample of an axis, and the weights of this and the next."""
    pitch, sigma = _widths(step, sigma)
    positions = jnp.arange(size) * step
    first = jnp.floor(positions / pitch).astype(jnp.int32)
    nodes = first[:, None] + jnp.arange(2 * REACH) - (REACH - 1)
    return first, jnp.exp(-0.5 * ((nodes * pitch - positions[:, None]) / sigma) ** 2)


def gain(*, step: float, sigma: Float[Array, ""]) -> Float[Array, ""]:
    """Return the factor of smoothed normal noise of unit variance per node, as on the host."""
    pitch, sigma = _widths(step, sigma)
    total = jnp.sum(jnp.exp(-0.5 * (jnp.arange(-REACH, REACH + 1) * pitch / sigma) ** 2))
    return 1 / (jnp.sqrt(pitch) * total)


def _widths(step: float, sigma: Float[Array, ""]) -> tuple[Array, Array]:
    """Return the distance of the nodes, and sigma, which is bounded by it."""
    pitch = jnp.maximum(sigma, step)
    return pitch, jnp.maximum(sigma, NARROWEST * pitch)


def _sum(values: Array, first: Array, weights: Array, *, axis: int) -> Array:
    """Sum weighted values from the first node of each sample on, along an axis."""
    shape = [1] * values.ndim
    shape[axis] = -1
    terms = (
        jnp.take(values, first + tap, axis=axis, mode="clip") * weights[:, tap].reshape(shape)
        for tap in range(weights.shape[1])
    )
    return reduce(operator.add, terms)
