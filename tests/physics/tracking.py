"""Find single particles and measure where they are, how wide and how bright."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree
from scipy.special import erf

_HALF = np.sqrt(0.5)


class Fits(NamedTuple):
    """Particles of one image.

    Attributes:
        y: Row of the centre in pixels.
        x: Column of the centre in pixels.
        sigma_y: Standard deviation along y in pixels, without the pixel's own width.
        sigma_x: The same along x.
        peak: Grey level at the centre, were the pixels small.
    """

    y: Float[np.ndarray, " n"]
    x: Float[np.ndarray, " n"]
    sigma_y: Float[np.ndarray, " n"]
    sigma_x: Float[np.ndarray, " n"]
    peak: Float[np.ndarray, " n"]

    def select(self, chosen: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]) -> Fits:
        """A part of the particles."""
        return Fits(*(values[chosen] for values in self))


def isolated(
    image: Float[np.ndarray, "height width"], *, distance: float, border: int
) -> Int[np.ndarray, "n 2"]:
    """Pixels (y, x) of local maxima with no other one nearer than `distance`.

    Args:
        image: Grey levels without noise.
        distance: In pixels.
        border: Pixels at each side in which no particle is taken.
    """
    maxima = (image == maximum_filter(image, size=3)) & (image > 0.01 * image.max())
    peaks = np.argwhere(maxima)
    if len(peaks) < 2:
        return peaks[:0]
    nearest = cKDTree(peaks).query(peaks, k=2)[0][:, 1]
    shape = np.array(image.shape)
    inside = ((peaks >= border) & (peaks < shape - border)).all(axis=1)
    return np.asarray(peaks[inside & (nearest >= distance)])


def fit(
    image: Float[np.ndarray, "height width"],
    pixels: Int[np.ndarray, "n 2"],
    *,
    radius: int = 3,
    steps: int = 25,
) -> Fits:
    """Fit a Gaussian, integrated over each pixel, to a window around each pixel by least squares.

    Args:
        image: Grey levels without noise.
        pixels: Where the windows have their centres.
        radius: Of the windows, in pixels.
        steps: Of Gauss and Newton.
    """
    windows = cut(image, pixels, radius=radius).astype(float)
    offsets = np.arange(-radius, radius + 1)
    total = windows.sum(axis=(1, 2))
    y = (windows.sum(axis=2) * offsets).sum(axis=1) / total
    x = (windows.sum(axis=1) * offsets).sum(axis=1) / total
    wide = [
        np.sqrt(
            np.maximum((windows.sum(axis=axis) * offsets**2).sum(axis=1) / total - mean**2, 0.1)
        )
        for axis, mean in ((2, y), (1, x))
    ]
    values = np.stack([total / (2 * np.pi * wide[0] * wide[1]), y, x, *wide], axis=1)
    for _ in range(steps):
        peak, y, x, sigma_y, sigma_x = (column[:, None] for column in values.T)
        rows, rows_y, rows_sigma = _integrated(offsets - y, sigma_y)
        columns, columns_x, columns_sigma = _integrated(offsets - x, sigma_x)

        def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), -1))

        residual = windows.reshape(len(windows), -1) - peak * outer(rows, columns)
        jacobian = np.stack(
            [
                outer(rows, columns),
                peak * outer(rows_y, columns),
                peak * outer(rows, columns_x),
                peak * outer(rows_sigma, columns),
                peak * outer(rows, columns_sigma),
            ],
            axis=2,
        )
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        right = (jacobian.transpose(0, 2, 1) @ residual[:, :, None])[..., 0]
        normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(5)
        step = np.linalg.solve(normal, right[..., None])[..., 0]
        limit = np.stack([0.5 * abs(values[:, 0]), *[np.full(len(values), 0.3)] * 4], axis=1)
        values = values + np.clip(step, -limit, limit)
        values[:, 3:] = np.maximum(values[:, 3:], 0.1)
    peak, y, x, sigma_y, sigma_x = values.T
    return Fits(pixels[:, 0] + y, pixels[:, 1] + x, sigma_y, sigma_x, peak)


def alike(fits: Fits, *, tolerance: float = 0.02) -> Bool[np.ndarray, " n"]:
    """Tell which particles are as wide as most; overlapping ones are wider."""
    same = [abs(sigma / np.median(sigma) - 1) < tolerance for sigma in (fits.sigma_y, fits.sigma_x)]
    return np.asarray(np.logical_and(same[0], same[1]))


def cut(
    image: Float[np.ndarray, "height width"], pixels: Int[np.ndarray, "n 2"], *, radius: int
) -> Float[np.ndarray, "n size size"]:
    """Windows around pixels."""
    steps = np.arange(-radius, radius + 1)
    rows = pixels[:, 0, None, None] + steps[:, None]
    columns = pixels[:, 1, None, None] + steps
    return np.asarray(image[rows, columns])


class Tracks(NamedTuple):
    """Particles that were found in both images of a pair."""

    first: Fits
    second: Fits


def track(
    first: Float[np.ndarray, "height width"],
    second: Float[np.ndarray, "height width"],
    guess: Float[np.ndarray, "height width 2"],
    *,
    distance: float,
    border: int,
    radius: int = 3,
    reach: float = 1.5,
    same_width: bool = True,
) -> Tracks:
    """Follow isolated particles from the first image to the second.

    Args:
        first: First image.
        second: Second image.
        guess: About how far (x, y) in pixels a particle at each pixel moves.
        distance: Between particles, at least, in pixels.
        border: Pixels at each side in which no particle is taken.
        radius: Of the windows of the fit.
        reach: Largest distance in pixels between a particle and where the guess sends it.
        same_width: Drop particles that are not as wide as most.
    """
    starts = isolated(first, distance=distance, border=border)
    ends = isolated(second, distance=distance, border=border)
    if not len(starts) or not len(ends):
        empty = Fits(*[np.empty(0)] * 5)
        return Tracks(empty, empty)
    moved = starts + guess[starts[:, 0], starts[:, 1]][:, ::-1]
    far, index = cKDTree(ends).query(moved)
    near = far < reach
    a = fit(first, starts[near], radius=radius)
    b = fit(second, ends[index[near]], radius=radius)
    if same_width and near.any():
        same = alike(a) & alike(b)
        a, b = a.select(same), b.select(same)
    return Tracks(a, b)


def _integrated(
    distance: Float[np.ndarray, "n pixels"], sigma: Float[np.ndarray, "n 1"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Gaussian of height 1 integrated over pixels, and its derivatives by centre and sigma."""
    low, high = distance - 0.5, distance + 0.5
    at_low, at_high = (np.exp(-0.5 * (end / sigma) ** 2) for end in (low, high))
    integral = sigma * np.sqrt(np.pi / 2) * (erf(high / sigma * _HALF) - erf(low / sigma * _HALF))
    by_sigma = (integral - high * at_high + low * at_low) / sigma
    return integral, at_low - at_high, by_sigma
