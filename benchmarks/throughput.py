"""Pairs per second of the whole pipeline: python -m benchmarks.throughput.

synthpix's sampler, the naive way into torch (a NumPy copy of each array) and this package take
turns. Every batch needs new flow fields: flow_fields_per_batch = batch_size, one batch per flow
batch, kinematic fields with the default range of sigma (5 to 100 px).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.pipelines import kinematic, sampler
from benchmarks.report import interleaved, ratio, spread, table, write
from synthpix_torch import SynthPixDataset


def naive(config: dict[str, Any]) -> Iterator[Any]:
    for batch in sampler(config):
        yield [
            torch.from_numpy(np.array(array))
            for array in (batch.images1, batch.images2, batch.flow_fields)
        ]


def timed(batches: Iterator[Any], count: int, pairs: int) -> Callable[[], float]:
    """Seconds per pair over `count` batches, what the device computes included."""

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            batch = next(batches)
        if not isinstance(batch, tuple | list):
            jax.block_until_ready(batch.images2)
        return (time.perf_counter() - begin) / (count * pairs)

    for _ in range(2):
        next(batches)
    return once


def contestants(size: int, *, repetitions: int, count: int) -> dict[str, Callable[[], float]]:
    config = kinematic(size, batches_per_flow_batch=repetitions)
    on_device = config | {"scheduler_class": "kinematic-device"}
    makers: dict[str, Callable[[], Iterator[Any]]] = {
        "synthpix": lambda: sampler(config),
        "synthpix, copied into torch": lambda: naive(config),
        'ours, renderer="synthpix"': lambda: iter(SynthPixDataset(config, renderer="synthpix")),
        "ours": lambda: iter(SynthPixDataset(config)),
        "ours, fields on the device": lambda: iter(SynthPixDataset(on_device)),
    }
    return {name: timed(make(), count, config["batch_size"]) for name, make in makers.items()}


def main() -> None:
    rows = []
    for size, repetitions, count in ((128, 1, 4), (128, 100, 8), (256, 1, 2), (256, 100, 4)):
        measured = interleaved(contestants(size, repetitions=repetitions, count=count), rounds=7)
        for name, seconds in measured.items():
            rows.append(
                [
                    size,
                    repetitions,
                    name,
                    spread(seconds),
                    f"{ratio(measured['synthpix'], seconds):.1f}",
                ]
            )
    head = ["image, px", "batches per flow batch", "what", "ms per pair", "times synthpix"]
    body = table(head, rows) + "\n\nMedian and quartiles of 7 rounds of batches of 8 pairs."
    write("throughput", "Pairs per second of the whole pipeline", body)


if __name__ == "__main__":
    main()
