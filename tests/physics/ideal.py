"""An ideal camera: pixel-integrated Gaussian particles, complete, in double precision."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from scipy.special import erf


def expose(
    y: Float[np.ndarray, " n"],
    x: Float[np.ndarray, " n"],
    *,
    shape: tuple[int, int],
    sigma: float,
    peak: float = 200.0,
) -> Float[np.ndarray, "height width"]:
    """Expose particles of one size and brightness.

    Args:
        y: Rows of the centres in pixels.
        x: Columns of the centres in pixels.
        shape: Height and width of the image.
        sigma: Standard deviation in pixels.
        peak: Grey level at a centre, were the pixels small.
    """

    def along(centre: np.ndarray, count: int) -> np.ndarray:
        edges = np.arange(count + 1) - 0.5
        cumulated = erf((edges - centre[:, None]) / (np.sqrt(2) * sigma))
        return np.asarray(sigma * np.sqrt(np.pi / 2) * np.diff(cumulated, axis=1))

    return np.asarray(peak * along(y, shape[0]).T @ along(x, shape[1]))


def shifted_pair(
    shift: tuple[float, float],
    *,
    shape: tuple[int, int],
    density: float,
    sigma: float,
    seed: int,
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """A pair whose particles all move by `shift` (y, x) in pixels, with no end at the borders."""
    random = np.random.default_rng(seed)
    margin = 8 + max(map(abs, shift))
    size = np.array(shape) + 2 * margin
    y, x = (random.random((2, round(density * size.prod()))) * size[:, None]) - margin
    return (
        expose(y, x, shape=shape, sigma=sigma),
        expose(y + shift[0], x + shift[1], shape=shape, sigma=sigma),
    )


def random_fields(
    sigma: float, *, fields: int, shape: tuple[int, int], peak: float, seed: int
) -> Float[np.ndarray, "fields rows columns 2"]:
    """Cut Gaussian-filtered noise out of where it knows no border, and scale it by its peak.

    Args:
        sigma: Of the filter, in pixels.
        fields: How many.
        shape: Rows and columns.
        peak: Largest displacement of every field in pixels.
        seed: Of the noise.
    """
    random = np.random.default_rng(seed)
    margin = math.ceil(5 * sigma)
    noise = random.normal(size=(fields, *(size + 2 * margin for size in shape), 2))
    smooth = gaussian_filter(noise, (0, sigma, sigma, 0))[:, margin:-margin, margin:-margin]
    return np.asarray(smooth * (peak / abs(smooth).max(axis=(1, 2, 3), keepdims=True)))
