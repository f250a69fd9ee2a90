"""Measure how time and memory grow with batch, image and data: python -m benchmarks.growth.

Each point is measured in new processes, for this package and for synthpix by turns. Both prefetch
two flow batches with two threads. A flow batch makes four batches if nothing else is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, table, write

BATCHES = (1, 4, 16, 64, 256)
IMAGES = (64, 128, 256, 512, 1024)
FILES = (10, 100, 1000, 10_000)
OWN_FIELDS = (128, 256)
WARM_UP = 8
SECONDS = 3.0
ROUNDS = 3


class Point(NamedTuple):
    """Hold the measurements of one process.

    Attributes:
        open: Seconds to build the dataset or the sampler.
        first: Seconds from there to the first batch, compilation included.
        pair: Milliseconds for a pair, the mean over whole flow batches after `WARM_UP` batches.
        state: Bytes of the state as JSON; 0 for synthpix.
        memory: Peak of resident memory in MiB.
    """

    open: float
    first: float
    pair: float
    state: int
    memory: float


def measure(whose: str, config: dict[str, Any]) -> Point:
    """Measure one point in this process."""
    import resource

    state: Callable[[], dict[str, Any]] = dict
    begin = time.perf_counter()
    if whose == "ours":
        from synthpix_torch import SynthPixDataset

        dataset = SynthPixDataset(config)
        state = dataset.state_dict
        source: Iterator[Any] = iter(dataset)
    else:
        import jax

        from benchmarks.pipelines import sampler

        made = sampler(config)
        source = (jax.block_until_ready(next(made).images1) for _ in iter(int, 1))
    opened = time.perf_counter()
    next(source)
    first = time.perf_counter()
    whole = config["batches_per_flow_batch"]
    for _ in range(WARM_UP - 1):
        next(source)
    batches, turn = 0, time.perf_counter()
    while (seconds := time.perf_counter() - turn) < SECONDS:
        for _ in range(whole):
            next(source)
        batches += whole
    return Point(
        open=opened - begin,
        first=first - opened,
        pair=seconds / (batches * config["batch_size"]) * 1000,
        state=len(json.dumps(state())),
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def in_a_process(whose: str, config: dict[str, Any]) -> Point:
    """Measure one point in a new process."""
    command = [sys.executable, "-m", "benchmarks.growth", "--point", whose, json.dumps(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Point(*json.loads(done.stdout.splitlines()[-1]))


def in_turns(config: dict[str, Any]) -> dict[str, list[Point]]:
    """Measure both by turns."""
    points: dict[str, list[Point]] = {"synthpix": [], "ours": []}
    for _ in range(ROUNDS):
        for whose, found in points.items():
            found.append(in_a_process(whose, config))
    return points


def median(points: list[Point]) -> Point:
    """Return the median of each measurement."""
    return Point(*(statistics.median(values) for values in zip(*points, strict=True)))


def of_files(folder: Path, count: int) -> dict[str, Any]:
    """Write `count` files and configure a dataset that reads them."""
    folder.mkdir()
    field = np.random.default_rng(0).uniform(-2, 2, (80, 80, 2)).astype(np.float32)
    for number in range(count):
        np.save(folder / f"flow_{number}.npy", field)
    return configuration(64, 8, scheduler_class=".npy", file_list=[str(folder)])


def configuration(size: int, batch: int, *, repetitions: int = 4, **changes: Any) -> dict[str, Any]:
    """Configure flow batches that are used again; both packages prefetch two of them."""
    own = {
        "batch_size": batch,
        "flow_fields_per_batch": batch,
        "batches_per_flow_batch": repetitions,
    }
    return kinematic(size, **own, buffer_size=2 * batch, num_threads=2, **changes)


def axes(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the configurations of all points by axis and size."""
    return {
        "batch size, images of 64 px": {size: configuration(64, size) for size in BATCHES},
        "image in px, batches of 4": {size: configuration(size, 4) for size in IMAGES},
        "image in px, batches of 8, a field of its own for each pair": {
            size: configuration(size, 8, repetitions=1) for size in OWN_FIELDS
        },
        "files, batches of 8 of 64 px": {
            count: of_files(folder / str(count), count) for count in FILES
        },
    }


def plot(found: dict[str, dict[int, dict[str, Point]]], path: Path) -> None:
    """Draw milliseconds per pair along each axis."""
    import matplotlib

    matplotlib.use("Agg")
    # Text as text, not as outlines.
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(12, 3.4), layout="constrained")
    for panel, (axis, points) in zip(panels, found.items(), strict=True):
        for whose in ("synthpix", "ours"):
            panel.loglog(list(points), [pair[whose].pair for pair in points.values()], "o-")
        panel.set_xticks([], minor=True)
        panel.set_xticks(list(points), [f"{size:,}" for size in points])
        panel.set_xlabel(textwrap.fill(axis, 28))
        panel.set_ylabel("ms per pair")
        panel.grid(alpha=0.3)
    panels[0].legend(["synthpix", "ours"])
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    parser.add_argument("--point", nargs=2, metavar=("WHOSE", "CONFIG"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.point:
        whose, config = options.point
        print(json.dumps(measure(whose, json.loads(config))), flush=True)
        # Do not wait for the fields that synthpix still prefetches.
        os._exit(0)
    found: dict[str, dict[int, dict[str, Point]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for axis, configs in axes(Path(folder)).items():
            found[axis] = {
                size: {whose: median(points) for whose, points in in_turns(config).items()}
                for size, config in configs.items()
            }
    body = ""
    for axis, points in found.items():
        rows = []
        for size, pair in points.items():
            theirs, ours = pair["synthpix"], pair["ours"]
            rows.append(
                [
                    size,
                    *(f"{theirs.pair:.3g}", f"{ours.pair:.3g}", f"{theirs.pair / ours.pair:.1f}"),
                    *(f"{theirs.open:.2f}", f"{ours.open:.2f}"),
                    *(f"{theirs.first:.1f}", f"{ours.first:.1f}"),
                    *(f"{theirs.memory:.0f}", f"{ours.memory:.0f}", ours.state),
                ]
            )
        head = [axis, "synthpix, ms per pair", "ours", "ratio", "synthpix, s to open", "ours"]
        head += ["synthpix, s to the first batch", "ours", "synthpix, MiB", "ours", "state, bytes"]
        body += table(head, rows) + "\n\n"
    body += (
        f"Each figure is the median of {ROUNDS} processes, those of both packages by turns. Time "
        f"per pair is the mean of {SECONDS:.0f} s after {WARM_UP} batches. Ours opens with the "
        "import of this package and of torch, synthpix was imported before.\n\n"
    )
    picture = f"{date.today().isoformat()}-growth.svg"
    body += f"![Milliseconds per pair]({picture})"
    write("growth", "Growth", body, folder=options.output)
    if options.output:
        plot(found, options.output / picture)


if __name__ == "__main__":
    main()
