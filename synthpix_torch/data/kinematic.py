"""Kinematic flow fields at a cost that does not grow with the width of their filter.

A field is uniform noise, smoothed by a Gaussian and scaled (Manickathan, Mucignat & Lunati, Meas.
Sci. Technol. 33, 124006, 2022, section 2.2). The filter is scipy's: kernel cut at 4 sigma,
normalised, and `reflect` at the border, which extends a signal of n samples to one of period 2n,
symmetric about its ends. The DCT-II diagonalises every symmetric filter under that extension
(Martucci, IEEE Trans. Signal Process. 42, 1038, 1994): `KinematicFields` multiplies spectra on the
host, with synthpix's random numbers. `kinematic_fields` draws its own on the device and applies the
filter as two matrix products.
"""

import math
from typing import Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import scipy.fft
from jax import lax
from jaxtyping import Array, Float, Int, UInt32
from synthpix.data_sources.kinematic import KinematicDataSource

from synthpix_torch.draws import uniform

TRUNCATE: Final = 4.0
"""scipy's default: the kernel ends at this many sigma."""

DEVICE_BYTES: Final = 64 * 2**20
"""Memory for the noise and the filters of the fields that are made at once on the device."""


class KinematicFields(KinematicDataSource):  # type: ignore[misc]
    """synthpix's kinematic data source with the filter applied in the DCT domain.

    Record i holds synthpix's field of the same arguments and the same i, to float32 rounding. Safe
    to read from several threads: records share no state, and numpy and scipy release the GIL for
    most of the work, each call staying on its own thread.
    """

    def __repr__(self) -> str:
        """Represent every parameter, and that the fields are not synthpix's bits."""
        theirs: str = super().__repr__()
        return theirs.replace("KinematicDataSource", type(self).__name__, 1)

    def _generate_flow_field(self, record_key: int) -> npt.NDArray[np.float32]:
        """Make the field of a record; overrides synthpix's generation.

        Args:
            record_key: Index of the record.

        Returns:
            Displacements (x, y) in pixels, shape (height, width, 2).
        """
        rng = np.random.default_rng((self._seed, record_key))
        sigma = rng.uniform(*self._filter_sigma_range)
        factor = rng.uniform(*self._scale_factor_range)
        noise = rng.uniform(-1.0, 1.0, size=(*self._image_shape, 2))
        # Contiguous components make the transforms 1.7 times faster at 256 pixels.
        field = smooth(np.ascontiguousarray(np.moveaxis(noise, -1, 0)), sigma=sigma)
        if self._scale_mode == "peak":
            peak = math.sqrt(np.max(field[0] ** 2 + field[1] ** 2))
            factor = factor / peak if peak > 0.0 else 0.0
        field *= factor
        flow = np.empty((*self._image_shape, 2), np.float32)
        flow[...] = np.moveaxis(field, 0, -1)
        return flow


def smooth(components: npt.NDArray[np.float64], *, sigma: float) -> npt.NDArray[np.float64]:
    """Filter the last two axes as `scipy.ndimage.gaussian_filter` does with its defaults.

    Args:
        components: Shape (components, height, width); may be overwritten.
        sigma: Standard deviation of the filter in pixels, at least 0.

    Returns:
        Same shape; differs from scipy's result by some 1e-15 of its largest value.
    """
    transfer = [_transfer(size, sigma=sigma) for size in components.shape[1:]]
    spectrum = scipy.fft.dctn(components, axes=(1, 2), overwrite_x=True, workers=1)
    spectrum *= transfer[0][:, None] * transfer[1]
    smoothed: npt.NDArray[np.float64] = scipy.fft.idctn(
        spectrum, axes=(1, 2), overwrite_x=True, workers=1
    )
    return smoothed


def _transfer(size: int, *, sigma: float) -> npt.NDArray[np.float64]:
    """Return what the filter multiplies each of `size` DCT-II coefficients with."""
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(size)
    distance = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 / sigma**2 * distance**2)
    # The extended signal has period 2 * size; a longer kernel wraps around it.
    folded = np.bincount(distance % (2 * size), weights=kernel / kernel.sum(), minlength=2 * size)
    # The kernel is even, so its transform is real.
    return np.ascontiguousarray(scipy.fft.rfft(folded)[:size].real)


