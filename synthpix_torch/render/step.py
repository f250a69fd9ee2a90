"""The jitted step: a flow batch on the device and a repetition become images and labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped, UInt32
from synthpix.data_generate import generate_images_from_flow
from synthpix.types import ImageGenerationParameters
from synthpix.utils import flow_field_adapter

from synthpix_torch.config.config import Config
from synthpix_torch.data.flow_batches import FlowBatch
from synthpix_torch.data.generators import GENERATORS
from synthpix_torch.render.geometry import Geometry, geometry
from synthpix_torch.render.particles import CPU_WORKING_BYTES, GPU_WORKING_BYTES, render_pairs

NOT_TUNED: Final = {"xla_gpu_autotune_level": 0}
"""XLA would choose matrix products and fusions for a GPU by time, and with them the bits."""

BITS: Final = {"particles": 1, "synthpix": 1}
"""Version of the bits of each renderer; a state of another version is refused."""

_RANDOM_FLAGS: Final = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_enable_custom_prng",
)

_MakeImages = Callable[..., tuple[Array, Array, ImageGenerationParameters]]


class Appearance(NamedTuple):
    """How batches look, a part of what the stream is.

    Attributes:
        renderer: "particles" is ours, "synthpix" gives synthpix's bits, flow fields included.
        layout: "torch" for channels before height and width, "synthpix" for synthpix's own.
        image_dtype: "float32", "float16" or "bfloat16".
        scale_images: Whether grey levels run from 0 to 1 instead of 0 to 255.
    """

    renderer: str = "particles"
    layout: str = "torch"
    image_dtype: str = "float32"
    scale_images: bool = False


class Loaded(NamedTuple):
    """A flow batch on the device, ready for all its repetitions.

    Attributes:
        labels: Displacements on the grid of the labels, in pixels or the configured unit.
        flow_fields: Velocities that move the particles; of real images nothing.
        images: The real images; of rendered ones nothing.
        records: Seeds, epochs and validity of the records, in this order.
    """

    labels: Float[Array, "f h w 2"]
    flow_fields: Num[Array, "f y x 2"] | None
    images: Num[Array, "f 2 h w"] | None
    records: Int[Array, "3 f"]


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
    """

    images: tuple[Shaped[Array, "..."], ...]
    flow_fields: Shaped[Array, "n a b c"]
    params: ImageGenerationParameters | None
    done: Bool[Array, " n"] | None
    mask: Bool[Array, " n"]
    epoch: Int[Array, " n"]
    seeds: Int[Array, " n"]
    keys: UInt32[Array, "n 2"]


class Renderer:
    """Turns flow batches into batches on one device, two compiled functions and no state."""

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
        self._adapt: Callable[[Array], tuple[Array, Array]] | None = None
        render: Callable[..., tuple[Array, Array, ImageGenerationParameters | None]] = _as_recorded
        if not config.include_images:
            place = geometry(config, flow_field_shape, device)
            self._adapt = _compiled(_adapt, config=config, place=place)
            make_images = _image_maker(appearance.renderer, device)
            render = partial(_render, make_images=make_images, config=config, place=place)
            self._generate = _compiled(_generate, config=config, place=place)
        self._step = _compiled(
            _step,
            render=render,
            batch_size=config.batch_size,
            episodic=config.episode_length > 0,
            appearance=appearance,
        )

    def load(self, flow_batch: FlowBatch) -> Loaded:
        """Put a flow batch on the device or make it there; returns before the work is done."""
        records = np.stack([flow_batch.seeds, flow_batch.epochs, flow_batch.valid])
        host = (flow_batch.flow_fields, flow_batch.images, records.astype(np.uint32).view(np.int32))
        flow_fields, images, on_device = jax.device_put(host, self._device)
        if self._adapt is None:
            return Loaded(flow_fields, None, images, on_device)
        if flow_fields is None:
            numbers = jax.device_put(flow_batch.record_numbers.astype(np.int32), self._device)
            labels, moving = self._generate(numbers)
        else:
            labels, moving = self._adapt(flow_fields)
        return Loaded(labels, moving, None, on_device)

    def render(self, loaded: Loaded, *, repetition: int, last_step: bool) -> Rendered:
        """Dispatch one batch: one call of one compiled function, which returns at once."""
        rendered: Rendered = self._step(loaded, np.int32(repetition), np.bool_(last_step))
        return rendered

    def check_flags(self) -> None:
        """Raise if what is made now would have other bits.

        Raises:
            RuntimeError: JAX's random flags have changed since this object was made.
        """
        now = random_flags()
        if now != self._flags:
            changes = ", ".join(
                f"{flag} from {self._flags[flag]} to {value}"
                for flag, value in now.items()
                if value != self._flags[flag]
            )
            raise RuntimeError(
                f"JAX's settings have changed since the dataset was made: {changes}. Other random "
                "numbers would follow: set them back, or make a new dataset."
            )


