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
            final layout but for recorded images, and those of the batch if there is but one.
        flow_fields: Velocities that move the particles; of real images nothing.
        images: The real images; of rendered ones nothing.
        records: Seeds, epochs and validity of the records, in this order.
        pairs: Number of each pair of a batch in the stream of pairs: high and low 32 bits.
    """

    labels: Num[Array, "f a b c"] | None
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
        adapt: Makes labels and velocities of flow fields and the `records` of a `Loaded`; None for
            recorded images.
        generate: The same of record numbers and `records`.
        step: Makes a batch of a `Loaded`, a repetition and whether it ends an episode; without
            labels if the `Loaded` has none.
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
        # A flow batch that is used once leaves its labels to the batch, instead of a copy.
        self._used_once = not config.include_images and config.repetitions == 1
        self.adapt: Any = None
        self.generate: Any = None
        renderer: PairRenderer | None = None
        if not config.include_images:
            renderer = RENDERERS[appearance.renderer](config, flow_field_shape, device)
            final = {
                "renderer": renderer,
                "appearance": appearance,
                "batch_size": config.batch_size if self._used_once else None,
            }
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
            labels, moving = self._turns.call(self.generate, numbers, origin[0])
        else:
            labels, moving = self._turns.call(self.adapt, flow_fields, origin[0])
            moving = flow_fields if moving is None else moving
        return Loaded(labels, moving, None, *origin)

    @shielded
    def render(self, loaded: Loaded, *, repetition: int, last_step: bool) -> Rendered:
        """Dispatch one batch: one call of one compiled function, which returns at once."""
        labels = loaded.labels
        assert labels is not None
        if self._used_once:
            loaded = loaded._replace(labels=None)
        arguments = loaded, np.int32(repetition), np.bool_(last_step)
        rendered: Rendered = self._turns.call(self.step, *arguments)
        self._turns.end()
        return rendered._replace(flow_fields=labels) if self._used_once else rendered

    def check_flags(self) -> None:
        """Check that JAX's random flags are those of the time when this object was made.

        Raises:
            RuntimeError: A flag has changed.
        """
        check_random_flags(self._flags)


def _compiled(function: Callable[..., Any], **fixed: Any) -> Any:
    return jax.jit(partial(function, **fixed), compiler_options=NOT_TUNED)


def _adapt(
    flow_fields: Num[Array, "f y x c"],
    records: Int[Array, "3 f"],
    *,
    renderer: PairRenderer,
    appearance: Appearance,
    batch_size: int | None,
) -> tuple[Float[Array, "n ..."], Float[Array, "f b a k"] | None]:
    """Make labels in their final layout, and what moves particles if not the fields themselves.

    With a batch size, labels are those of the batch; else one for each record.
    """
    labels, moving = renderer.adapt(flow_fields)
    if renderer.fluid is not None:
        labels = jnp.where(renderer.fluid[..., None], labels, 0)
    labels = lay_out_labels(labels, appearance=appearance)
    if batch_size is not None:
        labels = _of_batch(labels, _valid(records, batch_size))
    return labels, moving


def _generate(
    record_numbers: Int[Array, " f"], records: Int[Array, "3 f"], *, config: Config, **fixed: Any
) -> tuple[Float[Array, "n ..."], Float[Array, "f b a k"]]:
    """Make flow fields on the device, and adapt them."""
    generate = GENERATORS[config.scheduler_class or ""](config, False).generate
    assert generate is not None
    flow_fields = generate(record_numbers)
    labels, moving = _adapt(flow_fields, records, **fixed)
    return labels, flow_fields if moving is None else moving


def _valid(records: Int[Array, "3 f"], batch_size: int) -> Bool[Array, " n"]:
    """Return whether each slot of a batch holds data."""
    return records[2, jnp.arange(batch_size) % records.shape[1]].astype(bool)


def _of_batch(labels: Num[Array, "f a b c"], valid: Bool[Array, " n"]) -> Num[Array, "n a b c"]:
    """Return labels for each slot of a batch in memory of their own; zero in empty slots."""
    repeated = jnp.tile(labels, (-(-len(valid) // len(labels)), 1, 1, 1))[: len(valid)]
    return jnp.where(valid[:, None, None, None], repeated, 0)


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
    seeds, epoch, _ = loaded.records[:, record]
    mask = _valid(loaded.records, batch_size)
    params: ImageGenerationParameters | None = None
    if renderer is None:
        assert loaded.images is not None
        keys = record_keys(seeds)
        images1, images2 = loaded.images[:, 0], loaded.images[:, 1]
    else:
        assert loaded.flow_fields is not None
        keys = renderer.keys(Origin(seeds, loaded.pairs[:, record], loaded.pairs), repetition)
        images1, images2, params = renderer.render(keys.keys, loaded.flow_fields)
    labels: Any = loaded.labels
    if renderer is None:
        labels = lay_out_labels(labels.astype(jnp.float32), appearance=appearance)
    if labels is not None:
        labels = _of_batch(labels, mask)
    valid_labels: Bool[Array, "n y x"] | None = None
    if renderer is not None and renderer.fluid is not None:
        valid_labels = mask[:, None, None] & renderer.fluid
    images = lay_out_images(images1, images2, valid=mask, appearance=appearance)
    done = jnp.broadcast_to(last_step, (batch_size,)) if episodic else None
    bits = jnp.where(mask, keys.seeds, 0)
    return Rendered(images, labels, params, done, mask, epoch, bits, keys.keys, valid_labels)
