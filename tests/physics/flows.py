"""Analytic displacement fields, and where a configuration puts them on its grids.

Pixel i of an image has its centre at `offset + i / resolution`, sample j of n along an axis of a
field lies at `j * size / n`, both in length units. Channel 0 is the component to the right (x),
channel 1 the one down (y); positions and shapes are in the order (y, x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Pair = tuple[float, float]


@dataclass(frozen=True)
class Linear:
    """A displacement in pixels that is linear in the position in pixels.

    Attributes:
        uniform: Displacement (y, x) at the first pixel of the image.
        along_y: Change of the displacement (y, x) per pixel down.
        along_x: Change of the displacement (y, x) per pixel to the right.
    """

    uniform: Pair
    along_y: Pair = (0.0, 0.0)
    along_x: Pair = (0.0, 0.0)

    def __call__(
        self, y: Float[np.ndarray, "*n"], x: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n 2"]:
        """Displacement (x, y) in pixels at positions in pixels of the image, in label order."""
        down, right = (
            self.uniform[i] + self.along_y[i] * y + self.along_x[i] * x for i in range(2)
        )
        return np.stack([right, down], axis=-1)


@dataclass(frozen=True)
class Grids:
    """Positions of the images, their labels and the flow field.

    Attributes:
        image_shape: Height and width of the images in pixels.
        field_shape: Rows and columns of the flow field.
        field_size: Its height and width in length units.
        offset: Position (y, x) of the first pixel's centre in length units.
        resolution: Pixels per length unit.
        dt: Seconds between the images.
        velocities_per_pixel: Labels per pixel along each axis.
    """

    image_shape: tuple[int, int] = (64, 64)
    field_shape: tuple[int, int] = (104, 104)
    field_size: Pair = (104.0, 104.0)
    offset: Pair = (20.0, 20.0)
    resolution: float = 1.0
    dt: float = 1.0
    velocities_per_pixel: float = 1.0

    @property
    def steps(self) -> Pair:
        """Pixels per grid step of the field along y and x."""
        y, x = (
            size * self.resolution / count
            for size, count in zip(self.field_size, self.field_shape, strict=True)
        )
        return y, x

    def sample(self, flow: Linear) -> Float[np.ndarray, "rows columns 2"]:
        """Velocities (x, y) in length units per second at the nodes of the flow field."""
        y, x = (
            (np.arange(count) * size / count - offset) * self.resolution
            for count, size, offset in zip(
                self.field_shape, self.field_size, self.offset, strict=True
            )
        )
        displacements = flow(*np.meshgrid(y, x, indexing="ij"))
        return (displacements / (self.resolution * self.dt)).astype(np.float32)

    @property
    def label_shape(self) -> tuple[int, int]:
        """Rows and columns of labels: as many as fit into the image, but for rounding errors."""
        height, width = (
            math.floor(size * self.velocities_per_pixel + 1e-9) for size in self.image_shape
        )
        return height, width

    def label_positions(
        self, shape: tuple[int, int]
    ) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
        """Positions (y, x) of the labels in pixels: label j lies at pixel j / velocities_per_pixel.

        Args:
            shape: Rows and columns of the labels.
        """
        rows, columns = (np.arange(count) / self.velocities_per_pixel for count in shape)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return y, x
