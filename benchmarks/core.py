"""Measure rendering and generating fields alone, against synthpix: python -m benchmarks.core."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count as counting
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from synthpix.data_generate import generate_images_from_flow
from synthpix.data_sources.kinematic import KinematicDataSource
from synthpix.types import ImageGenerationSpecification

from benchmarks.report import interleaved, ratio, spread, table, write
from synthpix_torch.data.kinematic import KinematicFields, KinematicSettings, kinematic_fields
from synthpix_torch.render.particles import render_pairs

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


def specification(size: int, batch: int, *, diameter: float) -> ImageGenerationSpecification:
    """Describe images with seeding density 0.05, noise and hidden particles."""
    return ImageGenerationSpecification(
        batch_size=batch,
        image_shape=(size, size),
        img_offset=(8, 8),
        seeding_density_range=(0.05, 0.05),
        p_hide_img1=0.01,
        p_hide_img2=0.01,
        diameter_ranges=[(diameter / 2, diameter)],
        diameter_var=0.1,
        intensity_ranges=[(100, 200)],
        intensity_var=1.0,
        rho_ranges=[(-0.2, 0.2)],
        rho_var=0.01,
        noise_uniform=2.0,
        noise_gaussian_std=1.0,
    )


def renderers(size: int, batch: int, *, diameter: float = 2.0) -> dict[str, Contender]:
    """Compile both renderers for the same batch."""
    spec, bounds = specification(size, batch, diameter=diameter), (size + 16, size + 16)
    source = KinematicFields(
        batch,
        KinematicSettings(extent=bounds, filter_sigma_range=(5.0, 20.0), scale_factor_range=SCALES),
    )
    fields = jnp.asarray(np.stack([source[i]["flow_fields"] for i in range(batch)]))
    theirs = jax.jit(lambda k: generate_images_from_flow(k, fields, spec, bounds))
    ours = jax.jit(
        lambda k: render_pairs(
            k,
            fields,
            specification=spec,
            position_bounds=bounds,
            flow_field_res_x=1.0,
            flow_field_res_y=1.0,
        )
    )
    keys = [jax.random.PRNGKey(i) for i in range(100)]
    return {
        "synthpix": lambda i: theirs(keys[i % 100]),
        "ours": lambda i: ours(keys[i % 100]),
    }


def field_sources(size: int, count: int) -> dict[str, Contender]:
    """Generate `count` fields of the default distribution by each of the three generators."""
    theirs = KinematicDataSource(
        image_shape=(size, size), filter_sigma_range=SIGMAS, scale_factor_range=SCALES
    )
    settings = KinematicSettings(
        extent=(size, size), filter_sigma_range=SIGMAS, scale_factor_range=SCALES
    )
    ours = KinematicFields(10**6, settings)
    device = jax.jit(lambda records: kinematic_fields(records, settings))

    def on_host(source: Any) -> Contender:
        return lambda i: [source[i * count + j]["flow_fields"] for j in range(count)]

    return {
        "synthpix": on_host(theirs),
        "host": on_host(ours),
        "device": lambda i: device(jnp.arange(count) + i * count),
    }


def main() -> None:
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
    write("core", "Rendering and flow fields alone", body)


if __name__ == "__main__":
    main()
