"""The renderer "synthpix": synthpix's own labels and images, bit for bit, errors included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, UInt32
from synthpix.data_generate import generate_images_from_flow
from synthpix.types import ImageGenerationParameters
from synthpix.utils import flow_field_adapter

from synthpix_torch.config.config import Config
from synthpix_torch.config.effects import active_effects
from synthpix_torch.config.keys import KEYS
from synthpix_torch.render.keys import Origin, PairKeys, synthpix_keys
from synthpix_torch.render.synthpix_geometry import geometry


class SynthpixRenderer:
    """Make labels and images by synthpix's functions."""

    version = 1
    fluid: Bool[np.ndarray, "y x"] | None = None

    def __init__(
        self, config: Config, flow_field_shape: tuple[int, ...], device: jax.Device
    ) -> None:
        """Place images in flow fields as synthpix's sampler does.

        Raises:
            ValueError: synthpix refuses the configuration, or has no such effects.
        """
        effects = active_effects(config)
        if config.ellipticity != KEYS["ellipticity"].default:
            effects.append("ellipticity")
        if effects:
            raise ValueError(
                f"renderer='synthpix' has no {', '.join(effects)}: leave them out, or use "
                "renderer='particles'."
            )
        self._config = config
        self._place = geometry(config, flow_field_shape, device)

    def adapt(
        self, flow_fields: Num[Array, "f y x c"]
    ) -> tuple[Float[Array, "f h w 2"], Float[Array, "f b a 2"]]:
        """Return labels on the grid of the images, velocities on that of the particles."""
        config, place = self._config, self._place
        adapted = flow_field_adapter(
            flow_fields,
            new_flow_field_shape=place.label_shape,
            image_shape=config.image_shape,
            img_offset=place.specification.img_offset,
            resolution=config.resolution,
            res_x=place.grid_steps[1],
            res_y=place.grid_steps[0],
            position_bounds=place.position_bounds,
            position_bounds_offset=place.position_bounds_offset,
            batch_size=config.batch_size,
            output_units=config.output_units,
            dt=config.dt,
            zero_padding=place.zero_padding,
        )
        # Labels are repeated in the step. Without the barrier they would not be repeated here as in
        # synthpix, and jax 0.12 would compile them to other last bits.
        labels, moving = lax.optimization_barrier(adapted)
        return labels[: config.records_per_flow_batch], moving

    def keys(self, origin: Origin, repetition: Int[Array, ""]) -> PairKeys:
        """Return synthpix's keys."""
        return synthpix_keys(origin.seeds, repetition)

    def render(
        self, keys: UInt32[Array, "n k"], moving: Float[Array, "f b a 2"]
    ) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], ImageGenerationParameters]:
        """Return the images of synthpix, which draws all pairs of a batch from its first key."""
        place = self._place
        mask, histogram = self._config.mask_image, self._config.histogram_counts
        images1, images2, params = generate_images_from_flow(
            keys[0],
            moving,
            place.specification,
            position_bounds=place.position_bounds,
            flow_field_res_x=place.grid_steps[1],
            flow_field_res_y=place.grid_steps[0],
            mask=None if mask is None else jnp.asarray(mask),
            histogram=None if histogram is None else jnp.asarray(histogram),
        )
        return images1, images2, params
