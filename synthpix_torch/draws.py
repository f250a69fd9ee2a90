"""Random numbers with the values of `jax.random`, compiled so that they fuse with their use.

On a CPU JAX lowers Threefry to a loop over whole arrays, which no consumer can be fused into.
Written out as plain integer arithmetic, the same numbers cost less than half. Sources:
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011) for the cipher; the layout of
counters and the conversion to floats are those of `jax.random` with `jax_threefry_partitionable`.
"""

import math
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real, UInt32

_ROTATIONS: Final = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY: Final = np.uint32(0x1BD11BDA)

_MIDDLE: Final = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL: Final = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def uniform(
    key: UInt32[Array, "2"],
    *,
    shape: tuple[int, ...],
    minval: float | Real[Array, ""] = 0.0,
    maxval: float | Real[Array, ""] = 1.0,
) -> Float[Array, "..."]:
    """Draw what `jax.random.uniform(key, shape, minval=minval, maxval=maxval)` draws.

    Args:
        key: Raw key, as `jax.random.PRNGKey` makes it.
        shape: Shape of the result.
        minval: Lower end, inclusive.
        maxval: Upper end, exclusive up to rounding.

    Returns:
        Array of JAX's default float type.
    """
    if not _plain_threefry(shape):
        return jax.random.uniform(key, shape, minval=minval, maxval=maxval)
    lower = jnp.asarray(minval, jnp.float32)
    upper = jnp.asarray(maxval, jnp.float32)
    # 23 random bits become the mantissa of a number in [1, 2).
    mantissa = (_bits(key, shape) >> np.uint32(9)) | np.float32(1.0).view(np.uint32)
    unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1.0)
    return jnp.maximum(lower, unit * (upper - lower) + lower)


def normal(key: UInt32[Array, "2"], *, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw what `jax.random.normal(key, shape)` draws.

    Args:
        key: Raw key, as `jax.random.PRNGKey` makes it.
        shape: Shape of the result.

    Returns:
        Standard normal numbers of JAX's default float type.
    """
    if not _plain_threefry(shape):
        return jax.random.normal(key, shape)
    open_end = np.nextafter(np.float32(-1.0), np.float32(0.0))
    symmetric = uniform(key, shape=shape, minval=float(open_end), maxval=1.0)
    return np.float32(math.sqrt(2.0)) * jax.lax.erf_inv(symmetric)


def words(
    key: UInt32[Array, "2"], *, shape: tuple[int, ...]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Draw two independent arrays of 32 random bits at the cost of one `uniform`.

    Threefry encrypts 64 bits at a time, of which `jax.random` uses 32.

    Args:
        key: Raw key.
        shape: Shape of each result.
    """
    if not _plain_threefry(shape):
        first, second = jax.random.bits(key, (2, *shape), jnp.uint32)
        return first, second
    low = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _threefry2x32(key, jnp.zeros_like(low), low)


def as_uniform(
    word: UInt32[Array, "..."],
    *,
    minval: float | Real[Array, "..."] = 0.0,
    maxval: float | Real[Array, "..."] = 1.0,
) -> Float[Array, "..."]:
    """Turn random bits into float32 numbers, uniform from `minval` up to `maxval`."""
    lower = jnp.asarray(minval, jnp.float32)
    unit = (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)
    return lower + unit * (jnp.asarray(maxval, jnp.float32) - lower)


def as_normal(word: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Turn random bits into standard normal float32 numbers."""
    middle = (word >> np.uint32(9)).astype(jnp.float32) + np.float32(0.5)
    symmetric = middle * np.float32(2.0**-22) - np.float32(1.0)
    # Giles, "Approximating the erfinv function" (GPU Computing Gems 2, 2011), single precision.
    w = -jnp.log((np.float32(1.0) - symmetric) * (np.float32(1.0) + symmetric))
    middle, tail = w - np.float32(2.5), jnp.sqrt(w) - np.float32(3.0)
    series = jnp.where(w < 5, _horner(_MIDDLE, middle), _horner(_TAIL, tail))
    return np.float32(math.sqrt(2.0)) * symmetric * series


def _horner(coefficients: tuple[float, ...], x: Float[Array, "..."]) -> Float[Array, "..."]:
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + np.float32(coefficient)
    return value


def _plain_threefry(shape: tuple[int, ...]) -> bool:
    """Tell whether JAX's flags select the generator that is written out here."""
    flags: Any = jax.config
    return bool(
        flags.jax_default_prng_impl == "threefry2x32"
        and flags.jax_threefry_partitionable
        and not flags.jax_enable_x64
        and math.prod(shape) < 2**32
    )


def _bits(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Encrypt the linear index of every element and fold the cipher text into 32 bits."""
    low = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    first, second = _threefry2x32(key, jnp.zeros_like(low), low)
    return first ^ second


def _threefry2x32(
    key: UInt32[Array, "2"], high: UInt32[Array, "..."], low: UInt32[Array, "..."]
) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """Apply the 20 rounds of Threefry-2x32 to the counter (high, low)."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    high, low = high + schedule[0], low + schedule[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            high = high + low
            low = (low << np.uint32(distance)) | (low >> np.uint32(32 - distance))
            low = low ^ high
        high = high + schedule[(group + 1) % 3]
        low = low + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return high, low
