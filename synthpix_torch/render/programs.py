"""The compiled functions that make batches, shared by all datasets that need the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, Shaped, UInt32
from synthpix.types import ImageGenerationParameters

from synthpix_torch.config.config import Config
from synthpix_torch.data.generators import GENERATORS
from synthpix_torch.render.flags import random_flags
from synthpix_torch.render.keys import Origin, record_keys
from synthpix_torch.render.output import Appearance, lay_out_images, lay_out_labels
from synthpix_torch.render.renderers import PairRenderer

NOT_TUNED: Final = {"xla_gpu_autotune_level": 0}
"""XLA would choose matrix products and fusions for a GPU by time, and with them the bits."""

_OF_RECORDS: Final = frozenset(
    {"seed", "randomize", "loop", "num_examples", "flow_variables", "image_variables"}
)
"""Keys that decide which records are read, and no program."""

_KEPT: Final = 16
"""Sets of programs that are kept when their datasets are gone."""


class Loaded(NamedTuple):
    """A flow batch on the device, ready for all its repetitions.

    Attributes:
        labels: Displacements on the grid of the labels, in pixels or the configured unit; in the
            final layout but for recorded images. Those of a flow batch that makes one batch are its
            own, and `step` receives None in their place.
        flow_fields: Velocities that move the particles; of real images nothing.
        images: The real images; of rendered ones nothing.
        records: Seeds, epochs and validity of the records, in this order.
        pairs: The seed of the configuration, and the number of each pair of a batch in the stream
            of pairs: high and low 32 bits. As an argument, the seed compiles nothing again; one for
            each pair, it needs no kernel of its own on a GPU.
    """

    labels: Num[Array, "f a b c"] | None
    flow_fields: Num[Array, "f y x c"] | None
    images: Num[Array, "f 2 h w"] | None
    records: Int[Array, "3 f"]
    pairs: UInt32[Array, "3 n"]


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


class Programs(NamedTuple):
    """The compiled functions of a configuration.

    Attributes:
        adapt: Makes labels and velocities of flow fields and the `records` of a `Loaded`.
        generate: The same of the seed and the number of each record, and `records`.
        step: Makes a batch of a `Loaded`, a repetition and whether it ends an episode; without
            labels if the `Loaded` has none.
    """

    adapt: Any
    generate: Any
    step: Any


@dataclass(frozen=True)
class _Case:
    """The sources of a set of programs; cases of equal identity share one set."""

    identity: tuple[Any, ...]
    config: Config = field(compare=False)
    renderer: PairRenderer | None = field(compare=False)
    appearance: Appearance = field(compare=False)


def programs(
    config: Config,
    renderer: PairRenderer | None,
    *,
    flow_field_shape: tuple[int, ...],
    appearance: Appearance,
    device: jax.Device,
) -> Programs:
    """Return the programs of a configuration, which may have been made for another dataset.

    Args:
        config: Its seed, and what decides only which records are read, are not looked at.
        renderer: That of this configuration; None for recorded images.
        flow_field_shape: Rows, columns and components of each flow field.
        appearance: The requested layout, range and dtype.
        device: The device of the renderer.
    """
    values = {key: text for group in config.fingerprint().values() for key, text in group.items()}
    kept = tuple(item for item in values.items() if item[0] not in _OF_RECORDS)
    flags = tuple(random_flags().values())
    identity = (kept, flow_field_shape, appearance, device, flags)
    return _programs(_Case(identity, config, renderer, appearance))


def used_once(config: Config) -> bool:
    """Tell whether a flow batch is rendered once: its labels are those of the batch, not copied."""
    return not config.include_images and config.repetitions == 1


@lru_cache(_KEPT)
def _programs(case: _Case) -> Programs:
    config, renderer, appearance = case.config, case.renderer, case.appearance
    final = {
        "renderer": renderer,
        "appearance": appearance,
        "batch_size": config.batch_size if used_once(config) else None,
    }
    return Programs(
        adapt=_compiled(_adapt, **final),
        generate=_compiled(_generate, config=config, **final),
        step=_compiled(
            _step,
            renderer=renderer,
            batch_size=config.batch_size,
            episodic=config.episode_length > 0,
            appearance=appearance,
        ),
    )


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
    numbers: UInt32[Array, "2 f"], records: Int[Array, "3 f"], *, config: Config, **fixed: Any
) -> tuple[Float[Array, "n ..."], Float[Array, "f b a k"]]:
    """Make flow fields on the device, and adapt them."""
    generate = GENERATORS[config.scheduler_class or ""](config, False).generate
    assert generate is not None
    flow_fields = generate(numbers)
    labels, moving = _adapt(flow_fields, records, **fixed)
    return labels, flow_fields if moving is None else moving


def _valid(records: Int[Array, "3 f"], batch_size: int) -> Bool[Array, " n"]:
    """Return whether each slot of a batch holds data."""
    return jnp.tile(records[2], -(-batch_size // records.shape[1]))[:batch_size].astype(bool)


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
        origin = Origin(seeds, loaded.pairs[:, record], loaded.pairs)
        keys = renderer.keys(origin, repetition)
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
