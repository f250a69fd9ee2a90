"""Positions of images, labels and seeded particles in a flow field.

Positions are in pixels (y, x) from the centre of the first pixel of the image. Pixel i lies at
img_offset + i / resolution in length units, sample j of the n samples of a flow field at
j * flow_field_size / n, label j at pixel j / velocities_per_pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from synthpix_torch.config.config import Config


class Geometry(NamedTuple):
    """The geometry of one configuration; pairs are (y, x).

    Attributes:
        image_shape: Height and width of images in pixels.
        label_shape: Rows and columns of labels.
        pixels_per_label: Pixels from one label to the next.
        nodes_per_pixel: Grid steps of the flow field from one pixel to the next.
        first_node: Grid coordinate of the first pixel, in steps.
        pixels_per_speed: Displacement in pixels of one length unit per second.
        seeded_from: Upper left corner of the area that particles are seeded in, in pixels.
        seeded_size: Height and width of this area in pixels.
    """

    image_shape: tuple[int, int]
    label_shape: tuple[int, int]
    pixels_per_label: float
    nodes_per_pixel: tuple[float, float]
    first_node: tuple[float, float]
    pixels_per_speed: float
    seeded_from: tuple[float, float]
    seeded_size: tuple[float, float]

    @property
    def seeded_area(self) -> float:
        """Area in square pixels that particles are seeded in."""
        return self.seeded_size[0] * self.seeded_size[1]

    def label_nodes(self, axis: int) -> Float[np.ndarray, " labels"]:
        """Return the grid coordinates of the labels along an axis, in steps."""
        pixels = np.arange(self.label_shape[axis]) * self.pixels_per_label
        return self.first_node[axis] + pixels * self.nodes_per_pixel[axis]


def locate(config: Config, flow_field_shape: tuple[int, ...], *, reach: int) -> Geometry:
    """Work out the geometry of a configuration.

    Args:
        config: The configuration.
        flow_field_shape: Rows, columns and components of each flow field.
        reach: Distance in pixels from the edge of the image beyond which a particle sends no light
            into it.
    """
    resolution = float(config.resolution)
    pixels_per_speed = float(config.dt) * resolution
    nodes_per_unit = [flow_field_shape[axis] / config.flow_field_size[axis] for axis in (0, 1)]
    speeds = ((config.min_speed_y, config.max_speed_y), (config.min_speed_x, config.max_speed_x))
    before = [reach + max(0.0, fastest * pixels_per_speed) for _, fastest in speeds]
    after = [reach + max(0.0, -slowest * pixels_per_speed) for slowest, _ in speeds]
    height, width = config.image_shape
    per_pixel = float(config.velocities_per_pixel)
    return Geometry(
        image_shape=(height, width),
        label_shape=(_whole(height * per_pixel), _whole(width * per_pixel)),
        pixels_per_label=1.0 / per_pixel,
        nodes_per_pixel=(nodes_per_unit[0] / resolution, nodes_per_unit[1] / resolution),
        first_node=(
            config.img_offset[0] * nodes_per_unit[0],
            config.img_offset[1] * nodes_per_unit[1],
        ),
        pixels_per_speed=pixels_per_speed,
        # Pixels reach half a pixel beyond their centres.
        seeded_from=(-0.5 - before[0], -0.5 - before[1]),
        seeded_size=(height + before[0] + after[0], width + before[1] + after[1]),
    )


def _whole(number: float) -> int:
    """Round down, but not what is a whole number up to rounding."""
    return math.floor(number + 1e-6)
