"""Statistics of images that expose a border, a lack of light or a correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Flatness(NamedTuple):
    """Largest relative deviations of a mean image from its level.

    Attributes:
        rows: Of the mean of a row.
        columns: Of the mean of a column.
        corners: Of the mean of a block in a corner.
    """

    rows: float
    columns: float
    corners: float


def flatness(images: Float[np.ndarray, "images height width"], *, corner: int = 4) -> Flatness:
    """Deviations of rows, columns and corners of the mean image from the mean of all pixels."""
    mean = images.mean(axis=0, dtype=float)
    level = mean.mean()
    ends = (slice(None, corner), slice(-corner, None))
    blocks = np.array([mean[a, b].mean() for a in ends for b in ends])
    return Flatness(
        *(
            float(abs(values / level - 1).max())
            for values in (mean.mean(axis=1), mean.mean(axis=0), blocks)
        )
    )


def correlations(
    a: Float[np.ndarray, "images height width"], b: Float[np.ndarray, "images height width"]
) -> Float[np.ndarray, "images images"]:
    """Correlation coefficient of every image of one set with every image of the other."""

    def standardised(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(float)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))

    return np.asarray(standardised(a) @ standardised(b).T)
