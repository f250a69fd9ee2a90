"""Measure of images: the diameter of particle images."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Float

PIXEL_VARIANCE: Final = 1 / 12
"""Variance in px^2 that the integration over a pixel adds to a particle image, along each axis."""

_SMALLEST: Final = 20
"""Height and width in pixels of images that can be measured."""

_FAINT: Final = 0.05
"""Share of the variance of the pixels that neighbours have in common if there are particles."""

_FAR: Final = range(10, 15)
"""Shifts in pixels beyond particle images, where light and background are still alike."""


def measure_diameter(images: Float[np.ndarray, "n h w"]) -> float | None:
    """Measure the e^-2 diameter of particle images by autocorrelation.

    The autocorrelation of randomly placed Gaussians of standard deviation s is
    exp(-(dy^2 + dx^2) / (4 s^2)) at the shift (dy, dx). Its values at (1, 1) and at (0, 1), (1, 0)
    give s. The noise of pixels adds to the value at (0, 0) alone and has no influence. The variance
    that the pixels add is subtracted. Bright and large particles weigh more.

    Args:
        images: Grey levels.

    Returns:
        4 s in pixels, the mean along both axes; None if there is nothing to measure, as in images
        below 20 x 20 px.
    """
    if min(images.shape[1:]) < _SMALLEST:
        return None
    far = np.mean([_autocorrelation(images, at) for r in _FAR for at in ((r, 0), (0, r))])
    noisy = _autocorrelation(images, (0, 0)) - far
    diagonal = _autocorrelation(images, (1, 1)) - far
    variances = []
    for at in ((0, 1), (1, 0)):
        straight = _autocorrelation(images, at) - far
        if not 0 < diagonal < straight or straight < _FAINT * noisy:
            return None
        variances.append(1 / (4 * math.log(straight / diagonal)) - PIXEL_VARIANCE)
    variance = sum(variances) / 2
    return 4 * math.sqrt(variance) if variance > 0 else None


def _autocorrelation(images: Float[np.ndarray, "n h w"], shift: tuple[int, int]) -> float:
    """Return the mean covariance of pixels that lie `shift` rows and columns apart.

    As many pixels at every shift, so that smooth backgrounds add alike to all.
    """
    (down, right), (height, width) = shift, (side - _FAR.stop for side in images.shape[1:])
    here = images[:, :height, :width]
    there = images[:, down : down + height, right : right + width]
    products = np.mean(here * there, axis=(1, 2), dtype=float)
    means = np.mean(here, axis=(1, 2), dtype=float) * np.mean(there, axis=(1, 2), dtype=float)
    return float(np.mean(products - means))
