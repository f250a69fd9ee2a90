"""The distribution of kinematic flow fields.

A field is a * G_sigma * noise: white noise smoothed by a Gaussian of standard deviation sigma and
scaled by a (Manickathan, Mucignat & Lunati, Meas. Sci. Technol. 33, 124006, 2022, section 2.2).
Each component has the correlation exp(-r^2 / (4 sigma^2)) at distance r, everywhere in the field.

The noise has one sample per sigma instead of one per pixel; the Gaussian is evaluated between every
pixel and the nodes around it, so nothing is interpolated. By Poisson's summation formula the
variance then varies over the field by 2 exp(-pi^2) = 1e-4 of its mean along each axis (5e-5 of the
rms), and cutting the Gaussian at `REACH` nodes leaves steps below 1e-5 of the rms. The noise is
normal: smoothed uniform noise of one sample per pixel differs from that by an excess kurtosis of
-0.19 / sigma^2, which is -0.008 at 5 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from synthpix_torch.config.config import Config

REACH: Final = 5
"""Nodes of the noise on each side of a pixel that contribute to it."""

NARROWEST: Final = 0.1
"""Least sigma in node distances; below it no node contributes to another's pixel anyway."""

DOMAIN: Final = 0x6B696E65
"""Separates the random numbers of kinematic fields from all others of the same seed."""


@dataclass(frozen=True, kw_only=True)
class KinematicSettings:
    """Describe the distribution of kinematic flow fields.

    Attributes:
        extent: Height and width of a field in pixels of the image, whole or not.
        filter_sigma_range: Least and greatest sigma of the filter in pixels; uniform in between.
        scale_factor_range: Least and greatest scale a; uniform in between.
        scale_mode: `peak`: a is the largest displacement of a field in pixels. `linear`: a
            multiplies the smoothed noise, which has a variance of 1/3 per pixel.
        seed: Seed of the data set, from 0 to 2^32 - 1.
        pixel_velocity: The velocity that moves a particle by one pixel between the images, in
            length units per second: 1 / (resolution * dt).

    Raises:
        ValueError: A value is out of range.
    """

    extent: tuple[float, float]
    filter_sigma_range: tuple[float, float] = (5.0, 100.0)
    scale_factor_range: tuple[float, float] = (0.0, 16.0)
    scale_mode: Literal["peak", "linear"] = "peak"
    seed: int = 0
    pixel_velocity: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 < side < math.inf for side in self.extent):
            raise ValueError(f"extent must be two positive numbers of pixels, got {self.extent}.")
        for name in ("filter_sigma_range", "scale_factor_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < math.inf:
                raise ValueError(f"{name} must satisfy 0 <= min <= max, got ({low}, {high}).")
        if self.scale_mode not in ("peak", "linear"):
            raise ValueError(f"scale_mode must be 'peak' or 'linear', got {self.scale_mode!r}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and 2**32 - 1, got {self.seed}.")

    @classmethod
    def from_config(cls, config: Config) -> KinematicSettings:
        """Read the settings of a configuration: one sample per pixel over its flow_field_size."""
        height, width = config.flow_field_size
        resolution = config.resolution
        return cls(
            extent=(height * resolution, width * resolution),
            filter_sigma_range=config.filter_sigma_range,
            scale_factor_range=config.scale_factor_range,
            scale_mode=config.scale_mode,
            seed=config.seed,
            pixel_velocity=1 / (resolution * config.dt),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of samples: at least one per pixel."""
        # 28.8 px/mm * 10 mm must not become 289 samples by rounding.
        rows, columns = (math.ceil(round(side, 6)) for side in self.extent)
        return rows, columns

    @property
    def spacing(self) -> tuple[float, float]:
        """Distances of neighbouring rows and columns in pixels, at most 1.

        Sample j of n lies at j / n of the extent, as everywhere in a flow field.
        """
        (height, width), (rows, columns) = self.extent, self.shape
        return height / rows, width / columns