def kinematic_fields(
    records: Int[Array, "fields"],
    *,
    seed: int | Int[Array, ""],
    shape: tuple[int, int],
    filter_sigma_range: tuple[float, float],
    scale_factor_range: tuple[float, float],
    scale_mode: Literal["peak", "linear"],
) -> Float[Array, "fields height width 2"]:
    """Make kinematic fields on the device; field i depends on `seed` and `records[i]` alone.

    They have the distribution of `KinematicFields` and not its values: the random numbers are
    JAX's. To be called under `jax.jit`.

    Args:
        records: Index of each record; any integers, taken modulo 2^32.
        seed: Seed of the data set.
        shape: Height and width in pixels.
        filter_sigma_range: Least and greatest width of the filter in pixels; uniform in between.
        scale_factor_range: Least and greatest scale; uniform in between.
        scale_mode: `peak`: the scale is the largest displacement of a field in pixels. `linear`:
            the scale multiplies the smoothed noise.

    Returns:
        Displacements (x, y) in pixels, float32.

    Raises:
        ValueError: A range or a mode that synthpix refuses too.
    """
    for name, (low, high) in (
        ("filter_sigma_range", filter_sigma_range),
        ("scale_factor_range", scale_factor_range),
    ):
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"{name} must satisfy 0 <= min <= max, got ({low}, {high}).")
    if scale_mode not in ("peak", "linear"):
        raise ValueError(f"scale_mode must be 'peak' or 'linear', got {scale_mode!r}.")

    base = jax.random.PRNGKey(seed)

    def make(record: Int[Array, ""]) -> Float[Array, "height width 2"]:
        return _field(
            jax.random.fold_in(base, record.astype(jnp.uint32)),
            shape=shape,
            sigmas=filter_sigma_range,
            factors=scale_factor_range,
            peak=scale_mode == "peak",
        )

    height, width = shape
    # Noise, two stages of smoothing, two filters.
    field_bytes = 4 * (6 * height * width + height**2 + width**2)
    at_once = max(1, min(records.shape[0], DEVICE_BYTES // field_bytes))
    fields: Array = lax.map(make, records, batch_size=at_once)
    return fields


def _field(
    key: UInt32[Array, "2"],
    *,
    shape: tuple[int, int],
    sigmas: tuple[float, float],
    factors: tuple[float, float],
    peak: bool,
) -> Float[Array, "height width 2"]:
    """Make one field from its key."""
    key_sigma, key_factor, key_noise = jax.random.split(key, 3)
    sigma = uniform(key_sigma, shape=(), minval=sigmas[0], maxval=sigmas[1])
    factor = uniform(key_factor, shape=(), minval=factors[0], maxval=factors[1])
    noise = uniform(key_noise, shape=(2, *shape), minval=-1.0, maxval=1.0)
    height, width = shape
    down = _filter_matrix(height, sigma=sigma, widest=sigmas[1])
    across = down if height == width else _filter_matrix(width, sigma=sigma, widest=sigmas[1])
    # Some GPUs would otherwise multiply with 10 bits of mantissa.
    exact = lax.Precision.HIGHEST
    rows = jnp.matmul(noise.reshape(2 * height, width), across, precision=exact)
    u, v = (jnp.matmul(down, part, precision=exact) for part in rows.reshape(2, height, width))
    if peak:
        largest = jnp.sqrt(jnp.max(u**2 + v**2))
        factor = jnp.where(largest > 0.0, factor / largest, 0.0)
    return jnp.stack([u, v], axis=-1) * factor


def _filter_matrix(
    size: int, *, sigma: Float[Array, ""], widest: float
) -> Float[Array, "size size"]:
    """Write the filter along one axis, with its border, as a symmetric matrix.

    Entry (i, j) is what sample j contributes to sample i: directly, at distance i - j, and as its
    mirror image, at distance i + j + 1, both modulo the period. All entries are positive, so no
    precision is lost in float32, however much the noise is attenuated.
    """
    period = 2 * size
    repeats = (int(TRUNCATE * widest + 0.5) + size) // period
    distance = jnp.arange(-size, size) + period * jnp.arange(-repeats, repeats + 1)[:, None]
    # From 0.1 pixel down the kernel is one sample, whatever its width.
    width = jnp.maximum(sigma, 0.1)
    weight = jnp.where(
        jnp.abs(distance) <= jnp.floor(TRUNCATE * sigma + 0.5),
        jnp.exp(-0.5 * (distance / width) ** 2),
        0.0,
    )
    folded = jnp.sum(weight, axis=0) / jnp.sum(weight)
    index = np.arange(size)
    direct = index[:, None] - index + size
    mirrored = (index[:, None] + index + 1 + size) % period
    return folded[direct] + folded[mirrored]