def _compiled(function: Callable[..., Any], **fixed: Any) -> Any:
    return jax.jit(partial(function, **fixed), compiler_options=NOT_TUNED)


def random_flags() -> dict[str, Any]:
    """The settings of JAX, as they are in this thread, that random numbers depend on."""
    return {flag: getattr(jax.config, flag) for flag in _RANDOM_FLAGS}


def _adapt(
    flow_fields: Num[Array, "f y x c"], *, config: Config, place: Geometry
) -> tuple[Float[Array, "f h w 2"], Float[Array, "f b a 2"]]:
    """Labels on the grid of the images, velocities on that of the particles."""
    labels, moving = flow_field_adapter(
        flow_fields,
        new_flow_field_shape=place.label_shape,
        image_shape=config.image_shape,
        img_offset=place.specification.img_offset,
        resolution=config.resolution,
        res_x=place.grid_steps[1],
        res_y=place.grid_steps[0],
        position_bounds=place.position_bounds,
        position_bounds_offset=place.position_bounds_offset,
        # As many labels as flow fields: those of a batch are repeated in the step.
        batch_size=config.records_per_flow_batch,
        output_units=config.output_units,
        dt=config.dt,
        zero_padding=place.zero_padding,
    )
    return labels, moving


def _generate(
    record_numbers: Int[Array, " f"], *, config: Config, place: Geometry
) -> tuple[Float[Array, "f h w 2"], Float[Array, "f b a 2"]]:
    """As `_adapt`, of flow fields made on the device."""
    generate = GENERATORS[config.scheduler_class or ""](config, False).generate
    assert generate is not None
    return _adapt(generate(record_numbers), config=config, place=place)


def _image_maker(renderer: str, device: jax.Device) -> _MakeImages:
    """What makes images of flow fields, with the arguments of synthpix's own function."""
    make_images: _MakeImages = generate_images_from_flow
    if renderer == "particles":
        on_cpu = device.platform == "cpu"
        bound = CPU_WORKING_BYTES if on_cpu else GPU_WORKING_BYTES
        make_images = partial(render_pairs, working_bytes=bound)
    return make_images


def _render(
    key: UInt32[Array, "2"],
    loaded: Loaded,
    *,
    make_images: _MakeImages,
    config: Config,
    place: Geometry,
) -> tuple[Array, Array, ImageGenerationParameters]:
    return make_images(
        key,
        loaded.flow_fields,
        place.specification,
        position_bounds=place.position_bounds,
        flow_field_res_x=place.grid_steps[1],
        flow_field_res_y=place.grid_steps[0],
        mask=None if config.mask_image is None else jnp.asarray(config.mask_image),
        histogram=None if config.histogram_counts is None else jnp.asarray(config.histogram_counts),
    )


def _as_recorded(key: UInt32[Array, "2"], loaded: Loaded) -> tuple[Array, Array, None]:
    assert loaded.images is not None
    return loaded.images[:, 0], loaded.images[:, 1], None


def _step(
    loaded: Loaded,
    repetition: Int[Array, ""],
    last_step: Bool[Array, ""],
    *,
    render: Callable[..., tuple[Array, Array, ImageGenerationParameters | None]],
    batch_size: int,
    episodic: bool,
    appearance: Appearance,
) -> Rendered:
    slots = jnp.arange(batch_size)
    seeds, epoch, valid = loaded.records[:, slots % loaded.records.shape[1]]
    mask = valid.astype(bool)
    keys = jax.vmap(jax.random.PRNGKey)(seeds)
    if loaded.images is None:
        fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, 0))
        keys = fold_in(fold_in(keys, slots), jnp.broadcast_to(repetition, slots.shape))
    # synthpix draws all pairs of a batch from its first key.
    images1, images2, params = render(keys[0], loaded)
    # A gather, so that each batch has labels of its own, which may be written to.
    labels = loaded.labels[slots % loaded.labels.shape[0]].astype(jnp.float32)
    images, flow_fields = _laid_out(images1, images2, labels, mask, appearance)
    done = jnp.broadcast_to(last_step, (batch_size,)) if episodic else None
    return Rendered(images, flow_fields, params, done, mask, epoch, seeds, keys)


def _laid_out(
    images1: Num[Array, "n h w"],
    images2: Num[Array, "n h w"],
    labels: Float[Array, "n y x 2"],
    mask: Bool[Array, " n"],
    appearance: Appearance,
) -> tuple[tuple[Array, ...], Array]:
    """Bring images and labels to their final layout, range and dtype; empty slots become zero."""
    labels = jnp.where(mask[:, None, None, None], labels, 0)

    def finish(image: Array) -> Array:
        image = jnp.where(mask[:, None, None], image.astype(jnp.float32), 0)
        image = image / 255 if appearance.scale_images else image
        return image.astype(appearance.image_dtype)

    if appearance.layout == "synthpix":
        return (finish(images1), finish(images2)), labels
    pair = jnp.stack([finish(images1), finish(images2)], axis=1)
    return (pair,), jnp.moveaxis(labels, 3, 1)
