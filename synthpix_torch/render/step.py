"""The jitted step: a flow batch on the device and a repetition become images and labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped, UInt32
from synthpix.types import ImageGenerationParameters

from synthpix_torch.config.config import Config
from synthpix_torch.data.flow_batches import FlowBatch
from synthpix_torch.data.generators import GENERATORS
from synthpix_torch.render.flags import check_random_flags, random_flags, shielded
from synthpix_torch.render.keys import Origin, record_keys
from synthpix_torch.render.output import Appearance, lay_out_images, lay_out_labels
from synthpix_torch.render.renderers import RENDERERS, PairRenderer
from synthpix_torch.render.turns import Turns

NOT_TUNED: Final = {"xla_gpu_autotune_level": 0}
"""XLA would choose matrix products and fusions for a GPU by time, and with them the bits."""


class Loaded(NamedTuple):
    """A flow batch on the device, ready for all its repetitions.

    Attributes:
        labels: Displacements on the grid of the labels, in pixels or the configured unit; in the
            final layout but for recorded images.
        flow_fields: Velocities that move the particles; of real images nothing.
        images: The real images; of rendered ones nothing.
        records: Seeds, epochs and validity of the records, in this order.
        pairs: Number of each pair of a batch in the stream of pairs: high and low 32 bits.
    """

    labels: Num[Array, "f a b c"]
    flow_fields: Num[Array, "f y x c"] | None
    images: Num[Array, "f 2 h w"] | None
    records: Int[Array, "3 f"]
    pairs: UInt32[Array, "2 n"]


class Rendered(NamedTuple):
    """The device arrays of one batch, none of which shares memory with another batch.

    Attributes:
        images: The pairs, (n, 2, h, w) in torch's layout, else both images (n, h, w).
        flow_fields: (n, 2, h, w) in torch's layout, else (n, h, w, 2).
        params: What synthpix drew for each pair; None for real images.
        done: Whether each episode ends with this batch; None without episodes.
        mask: Whether each slot of the batch holds data.
        epoch: How often the data had been used up before each record.
        seeds: The bits of each record's seed.
        keys: The key of each pair.
        valid_flow_mask: Whether each label lies in the fluid; None without a body in the flow.
    """

    images: tuple[Shaped[Array, "..."], ...]
    flow_fields: Shaped[Array, "n a b c"]
    params: ImageGenerationParameters | None
    done: Bool[Array, " n"] | None
    mask: Bool[Array, " n"]
    epoch: Int[Array, " n"]
    seeds: Int[Array, " n"]
    keys: UInt32[Array, "n k"]
    valid_flow_mask: Bool[Array, "n y x"] | None


class Renderer:
    """Turns flow batches into batches on one device, with compiled functions and no state.

    Attributes:
        adapt: Makes labels and velocities of flow fields; None for recorded images.
        generate: Makes labels and velocities of record numbers; None for recorded images.
        step: Makes a batch of a `Loaded`, a repetition and whether it ends an episode.
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
        self.adapt: Any = None
        self.generate: Any = None
        renderer: PairRenderer | None = None
        if not config.include_images:
            renderer = RENDERERS[appearance.renderer](config, flow_field_shape, device)
            final = {"renderer": renderer, "appearance": appearance}
            self.adapt = _compiled(_adapt, **final)
            self.generate = _compiled(_generate, config=config, **final)
        self.step = _compiled(
            _step,
            renderer=renderer,
            batch_size=config.batch_size,
            episodic=config.episode_length > 0,
            appearance=appearance,
        )

    @shielded
    def load(self, flow_batch: FlowBatch) -> Loaded:
        """Put a flow batch on the device or make it there; returns before the work is done."""
        records = np.stack([flow_batch.seeds, flow_batch.epochs, flow_batch.valid])
        number = flow_batch.number * self._batch_size + np.arange(self._batch_size, dtype=np.uint64)
        host = (
            flow_batch.flow_fields,
            flow_batch.images,
            records.astype(np.uint32).view(np.int32),
            np.stack([number >> np.uint64(32), number & np.uint64(2**32 - 1)]).astype(np.uint32),
        )
        flow_fields, images, *origin = jax.device_put(host, self._device)
        if self.adapt is None:
            return Loaded(flow_fields, None, images, *origin)
        if flow_fields is None:
            numbers = jax.device_put(flow_batch.record_numbers.astype(np.int32), self._device)
            labels, moving = self._turns.call(self.generate, numbers)
        else:
            labels, moving = self._turns.call(self.adapt, flow_fields)
            moving = flow_fields if moving is None else moving
        return Loaded(labels, moving, None, *origin)

    @shielded
    def render(self, loaded: Loaded, *, repetition: int, last_step: bool) -> Rendered:
        """Dispatch one batch: one call of one compiled function, which returns at once."""
        arguments = loaded, np.int32(repetition), np.bool_(last_step)
        rendered: Rendered = self._turns.call(self.step, *arguments)
        self._turns.end()
        return rendered

    def check_flags(self) -> None:
        """Check that JAX's random flags are those of the time when this object was made.

        Raises:
            RuntimeError: A flag has changed.
        """
        check_random_flags(self._flags)


