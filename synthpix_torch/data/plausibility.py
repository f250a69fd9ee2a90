"""Remarks on records that are possible but physically odd.

Records are read in the background, where a warning would reach nobody. So a record carries its
remarks, and whoever takes it in the thread of the user reports them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from synthpix_torch.config.config import Config
from synthpix_torch.config.plausibility import SMALLEST_DISPLACEMENT, warn
from synthpix_torch.data.kinematic import KinematicSettings, measure_folding

_NEGLIGIBLE = 0.01
"""Pixels, or thicknesses of the light sheet, by which a displacement may leave its bounds."""


_FREQUENT_FOLDING = 0.25
"""Share of the fields that may fold somewhere."""

_FOLDING_PIXELS = 2**20
"""Pixels of the fields that are generated to look for folding."""


class Remark(NamedTuple):
    """Something odd about a record.

    Attributes:
        kind: What is odd, the same for all records with this oddity.
        message: The record, the number and what to do.
    """

    kind: str
    message: str


class Reporter:
    """Turns remarks into warnings, one for each kind.

    Attributes:
        reported: The remark of each kind that was reported.
    """

    def __init__(self) -> None:
        self.reported: dict[str, Remark] = {}

    def report(self, remarks: Iterable[Remark]) -> None:
        """Warn of the remarks whose kind has not been reported.

        Warns:
            PhysicsWarning: As an error, if the warning filter says so, it is raised again for the
                next record of its kind.
        """
        for remark in remarks:
            if remark.kind not in self.reported:
                warn(remark.message)
                self.reported[remark.kind] = remark


def remarks_on_speeds(
    config: Config,
    lowest: tuple[float, float],
    highest: tuple[float, float],
    *,
    where: str,
) -> Iterator[Remark]:
    """Compare velocities with the speed bounds and with what PIV can measure.

    Args:
        config: A configuration of rendered images.
        lowest: Least velocity (x, y) of a flow field in length units per second.
        highest: Largest velocity (x, y).
        where: Name of the flow field.
    """
    pixels = config.dt * config.resolution
    bounds = (
        ("min_speed_x", -lowest[0], -config.min_speed_x, -1),
        ("max_speed_x", highest[0], config.max_speed_x, 1),
        ("min_speed_y", -lowest[1], -config.min_speed_y, -1),
        ("max_speed_y", highest[1], config.max_speed_y, 1),
    )
    exceeded = {
        name: (sign * bound, sign * speed, (speed - max(0.0, bound)) * pixels)
        for name, speed, bound, sign in bounds
        if (speed - max(0.0, bound)) * pixels > _NEGLIGIBLE
    }
    if exceeded:
        excess = max(pixels for _, _, pixels in exceeded.values())
        list_of_bounds = ", ".join(
            f"{name}={bound:g} must reach {speed:.6g}"
            for name, (bound, speed, _) in exceeded.items()
        )
        yield Remark(
            "speed bounds",
            f"{where} leaves the speed bounds by up to {excess:.3g} px: {list_of_bounds}. "
            "Particles will be missing at the borders of the images.",
        )
    largest = max(map(abs, (*lowest, *highest))) * pixels
    yield from remarks_on_displacement(largest, min(config.image_shape), where=where)


def remarks_on_displacement(largest: float, side: int, *, where: str) -> Iterator[Remark]:
    """Compare the largest displacement in pixels with the images and with what PIV can measure."""
    if 0 < largest < SMALLEST_DISPLACEMENT:
        yield Remark(
            "small displacements",
            f"{where} has displacements up to {largest:.3g} px, less than PIV can measure: check "
            "the unit of its values.",
        )
    if largest > side / 2:
        yield Remark(
            "large displacements",
            f"{where} has displacements up to {largest:.4g} px in images of {side} px: check the "
            "unit of its values.",
        )


def remarks_on_flow_field(
    config: Config, flow_field: Num[np.ndarray, "h w c"], *, where: str
) -> Iterator[Remark]:
    """Look for oddities in a flow field that was read."""
    if flow_field.shape[2] > 2:
        yield from _remarks_on_w(config, flow_field[..., 2], where=where)
    u, v = flow_field[..., 0], flow_field[..., 1]
    lowest, highest = (float(u.min()), float(v.min())), (float(u.max()), float(v.max()))
    if config.include_images:
        largest = max(map(abs, (*lowest, *highest)))
        yield from remarks_on_displacement(largest, min(config.image_shape), where=where)
    else:
        yield from remarks_on_speeds(config, lowest, highest, where=where)


def _remarks_on_w(config: Config, w: Num[np.ndarray, "h w"], *, where: str) -> Iterator[Remark]:
    """Compare the third component with its bounds."""
    if config.sheet_profile == "none":
        yield Remark(
            "third component",
            f"{where} has 3 components: only the first two move particles, the third needs a light "
            "sheet (sheet_profile).",
        )
        return
    lowest, highest = float(w.min()), float(w.max())
    below, above = min(0.0, config.min_speed_z) - lowest, highest - max(0.0, config.max_speed_z)
    assert config.sheet_thickness is not None
    excess = max(below, above) * config.dt / config.sheet_thickness
    if excess > _NEGLIGIBLE:
        yield Remark(
            "speed bounds along z",
            f"{where} leaves the bounds of w by up to {excess:.3g} thicknesses of the light sheet: "
            f"min_speed_z={config.min_speed_z:g} must reach {min(0.0, lowest):.6g} and "
            f"max_speed_z={config.max_speed_z:g} {max(0.0, highest):.6g}. Particles will be "
            "missing in the second images.",
        )


def remarks_on_image(image: Num[np.ndarray, "y x"], *, where: str) -> Iterator[Remark]:
    """Look for oddities in a recorded image."""
    darkest, brightest = float(image.min()), float(image.max())
    if darkest == brightest:
        yield Remark(
            "blank images",
            f"{where} holds an image with the one grey level {brightest:g}: leave out the record.",
        )


def remarks_on_folding(settings: KinematicSettings) -> Iterator[Remark]:
    """Look for folding in the first kinematic fields."""
    pixels = math.prod(settings.shape)
    folding = measure_folding(settings, fields=max(2, min(16, _FOLDING_PIXELS // pixels)))
    if folding.fields > _FREQUENT_FOLDING:
        yield Remark(
            "folding",
            f"{folding.fields:.0%} of the kinematic fields fold, on {folding.area:.2%} of their "
            "area: particles overtake each other there, which no flow does. Lower "
            f"scale_factor_range {list(settings.scale_factor_range)} or raise filter_sigma_range "
            f"{list(settings.filter_sigma_range)}.",
        )
