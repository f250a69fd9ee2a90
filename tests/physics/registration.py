"""Measure displacements from images: least squares of our own, and OpenPIV."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from openpiv import pyprocess
from scipy.ndimage import shift as shifted
from scipy.ndimage import spline_filter


def register(
    first: Float[np.ndarray, "height width"],
    second: Float[np.ndarray, "height width"],
    *,
    start: tuple[float, float],
    border: int = 8,
    steps: int = 4,
) -> tuple[float, float]:
    """Find the uniform displacement (y, x) in pixels that minimises the squared difference.

    Both images are moved by half of it, so that neither is interpolated more than the other; the
    interpolation is by quintic splines.

    Args:
        first: First image.
        second: Second image.
        start: First guess, within a pixel.
        border: Pixels at each side that are not compared; more than `start` moves.
        steps: Of Gauss and Newton.
    """
    coefficients = [spline_filter(image.astype(float), order=5) for image in (first, second)]
    found = np.array(start, float)
    inside = (slice(border, -border), slice(border, -border))
    for _ in range(steps):
        moved = [
            shifted(values, sign * found / 2, order=5, prefilter=False)
            for values, sign in zip(coefficients, (1, -1), strict=True)
        ]
        slopes = [slope[inside].ravel() for slope in np.gradient((moved[0] + moved[1]) / 2)]
        difference = (moved[0] - moved[1])[inside].ravel()
        # second(p + d/2) - first(p - d/2) grows by the slope times the change of d.
        change = np.linalg.lstsq(np.stack(slopes, axis=1), difference, rcond=None)[0]
        found = found + change
    return float(found[0]), float(found[1])


class Outliers(NamedTuple):
    """Interrogation windows whose vector is wrong, at the border of the images and inside."""

    border: int
    border_windows: int
    inside: int
    inside_windows: int

    @property
    def rates(self) -> tuple[float, float]:
        """Shares of the windows at the border and inside."""
        return self.border / self.border_windows, self.inside / self.inside_windows

    @property
    def excess(self) -> float:
        """Standard deviations by which the border's share exceeds the share inside."""
        a, b = self.rates
        together = (self.border + self.inside) / (self.border_windows + self.inside_windows)
        spread = together * (1 - together) * (1 / self.border_windows + 1 / self.inside_windows)
        return float((a - b) / np.sqrt(max(spread, 1e-12)))


def outliers(
    first: Float[np.ndarray, "pairs height width"],
    second: Float[np.ndarray, "pairs height width"],
    truth: Float[np.ndarray, "pairs 2"],
    *,
    window: int = 16,
    allowed: float = 0.5,
) -> Outliers:
    """Let OpenPIV correlate windows side by side and count vectors that are wrong.

    Args:
        first: First images.
        second: Second images.
        truth: Displacement (x, y) of each pair in pixels.
        window: Width of the windows in pixels.
        allowed: Largest error in pixels of a vector that is no outlier.
    """
    counts = np.zeros(4, int)
    for a, b, (right, down) in zip(first, second, truth, strict=True):
        u, v, _ = pyprocess.extended_search_area_piv(
            a.astype(np.int32), b.astype(np.int32), window, overlap=0, search_area_size=window
        )
        wrong = ~(np.hypot(u - right, v - down) < allowed)
        ring = np.ones_like(wrong)
        ring[1:-1, 1:-1] = False
        counts += [wrong[ring].sum(), ring.sum(), wrong[~ring].sum(), (~ring).sum()]
    return Outliers(*map(int, counts))