def _compiled(function: Callable[..., Any], **fixed: Any) -> Any:
    return jax.jit(partial(function, **fixed), compiler_options=NOT_TUNED)


def _adapt(
    flow_fields: Num[Array, "f y x c"], *, renderer: PairRenderer, appearance: Appearance
) -> tuple[Float[Array, "f ..."], Float[Array, "f b a k"] | None]:
    """Make labels in their final layout, and what moves particles if not the fields themselves."""
    labels, moving = renderer.adapt(flow_fields)
    if renderer.fluid is not None:
        labels = jnp.where(renderer.fluid[..., None], labels, 0)
    return lay_out_labels(labels, appearance=appearance), moving


def _generate(
    record_numbers: Int[Array, " f"],
    *,
    config: Config,
    renderer: PairRenderer,
    appearance: Appearance,
) -> tuple[Float[Array, "f ..."], Float[Array, "f b a k"]]:
    """Make flow fields on the device, and adapt them."""
    generate = GENERATORS[config.scheduler_class or ""](config, False).generate
    assert generate is not None
    flow_fields = generate(record_numbers)
    labels, moving = _adapt(flow_fields, renderer=renderer, appearance=appearance)
    return labels, flow_fields if moving is None else moving


def _step(
    loaded: Loaded,
    repetition: Int[Array, ""],
    last_step: Bool[Array, ""],
    *,
    renderer: PairRenderer | None,
    batch_size: int,
    episodic: bool,
    appearance: Appearance,
) -> Rendered:
    """Make a batch; without a renderer, of recorded images."""
    slots = jnp.arange(batch_size)
    record = slots % loaded.records.shape[1]
    seeds, epoch, valid = loaded.records[:, record]
    mask = valid.astype(bool)
    params: ImageGenerationParameters | None = None
    if renderer is None:
        assert loaded.images is not None
        keys = record_keys(seeds)
        images1, images2 = loaded.images[:, 0], loaded.images[:, 1]
    else:
        assert loaded.flow_fields is not None
        keys = renderer.keys(Origin(seeds, loaded.pairs[:, record], loaded.pairs), repetition)
        images1, images2, params = renderer.render(keys.keys, loaded.flow_fields)
    labels = loaded.labels
    if renderer is None:
        labels = lay_out_labels(labels.astype(jnp.float32), appearance=appearance)
    # Repeated, so that each batch has labels of its own, which may be written to.
    labels = jnp.tile(labels, (-(-batch_size // len(labels)), 1, 1, 1))[:batch_size]
    labels = jnp.where(mask[:, None, None, None], labels, 0)
    valid_labels: Bool[Array, "n y x"] | None = None
    if renderer is not None and renderer.fluid is not None:
        valid_labels = mask[:, None, None] & renderer.fluid
    images = lay_out_images(images1, images2, valid=mask, appearance=appearance)
    done = jnp.broadcast_to(last_step, (batch_size,)) if episodic else None
    bits = jnp.where(mask, keys.seeds, 0)
    return Rendered(images, labels, params, done, mask, epoch, bits, keys.keys, valid_labels)
