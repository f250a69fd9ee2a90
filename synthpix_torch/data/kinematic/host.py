"""Kinematic flow fields by record number, generated with NumPy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.sparse
from jaxtyping import Float

from synthpix_torch.data.fields import GeneratedFields
from synthpix_torch.data.kinematic.settings import DOMAIN, NARROWEST, REACH, KinematicSettings


class KinematicFields(GeneratedFields[KinematicSettings]):
    """Random access to homogeneous kinematic flow fields.

    No BLAS and no shared state are involved. The smoothing releases the GIL.
    """

    kind = "kinematic"

    @property
    def scheme(self) -> str:
        """The name of the generator."""
        return "kinematic"

    def generate(
        self, index: int, *, out: Float[np.ndarray, "height width 2"] | None = None
    ) -> Float[np.ndarray, "height width 2"]:
        """Generate the field of a record that exists, in new memory or in `out` (float32)."""
        sequence = np.random.SeedSequence(self.settings.seed, spawn_key=(DOMAIN, index))
        return _field(self.settings, np.random.default_rng(sequence), out=out)


def _field(
    settings: KinematicSettings, rng: np.random.Generator, *, out: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Generate a field from its random numbers."""
    sigma = rng.uniform(*settings.filter_sigma_range)
    factor = rng.uniform(*settings.scale_factor_range)
    (height, width), (step_y, step_x) = settings.shape, settings.spacing
    down, gain_down = smoothing(height, step=step_y, sigma=sigma)
    across, gain_across = (
        (down, gain_down)
        if (height, step_y) == (width, step_x)
        else smoothing(width, step=step_x, sigma=sigma)
    )
    nodes_down, nodes_across = down.shape[1], across.shape[1]
    noise = rng.standard_normal((nodes_across, 2 * nodes_down), dtype=np.float32)
    # As one complex number a pair of components is transposed several times faster.
    columns = (across @ noise).view(np.complex64)
    rows = np.ascontiguousarray(columns.T).view(np.float32)
    field: npt.NDArray[np.float32] = (down @ rows).reshape(height, width, 2)
    if settings.scale_mode == "peak":
        factor /= math.sqrt(np.max(field[..., 0] ** 2 + field[..., 1] ** 2))
    else:
        factor *= gain_down * gain_across / math.sqrt(3)
    return np.multiply(field, np.float32(factor * settings.pixel_velocity), out=out)


def smoothing(size: int, *, step: float, sigma: float) -> tuple[scipy.sparse.csr_array, float]:
    """Write the Gaussian between the samples of an axis and the nodes of its noise as a matrix.

    Args:
        size: Number of samples.
        step: Their distance in pixels.
        sigma: Standard deviation of the Gaussian in pixels.

    Returns:
        Matrix of shape (size, nodes) with a peak of 1, float32, and the factor that turns smoothed
        normal noise of unit variance per node into that of unit variance per pixel.
    """
    # Narrower filters take a node for each sample, so that all samples lie alike to their nodes.
    pitch = max(sigma, step)
    sigma = max(sigma, NARROWEST * pitch)
    positions = np.arange(size) * step
    first = np.floor(positions / pitch).astype(np.int32)
    # Node j lies at (j - REACH + 1) * pitch: REACH of them on each side of every sample.
    taps = np.arange(2 * REACH, dtype=np.int32)
    nodes = first[:, None] + taps
    distance = (nodes - (REACH - 1)) * pitch - positions[:, None]
    weights = np.exp(-0.5 * (distance / sigma) ** 2).astype(np.float32)
    matrix = scipy.sparse.csr_array(
        (
            weights.ravel(),
            nodes.ravel(),
            np.arange(0, nodes.size + 1, len(taps), dtype=np.int32),
        ),
        shape=(size, int(first[-1]) + len(taps)),
    )
    total = np.sum(np.exp(-0.5 * (np.arange(-REACH, REACH + 1) * pitch / sigma) ** 2))
    return matrix, 1 / (math.sqrt(pitch) * float(total))
