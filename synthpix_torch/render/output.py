"""The final layout, range of grey levels and dtype of a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num


class Appearance(NamedTuple):
    """Renderer, layout, dtype and range of batches, which define the stream too.

    Attributes:
        renderer: A name of `synthpix_torch.render.renderers.RENDERERS`.
        layout: "torch" for channels before height and width, "synthpix" for synthpix's own.
        image_dtype: "float32", "float16" or "bfloat16".
        scale_images: Whether grey levels run from 0 to 1 instead of 0 to 255.
    """

    renderer: str = "particles"
    layout: str = "torch"
    image_dtype: str = "float32"
    scale_images: bool = False


def lay_out_labels(
    labels: Float[Array, "n y x 2"], *, appearance: Appearance
) -> Float[Array, "n ..."]:
    """Bring labels to their final layout: (n, 2, y, x) in torch's, as they are in synthpix's."""
    if appearance.layout == "synthpix":
        return labels
    # Not transposed, which XLA would do for a GPU before it interpolates.
    return jnp.stack([labels[..., 0], labels[..., 1]], axis=1)


def lay_out_images(
    images1: Num[Array, "n h w"],
    images2: Num[Array, "n h w"],
    *,
    valid: Bool[Array, " n"],
    appearance: Appearance,
) -> tuple[Array, ...]:
    """Bring images to their final layout, range and dtype.

    Args:
        images1: First images in grey levels from 0 to 255.
        images2: Second images.
        valid: Whether each slot holds data; the others become zero.
        appearance: The requested layout, range and dtype.

    Returns:
        The pairs as one array (n, 2, h, w) in torch's layout; in synthpix's both images apart.
    """

    def finish(image: Array) -> Array:
        image = jnp.where(valid[:, None, None], image.astype(jnp.float32), 0)
        image = image / 255 if appearance.scale_images else image
        return image.astype(appearance.image_dtype)

    images = finish(images1), finish(images2)
    return images if appearance.layout == "synthpix" else (jnp.stack(images, axis=1),)
