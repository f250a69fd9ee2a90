"""Flow batches on the device, and the batches that are rendered from them."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Integer, UInt32

from synthpix_torch.config.config import Config
from synthpix_torch.data.flow_batches import FlowBatch
from synthpix_torch.render.flags import check_random_flags, random_flags, shielded
from synthpix_torch.render.output import Appearance
from synthpix_torch.render.programs import Loaded, Rendered, programs, used_once
from synthpix_torch.render.renderers import RENDERERS, PairRenderer
from synthpix_torch.render.turns import Turns


class Renderer:
    """Turns flow batches into batches on one device, with compiled functions and no state.

    Attributes:
        programs: The compiled functions.
    """

    @shielded
    def __init__(
        self,
        config: Config,
        flow_field_shape: tuple[int, ...],
        *,
        appearance: Appearance,
        device: jax.Device,
    ) -> None:
        """Prepare to render; nothing is compiled before the first batch.

        Raises:
            ValueError: synthpix refuses the configuration.
            RuntimeError: JAX is set to make typed keys.
        """
        self._flags = random_flags()
        if self._flags["jax_enable_custom_prng"]:
            raise RuntimeError("torch has no typed random keys: leave jax_enable_custom_prng off.")
        self._device = device
        self._turns = Turns(device)
        self._batch_size = config.batch_size
        self._seed = config.seed
        self._used_once = used_once(config)
        self._recorded = config.include_images
        renderer: PairRenderer | None = None
        if not self._recorded:
            renderer = RENDERERS[appearance.renderer](config, flow_field_shape, device)
        self.programs = programs(
            config,
            renderer,
            flow_field_shape=flow_field_shape,
            appearance=appearance,
            device=device,
        )

    @shielded
    def load(self, flow_batch: FlowBatch) -> Loaded:
        """Put a flow batch on the device or make it there; returns before the work is done."""
        about = np.stack([flow_batch.seeds, flow_batch.epochs, flow_batch.valid])
        number = flow_batch.number * self._batch_size + np.arange(self._batch_size, dtype=np.uint64)
        host = (
            flow_batch.flow_fields,
            flow_batch.images,
            about.astype(np.uint32).view(np.int32),
            self._seeded(number >> np.uint64(32), number & np.uint64(2**32 - 1)),
        )
        flow_fields, images, records, pairs = jax.device_put(host, self._device)
        if self._recorded:
            return Loaded(flow_fields, None, images, records, pairs)
        if flow_fields is None:
            numbers = jax.device_put(self._seeded(flow_batch.record_numbers), self._device)
            labels, moving = self._turns.call(self.programs.generate, numbers, records)
        else:
            labels, moving = self._turns.call(self.programs.adapt, flow_fields, records)
            moving = flow_fields if moving is None else moving
        return Loaded(labels, moving, None, records, pairs)

    @shielded
    def render(self, loaded: Loaded, *, repetition: int, last_step: bool) -> Rendered:
        """Dispatch one batch: one call of one compiled function, which returns at once."""
        labels = loaded.labels
        assert labels is not None
        if self._used_once:
            loaded = loaded._replace(labels=None)
        arguments = loaded, np.int32(repetition), np.bool_(last_step)
        rendered: Rendered = self._turns.call(self.programs.step, *arguments)
        self._turns.end()
        return rendered._replace(flow_fields=labels) if self._used_once else rendered

    def _seeded(self, *numbers: Integer[np.ndarray, " n"]) -> UInt32[np.ndarray, "rows n"]:
        """Stack the seed and numbers below 2^32."""
        seeds = np.full_like(numbers[0], self._seed)
        return np.stack([seeds, *numbers]).astype(np.uint32)

    def check_flags(self) -> None:
        """Check that JAX's random flags are those of the time when this object was made.

        Raises:
            RuntimeError: A flag has changed.
        """
        check_random_flags(self._flags)
