"""Measure the time per pair of the whole pipeline: python -m benchmarks.throughput.

synthpix's sampler, the same with a NumPy copy of each array into torch, and this package are
interleaved. The data are kinematic fields with the default range of sigma (5 to 100 px) and
flow_fields_per_batch = batch_size. All contestants prefetch two flow batches with two threads, and
start each round with nothing prefetched, so that no one reads during the rounds of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.contender import ours, theirs
from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch.interop.device import choose_device

BATCHES = 64
REPETITIONS = 8


def naive(config: dict[str, Any]) -> Callable[[], Iterator[Any]]:
    begin_theirs = theirs(config)

    def begin() -> Iterator[Any]:
        for batch in begin_theirs():
            arrays = (batch.images1, batch.images2, batch.flow_fields)
            yield [torch.from_numpy(np.array(array)) for array in arrays]

    return begin


def timed(begin: Callable[[], Iterator[Any]], *, pairs: int) -> Callable[[], float]:
    """Measure a round from an empty prefetch buffer to its last batch, in seconds per pair."""

    def once() -> float:
        batches = begin()
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        if torch.cuda.is_available():
            # synthpix has waited for each batch already, this package has not.
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        del batches
        # Let reads that have started finish.
        time.sleep(0.5)
        return seconds / (BATCHES * pairs)

    return once


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    # First: synthpix would start JAX on all GPUs and preallocate most of their memory.
    choose_device()
    rows = []
    for size, repetitions in ((128, 1), (128, REPETITIONS), (256, 1), (256, REPETITIONS)):
        config = kinematic(size, batches_per_flow_batch=repetitions, buffer_size=16, num_threads=2)
        on_device = config | {"scheduler_class": "kinematic-device"}
        contestants = {
            "synthpix": theirs(config),
            "synthpix, copied into torch": naive(config),
            'ours, renderer="synthpix"': ours(config, renderer="synthpix"),
            "ours": ours(config),
            "ours, fields on the device": ours(on_device),
        }
        measured = interleaved(
            {name: timed(begin, pairs=8) for name, begin in contestants.items()}, rounds=5
        )
        for name, seconds in measured.items():
            faster = f"{ratio(measured['synthpix'], seconds):.1f}"
            rows.append([size, repetitions, name, spread(seconds), faster])
    head = ["image, px", "batches per flow batch", "what", "ms per pair", "times synthpix"]
    body = table(head, rows)
    body += f"\n\nMedian and quartiles of 5 rounds of {BATCHES} batches of 8 pairs."
    write("throughput", "Time per pair of the whole pipeline", body, folder=options.output)


if __name__ == "__main__":
    main()
