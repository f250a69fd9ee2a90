"""Batch n as a pure function of the configuration and n."""

from __future__ import annotations

import math
import weakref
from typing import Final

import jax

from synthpix_torch.batch import AnyBatch
from synthpix_torch.checks import check_integer
from synthpix_torch.config.config import Config
from synthpix_torch.config.fingerprint import short
from synthpix_torch.config.keys import KEYS
from synthpix_torch.data.flow_batches import Flows
from synthpix_torch.data.records import FlowFieldSource, Records
from synthpix_torch.interop.cpu import instruction_set
from synthpix_torch.interop.dlpack import Bridge
from synthpix_torch.interop.versions import version_of
from synthpix_torch.render.flags import random_flags
from synthpix_torch.render.output import Appearance
from synthpix_torch.render.renderers import RENDERERS
from synthpix_torch.render.step import Renderer
from synthpix_torch.stream.order import Order
from synthpix_torch.stream.run import Run, Stages
from synthpix_torch.stream.state import LAST_NUMBER, Description

MADE_WITH: Final = (
    "synthpix_torch",
    "synthpix",
    "jax",
    "jaxlib",
    "grain",
    "numpy",
    "scipy",
    "pillow",
)
"""Packages whose versions may change bits in the last place."""

_NEUTRAL: Final = {
    "streams": "1",
    "layout": "torch",
    "image_dtype": "float32",
    "scale_images": "false",
    "jax_enable_x64": "false",
    "jax_threefry_partitionable": "true",
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": "0",
    "jax_enable_custom_prng": "false",
}


class Stream:
    """The sequence of batches that a configuration defines.

    Batch n depends on the configuration and n alone: there is no position and no history. Several
    runs, on any ranks, yield the same batches.

    Attributes:
        config: The configuration.
        order: Which flow batch makes which batch.
        flows: The flow batches.
        renderer: Turns flow batches into the arrays of a batch.
        bridge: Turns the arrays into tensors.
        description: What a state of this stream is checked against.
    """

    def __init__(
        self,
        config: Config,
        *,
        source: FlowFieldSource | None,
        streams: int,
        appearance: Appearance,
        device: jax.Device,
    ) -> None:
        """Open the data; nothing is rendered or compiled yet.

        Args:
            config: The configuration.
            source: Flow fields of the user's own in place of those that `config` names.
            streams: Flow batches that are interleaved.
            appearance: How batches look.
            device: Where batches are made.

        Raises:
            FileNotFoundError: A file that the configuration names does not exist.
            ValueError: The data or the configuration cannot be used.
            RuntimeError: JAX is set to make typed keys.
        """
        scaled = appearance.scale_images or appearance.image_dtype != "float32"
        records = Records(
            config,
            source,
            exact=appearance.renderer == "synthpix",
            brightest=255 if scaled else math.inf,
        )
        # With recorded images it has their shape.
        self.config = config = records.config
        self.flows = Flows(config, records)
        self.order = _order(config, self.flows, records, streams)
        self.bridge = Bridge()
        assert records.shape is not None
        self.renderer = Renderer(config, records.shape, appearance=appearance, device=device)
        self.description = _describe(config, records, appearance, streams, self.order, device)
        self._origin = config.scheduler_class if source is None else type(source).__name__
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()

    @property
    def total(self) -> int | None:
        """Number of batches in the stream, None if it never ends."""
        return self.order.total

    @property
    def batches_per_epoch(self) -> float:
        """Batches of the stream until all records were served once; rarely a whole number."""
        return self.flows.records / self.config.batch_size * self.config.repetitions

    @property
    def summary(self) -> str:
        """The content of the stream in a line."""
        config = self.config
        height, width = config.image_shape
        kind = "recorded" if config.include_images else self.description.values["renderer"]
        return (
            f"{'an endless stream' if self.total is None else self.total}: {config.batch_size} "
            f"image pairs of {height} x {width} px ({kind}), flow fields from {self._origin}"
        )

    def check_number(self, number: int, *, last: int) -> None:
        """Raise unless `number` is that of a batch.

        Args:
            number: Number of a batch.
            last: 1 for a batch of the stream; 0 if the end of the stream is allowed too.

        Raises:
            TypeError: `number` is not an integer.
            ValueError: The stream has no such batch.
        """
        check_integer("The number of a batch", number, 0, self.description.last)
        if self.total is not None and number > self.total - last:
            raise ValueError(
                f"The stream has no batch {number}: it ends with batch {self.total - 1}."
            )

    def batch(self, number: int) -> AnyBatch:
        """Make batch `number`, which must lie in the stream.

        Takes the time to read its flow fields, wherever in the stream it lies.
        """
        run = self.run(number, stop=number + 1)
        try:
            return next(run)
        finally:
            run.close()

    def run(self, start: int, *, stride: int = 1, stop: int | None = None, ahead: int = 0) -> Run:
        """Make the batches start, start + stride, ... before `stop`, which lie in the stream."""
        stages = Stages(self.order, self.flows, self.renderer, self.bridge, self.config.batch_size)
        run = Run(stages, start, stride=stride, stop=stop, ahead=ahead)
        self._runs.add(run)
        return run

    def close(self) -> None:
        """Close all runs; new ones can be made."""
        for run in tuple(self._runs):
            run.close()


def _order(config: Config, flows: Flows, records: Records, streams: int) -> Order:
    if config.episode_length:
        units = None if config.loop else records.episodes
        return Order(config.episode_length, streams, units, episodic=True)
    return Order(config.repetitions, streams, flows.count)


def _describe(
    config: Config,
    records: Records,
    appearance: Appearance,
    streams: int,
    order: Order,
    device: jax.Device,
) -> Description:
    values = {key: value for group in config.fingerprint().values() for key, value in group.items()}
    values |= records.identity()
    values |= {"streams": str(streams), "bits": str(RENDERERS[appearance.renderer].version)}
    values |= {key: short(value) for key, value in appearance._asdict().items()}
    values |= {flag: short(value) for flag, value in random_flags().items()}
    size = config.records_per_flow_batch
    return Description(
        values=values,
        neutral=_NEUTRAL | {key: text for key in KEYS if (text := config.neutral(key)) is not None},
        made_with={
            **{name: version_of(name) for name in MADE_WITH},
            "device": f"{device.device_kind}, {instruction_set()}",
        },
        next_index=lambda position: order.first_flow_batch(position) * size,
        total=order.total,
        # Pairs are counted in 64 bits.
        last=min(LAST_NUMBER, 2**62 // config.batch_size),
    )
