"""Recorded image pairs and their flow fields, as they are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from synthpix_torch.config.config import Config


class Frame:
    """The part of recorded images that is served.

    Attributes:
        recorded: Height and width of the images in the files.
        shape: Height and width of what is served.
        corner: First row and column of what is served.
    """

    def __init__(self, config: Config, recorded: tuple[int, ...], *, where: str) -> None:
        """Place the crop of a configuration in images of a shape.

        Args:
            config: A configuration of recorded images; `image_shape` need not be given.
            recorded: Shape of the first image.
            where: Name of the record, for error messages.

        Raises:
            ValueError: The images have another shape than `image_shape` and no crop is configured,
                or the crop does not fit.
        """
        if len(recorded) != 2:
            raise ValueError(
                f"{where} holds an image of shape {recorded}: images must have one grey level per "
                "pixel."
            )
        self.recorded = (recorded[0], recorded[1])
        given = config.given.get("image_shape") is not None
        self.shape = config.image_shape if given else self.recorded
        self.corner = config.crop or (0, 0)
        fits = all(
            at + size <= whole
            for at, size, whole in zip(self.corner, self.shape, self.recorded, strict=True)
        )
        if config.crop is None and self.shape != self.recorded:
            raise ValueError(
                f"{where} holds images of shape {self.recorded}, but image_shape is {self.shape}, "
                "and recorded images are not resized: leave out image_shape to serve them whole, "
                "or set crop to the first pixel (y, x) of a crop of image_shape."
            )
        if not fits:
            raise ValueError(
                f"The crop of shape {self.shape} at {self.corner} does not fit into the images of "
                f"shape {self.recorded} in {where}: move or shrink it."
            )

    def crop(self, image: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "y x"]:
        """Cut out what is served."""
        rows, columns = (
            slice(at, at + size) for at, size in zip(self.corner, self.shape, strict=True)
        )
        return image[rows, columns]

    def labels(self, flow_field: Num[np.ndarray, "h w c"]) -> Num[np.ndarray, "y x 2"]:
        """Give each pixel that is served the displacement there.

        Sample j of n of the field lies at pixel j * size / n of the recorded images. Between
        samples the field is interpolated linearly, beyond the last one it is constant. Values are
        displacements in pixels of the recorded images, on any grid.

        Args:
            flow_field: Displacements (x, y, ...) in pixels over the whole recorded images.
        """
        field = flow_field[..., :2]
        for axis in (0, 1):
            field = _resample(
                field,
                axis,
                size=self.recorded[axis],
                pixels=np.arange(self.corner[axis], self.corner[axis] + self.shape[axis]),
            )
        return field


def _resample(
    field: Num[np.ndarray, "h w 2"], axis: int, *, size: int, pixels: np.ndarray
) -> Num[np.ndarray, "y x 2"]:
    """Interpolate a field at pixels along an axis whose n samples spread over `size` pixels."""
    samples = field.shape[axis]
    if samples == size:
        return field.take(pixels, axis)
    at = np.minimum(pixels * (samples / size), samples - 1)
    lower = at.astype(int)
    upper = np.minimum(lower + 1, samples - 1)
    weight: Float[np.ndarray, "..."] = (at - lower).astype(np.float32)
    weight = weight.reshape([-1 if one == axis else 1 for one in range(3)])
    mixed: Num[np.ndarray, "y x 2"] = (
        field.take(lower, axis) * (1 - weight) + field.take(upper, axis) * weight
    )
    return mixed
