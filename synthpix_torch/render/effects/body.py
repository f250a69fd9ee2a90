"""A body in the flow: no particles inside it, and no displacement to be learned there."""

import numpy as np
from jaxtyping import Array, Bool, Float

from synthpix_torch.render.effects.lookup import at_nearest_pixel


def outside(
    y: Float[Array, "*shape"], x: Float[Array, "*shape"], *, body: Bool[Array, "height width"]
) -> Bool[Array, "*shape"]:
    """Tell which particles lie outside the body.

    Args:
        y: Rows in pixels from the centre of the first pixel of the image.
        x: Columns, likewise.
        body: True in the body; continued beyond its border.
    """
    return ~at_nearest_pixel(body, y, x)


def fluid_labels(
    body: Bool[np.ndarray, "height width"], *, label_shape: tuple[int, int], pixels_per_label: float
) -> Bool[np.ndarray, "label_height label_width"]:
    """Tell which labels lie in the fluid.

    Args:
        body: True in the body.
        label_shape: Rows and columns of the labels.
        pixels_per_label: Pixels between labels; label i lies at pixel i * pixels_per_label.
    """
    rows, columns = (
        np.minimum(np.rint(np.arange(count) * pixels_per_label), size - 1).astype(int)
        for count, size in zip(label_shape, body.shape, strict=True)
    )
    return ~body[np.ix_(rows, columns)]
