"""Folding: places where a displacement field turns the flow inside out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from synthpix_torch.data.kinematic.host import KinematicFields
from synthpix_torch.data.kinematic.settings import KinematicSettings


class Folding(NamedTuple):
    """The share of displacement fields, and of their area, that folds.

    Attributes:
        fields: Share of the fields that fold somewhere.
        area: Mean share of the area that is folded.
    """

    fields: float
    area: float


def folded_share(
    displacements: Float[np.ndarray, "*fields h w 2"], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, "*fields"]:
    """Measure the share of each field's area where det(I + grad d) is not positive.

    There the map from the first image to the second is not one to one: neighbouring particles
    arrive in another order, and no correlation method can follow them. The gradient is taken by
    central differences.

    Args:
        displacements: Displacements (x, y) in pixels; at least 2 rows and 2 columns.
        spacing: Distances of neighbouring rows and columns in pixels.

    Returns:
        Shares between 0 and 1, one per field.
    """
    x_by_y, x_by_x = _gradient(displacements[..., 0], spacing)
    y_by_y, y_by_x = _gradient(displacements[..., 1], spacing)
    determinant = (1 + x_by_x) * (1 + y_by_y) - x_by_y * y_by_x
    share: Float[np.ndarray, "*fields"] = np.mean(determinant <= 0, axis=(-2, -1))
    return share


def measure_folding(settings: KinematicSettings, *, fields: int = 16) -> Folding:
    """Measure how often the first fields of a data set fold.

    Fields that are generated on the device have the same distribution.

    Args:
        settings: The distribution of the fields.
        fields: Number of fields to generate.
    """
    source = KinematicFields(fields, settings)
    displacements = (source[i]["flow_fields"] / settings.pixel_velocity for i in range(fields))
    shares = [folded_share(field, spacing=settings.spacing) for field in displacements]
    return Folding(fields=float(np.mean(np.array(shares) > 0)), area=float(np.mean(shares)))


def _gradient(
    component: Float[np.ndarray, "*fields h w"], spacing: tuple[float, float]
) -> list[Any]:
    return list(np.gradient(component, *spacing, axis=(-2, -1)))
