"""The table of renderers, and the contract of each."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, UInt32
from synthpix.types import ImageGenerationParameters

from synthpix_torch.config.config import Config
from synthpix_torch.render.keys import Origin, PairKeys
from synthpix_torch.render.particles import ParticleRenderer
from synthpix_torch.render.synthpix import SynthpixRenderer


@runtime_checkable
class PairRenderer(Protocol):
    """Pure functions that make labels and image pairs of flow fields; all are compiled by `step`.

    Attributes:
        version: Number of the renderer's bits; another version makes other images of the same keys.
        fluid: True where a label is valid, on the grid of the labels; None if all are.
    """

    version: int
    fluid: Bool[np.ndarray, "y x"] | None

    def __init__(
        self, config: Config, flow_field_shape: tuple[int, ...], device: jax.Device
    ) -> None:
        """Prepare to render flow fields of one shape on a device.

        Raises:
            ValueError: The configuration cannot be rendered.
        """

    def adapt(
        self, flow_fields: Num[Array, "f y x c"]
    ) -> tuple[Float[Array, "f h w 2"], Float[Array, "f b a k"] | None]:
        """Return the labels, and the velocities that move particles.

        None instead of velocities spares a copy where the flow fields themselves move particles.

        Args:
            flow_fields: Velocities (x, y, ...) in length units per second.
        """

    def keys(self, origin: Origin, repetition: Int[Array, ""]) -> PairKeys:
        """Return the keys of the pairs of a batch.

        Args:
            origin: Where each pair comes from.
            repetition: How often the flow batch was used before.
        """

    def render(
        self, keys: UInt32[Array, "n k"], moving: Num[Array, "f b a k"]
    ) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], ImageGenerationParameters]:
        """Return first images and second images in grey levels, and what was drawn for each pair.

        Args:
            keys: The key of each pair.
            moving: What `adapt` returned, or the flow fields; pair i moves with field i % f.
        """


RENDERERS: Final[dict[str, type[PairRenderer]]] = {
    "particles": ParticleRenderer,
    "synthpix": SynthpixRenderer,
}
"""The class of each renderer by name."""
