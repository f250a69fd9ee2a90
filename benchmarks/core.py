"""Measure rendering and generating fields alone, against synthpix: python -m benchmarks.core."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count as counting
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from synthpix.data_sources.kinematic import KinematicDataSource

from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch.config.config import Config
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.kinematic import KinematicFields, KinematicSettings, kinematic_fields
from synthpix_torch.render.renderers import RENDERERS

Contender = Callable[[int], Any]
SIGMAS, SCALES = (5.0, 100.0), (0.0, 8.0)
FIELDS = ((256, 8), (1024, 2))


def timed(contender: Contender, *, per: int) -> Callable[[], float]:
    """Measure a contender that makes `per` items at a time, in seconds per item."""
    turns = counting()

    def once() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(contender(next(turns)))
        return (time.perf_counter() - begin) / per

    return once


def scene(size: int, batch: int, *, diameter: float) -> tuple[Config, jax.Array]:
    """Configure images with noise and hidden particles, and generate their flow fields."""
    config = read_config(
        kinematic(
            size,
            batch_size=batch,
            flow_fields_per_batch=batch,
            diameter_ranges=[(diameter / 2, diameter)],
        )
    )
    source = KinematicFields(batch, KinematicSettings.from_config(config))
    return config, jnp.asarray(np.stack([source[i]["flow_fields"] for i in range(batch)]))


def many_keys(batch: int) -> jax.Array:
    """Make the keys of 100 batches."""
    return jax.random.split(jax.random.PRNGKey(0), 100 * batch).reshape(100, batch, 2)


def renderers(size: int, batch: int, *, diameter: float = 2.0) -> dict[str, Contender]:
    """Compile both renderers for the same batch."""
    config, fields = scene(size, batch, diameter=diameter)
    keys = many_keys(batch)

    def contender(name: str) -> Contender:
        renderer = RENDERERS[name](config, fields.shape[1:], jax.devices()[0])
        _, adapted = jax.jit(renderer.adapt)(fields)
        moving = fields if adapted is None else adapted
        render = jax.jit(renderer.render)
        return lambda i: render(keys[i % 100], moving)

    return {"synthpix": contender("synthpix"), "ours": contender("particles")}


def numbers_of(turn: int, count: int) -> npt.NDArray[np.uint32]:
    """Return what the device makes the next `count` fields of: a seed and their numbers."""
    numbers = np.arange(count, dtype=np.uint32) + np.uint32(turn * count)
    return np.stack([np.zeros_like(numbers), numbers])


def field_sources(size: int, count: int) -> dict[str, Contender]:
    """Generate `count` fields of the default distribution by each of the three generators."""
    theirs = KinematicDataSource(
        image_shape=(size, size), filter_sigma_range=SIGMAS, scale_factor_range=SCALES
    )
    settings = KinematicSettings(
        extent=(size, size), filter_sigma_range=SIGMAS, scale_factor_range=SCALES
    )
    ours = KinematicFields(10**6, settings)
    program = jax.jit(partial(kinematic_fields, settings=settings))

    def on_host(source: Any) -> Contender:
        return lambda i: [source[i * count + j]["flow_fields"] for j in range(count)]

    return {
        "synthpix": on_host(theirs),
        "host": on_host(ours),
        "device": lambda turn: program(numbers_of(turn, count)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    rows = []
    races: list[tuple[str, dict[str, Contender], int]] = [
        *(
            (f"pair of {size} px, batch {batch}, diameter 2", renderers(size, batch), batch)
            for size, batch in ((128, 8), (128, 16), (256, 8), (256, 16))
        ),
        ("pair of 256 px, batch 8, diameter 4", renderers(256, 8, diameter=4.0), 8),
        *((f"field of {size} px", field_sources(size, many), many) for size, many in FIELDS),
    ]
    for title, contenders, per in races:
        measured = interleaved({k: timed(v, per=per) for k, v in contenders.items()}, rounds=9)
        for name, seconds in measured.items():
            faster = f"{ratio(measured['synthpix'], seconds):.1f}"
            rows.append([title, name, spread(seconds), faster])
    body = table(["what", "who", "ms each", "times synthpix"], rows)
    body += "\n\nMedian and quartiles of 9 rounds. Seeding density 0.05, sigma 5 to 100 px."
    write("core", "Rendering and flow fields alone", body, folder=options.output)


if __name__ == "__main__":
    main()
