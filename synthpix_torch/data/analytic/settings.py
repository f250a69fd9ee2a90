"""The distribution of the fields of an analytic flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from synthpix_torch.config.config import Config
from synthpix_torch.data.analytic.flows import FLOWS, Flow, Parameters, Range
from synthpix_torch.data.kinematic import KinematicSettings

DOMAIN: Final = 0x616E616C
"""Separates the random numbers of analytic fields from all others of the same seed."""


@dataclass(frozen=True, kw_only=True)
class AnalyticSettings:
    """Describe the distribution of the fields of an analytic flow.

    Attributes:
        flow: Name of the flow, one of `FLOWS`.
        ranges: Range of each parameter; uniform in between.
        origin: Row and column of the first sample in pixels of the image.
        grid: Samples of the fields, their seed and unit, and the noise if the flow has noise.
    """

    flow: str
    ranges: Parameters
    origin: tuple[float, float]
    grid: KinematicSettings

    @classmethod
    def from_config(cls, config: Config, flow: str) -> AnalyticSettings:
        """Read the settings of a configuration: one sample per pixel over its flow_field_size."""
        low, high = config.angle_range
        (height, width), (first, last) = config.image_shape, config.centre_range
        down, right = config.img_offset
        return cls(
            flow=flow,
            ranges=Parameters(
                displacement=config.displacement_range,
                gradient=config.gradient_range,
                angle=(math.radians(low), math.radians(high)),
                core_radius=config.core_radius_range,
                wavelength=config.wavelength_range,
                # The first pixel reaches from -0.5 to 0.5.
                centre_y=(first * height - 0.5, last * height - 0.5),
                centre_x=(first * width - 0.5, last * width - 0.5),
            ),
            origin=(-down * config.resolution, -right * config.resolution),
            grid=KinematicSettings.from_config(config),
        )

    @property
    def closed_form(self) -> Flow:
        """The flow."""
        return FLOWS[self.flow]

    def bounds(self) -> tuple[Range, Range]:
        """Return the bounds of u and v of the closed form in pixels."""
        x, y = (
            (first - centre[1], first + (count - 1) * step - centre[0])
            for first, count, step, centre in zip(
                self.origin[::-1],
                self.grid.shape[::-1],
                self.grid.spacing[::-1],
                (self.ranges.centre_x, self.ranges.centre_y),
                strict=True,
            )
        )
        return self.closed_form.bounds(self.ranges, x, y)

    def displacements(self, numbers: Any, xp: Any) -> Any:
        """Return the closed form at the samples, (height, width, 2) in pixels.

        Args:
            numbers: A number from 0 to 1 for each parameter, shape (7,).
            xp: NumPy or jax.numpy.
        """
        parameters = Parameters(
            *(low + (high - low) * numbers[i] for i, (low, high) in enumerate(self.ranges))
        )
        (height, width), (step_y, step_x) = self.grid.shape, self.grid.spacing
        y = xp.arange(height) * step_y + (self.origin[0] - parameters.centre_y)
        x = xp.arange(width) * step_x + (self.origin[1] - parameters.centre_x)
        components = self.closed_form.displacements(parameters, x, y[:, None], xp)
        shape = self.grid.shape
        return xp.stack([xp.broadcast_to(one, shape) for one in components], axis=-1)
