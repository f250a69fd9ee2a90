"""Measure pairs per second and the limit set by memory bandwidth: python -m benchmarks.gpu.

synthpix's sampler, the bare compiled step and the dataset are interleaved. The flow fields of the
first table are generated once, so it compares rendering; the second has new flow fields in every
batch. All three may have a few batches in flight, and each round ends when its last batch is done.
`benchmarks.data_tax` measures the share of a training step that is spent waiting for data.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.pipelines import kinematic, sampler
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch import SynthPixDataset
from synthpix_torch.interop.device import choose_device

IN_FLIGHT = 3
"""Batches that synthpix and the bare step may have in flight, as the dataset has."""

ROUND = 0.3
"""Approximate length of a round in seconds."""

Step = Callable[[], Any]


def theirs(config: dict[str, Any]) -> Step:
    source = sampler(config)

    def step() -> Any:
        batch = next(source)
        return batch.images1, batch.images2, batch.flow_fields

    return step


def bare(config: dict[str, Any]) -> Step:
    """Run the compiled step alone, on a flow batch on the device."""
    dataset = SynthPixDataset(config)
    renderer, flows = dataset.stream.renderer, dataset.stream.flows
    loaded = renderer.load(next(flows.read(lambda index: index)))
    numbers: Iterator[int] = iter(range(10**9))
    return lambda: renderer.render(loaded, repetition=next(numbers), last_step=False).images


def ours(config: dict[str, Any]) -> Step:
    batches = iter(SynthPixDataset(config))
    return lambda: next(batches).images


def wait(made: Any) -> None:
    if not isinstance(made, torch.Tensor):
        jax.block_until_ready(made)
    elif made.is_cuda:
        torch.cuda.synchronize()


def timed(step: Step, *, pairs: int) -> Callable[[], float]:
    """Measure a round, in seconds per pair."""
    wait(step())
    begin = time.perf_counter()
    wait(step())
    steps = int(np.clip(ROUND / (time.perf_counter() - begin), 2, 500))

    def one_round() -> float:
        in_flight: deque[Any] = deque()
        begin = time.perf_counter()
        for _ in range(steps):
            in_flight.append(step())
            if len(in_flight) > IN_FLIGHT:
                oldest = in_flight.popleft()
                # The dataset itself bounds the number of batches in flight.
                if not isinstance(oldest, torch.Tensor):
                    jax.block_until_ready(oldest)
        wait(in_flight.pop())
        return (time.perf_counter() - begin) / (steps * pairs)

    return one_round


def host_time(config: dict[str, Any], *, batches: int) -> list[float]:
    """Measure the Python thread per batch while the device is idle, in seconds."""
    dataset = SynthPixDataset(config)
    iterator = iter(dataset)
    next(iterator)
    seconds = []
    for _ in range(batches):
        jax.block_until_ready(jax.live_arrays())
        if dataset.device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.thread_time()
        next(iterator)
        seconds.append(time.thread_time() - begin)
    return seconds


def bandwidth() -> float:
    """Measure the bytes per second that a copy on the device reads and writes together."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.ones(2**28 if device == "cuda" else 2**24, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(11):
        begin = time.perf_counter()
        target.copy_(source)
        wait(target)
        seconds.append(time.perf_counter() - begin)
    return 2 * source.nbytes / statistics.median(seconds[1:])


def least_bytes(size: int) -> int:
    """Return the bytes that a pair must move: two images and labels written, labels read."""
    return 4 * size * size * (2 + 2 + 2)


def per_second(seconds: list[float]) -> str:
    low, middle, high = statistics.quantiles((1 / value for value in seconds), n=4)
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    # First: synthpix would start JAX on all GPUs and preallocate most of their memory.
    choose_device()
    limit = bandwidth()
    rendering, fields = [], []
    for size in given.sizes:
        for batch in given.batch_sizes:
            once: dict[str, Any] = {"batch_size": batch, "flow_fields_per_batch": min(batch, 8)}
            config = kinematic(size, **once, batches_per_flow_batch=10**6, buffer_size=0)
            measured = interleaved(
                {
                    name: timed(contestant(config), pairs=batch)
                    for name, contestant in (("synthpix", theirs), ("bare", bare), ("ours", ours))
                },
                rounds=given.rounds,
            )
            least = least_bytes(size) / limit
            rendering.append(
                [
                    *(size, batch),
                    *(per_second(measured[name]) for name in ("synthpix", "bare", "ours")),
                    f"{ratio(measured['synthpix'], measured['ours']):.1f}",
                    f"{ratio(measured['bare'], measured['ours']):.3f}",
                    f"{least / statistics.median(measured['ours']):.1%}",
                    spread(host_time(config, batches=20)),
                ]
            )
            each = kinematic(size, batch_size=batch, flow_fields_per_batch=batch)
            on_device = each | {"scheduler_class": "kinematic-device"}
            measured = interleaved(
                {
                    name: timed(ours(chosen), pairs=batch)
                    for name, chosen in (("host", each), ("device", on_device))
                },
                rounds=given.rounds,
            )
            fields.append([size, batch, *map(per_second, measured.values())])
            # In case the run is interrupted.
            print(*rendering[-1], *fields[-1], sep=" | ", flush=True)
    head = ["image, px", "batch", "synthpix", "bare step", "dataset", "dataset / synthpix"]
    head += ["dataset / bare", "of the memory's limit", "host, ms per batch"]
    body = table(head, rendering)
    body += "\n\nPairs per second, and how busy the Python thread is.\n\n"
    body += table(["image, px", "batch", "made on the host", "made on the device"], fields)
    body += "\n\nPairs per second with new kinematic flow fields for every pair.\n\n"
    body += (
        f"A copy on the device moves {limit / 1e9:.4g} GB/s, read and written. The limit is this "
    )
    body += "over 24 bytes a pixel of a pair: both images and the labels written, the labels read. "
    body += f"Median and quartiles of {given.rounds} rounds of about {ROUND} s."
    write("gpu", "Pairs per second on this device", body, folder=given.output)


if __name__ == "__main__":
    main()
