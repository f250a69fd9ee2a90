"""Measure the time that the Python thread spends on a batch: python -m benchmarks.host_time.

The measurement excludes waiting for the device, for both packages. On a CPU the device shares the
cores with the Python thread and interrupts it, so two clocks are reported: the processor time of
the thread and the elapsed time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks.pipelines import kinematic, sampler
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch import SynthPixDataset
from synthpix_torch.interop.device import choose_device

CLOCKS = {"processor time": time.thread_time, "elapsed time": time.perf_counter}
BATCHES = 20


def theirs(config: dict[str, Any], clock: Callable[[], float]) -> Callable[[], float]:
    source = sampler(config)

    def once() -> float:
        busy = 0.0
        for _ in range(BATCHES):
            begin = clock()
            batch = next(source)
            busy += clock() - begin
            jax.block_until_ready((batch.images1, batch.images2, batch.keys))
        return busy / BATCHES

    return once


def ours(config: dict[str, Any], clock: Callable[[], float]) -> Callable[[], float]:
    dataset = SynthPixDataset(config)
    batches = iter(dataset)
    next(batches)

    def once() -> float:
        busy = 0.0
        for _ in range(BATCHES):
            jax.block_until_ready(jax.live_arrays())
            begin = clock()
            next(batches)
            busy += clock() - begin
        return busy / BATCHES

    return once


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    # First: synthpix would start JAX on all GPUs and preallocate most of their memory.
    choose_device()
    rows = []
    for size in (16, 32):
        config = kinematic(size, batch_size=8, batches_per_flow_batch=10**6)
        for name, clock in CLOCKS.items():
            contestants = {"theirs": theirs(config, clock), "ours": ours(config, clock)}
            measured = interleaved(contestants, rounds=30)
            times = ratio(measured["theirs"], measured["ours"])
            rows.append(
                [size, name, spread(measured["theirs"]), spread(measured["ours"]), f"{times:.1f}"]
            )
    body = table(["image, px", "clock", "synthpix `next()`, ms", "ours, ms", "ratio"], rows)
    dataset = SynthPixDataset(kinematic(16))
    states = []
    for _ in range(1000):
        begin = time.perf_counter()
        dataset.state_dict()
        states.append(time.perf_counter() - begin)
    body += f"\n\nMedian and quartiles of 30 rounds of {BATCHES} batches of 8 pairs. "
    body += f"`state_dict()` takes {spread(states, unit=1e-6)} us."
    write("host_time", "Host time per batch", body, folder=options.output)


if __name__ == "__main__":
    main()
