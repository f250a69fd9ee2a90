"""Measure time and memory from the import to the first batch: python -m benchmarks.startup.

Each round is a new process; the contestants are interleaved. With "compiled before" JAX keeps
compiled functions on disk (JAX_COMPILATION_CACHE_DIR), written in the round that is discarded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import command_line, ratio, spread, table, write

ROUNDS = 5
SIZE = 128

THEIRS = """
import logging, sys, io, contextlib
import synthpix
for name in ("make", "sampler.base", "sampler.synthetic", "sampler.real"):
    sys.modules[f"synthpix.{name}"].logger = logging.getLogger("quiet")
imported = clock()
import jax
def first(config):
    with contextlib.redirect_stdout(io.StringIO()):
        source = synthpix.make(config)
    batch = next(source)
    jax.block_until_ready((batch.images1, batch.images2))
    return batch
batch = first(config)
"""
THEIRS_AND_TORCH = (
    THEIRS
    + """
import numpy as np
import torch
torch.from_numpy(np.array(batch.images1))
"""
)
OURS = """
from synthpix_torch import SynthPixDataset
imported = clock()
def first(config):
    with SynthPixDataset(config) as dataset:
        return next(iter(dataset))
batch = first(config)
"""
AGAIN = """
imported = clock()
batch = first(config | {"seed": 1})
"""
REPORT = """
import resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([imported, clock(), peak]))
"""
BEGIN = """
import json, sys, time
begin = time.perf_counter()
clock = lambda: time.perf_counter() - begin
config = json.loads(sys.argv[1])
"""


def process(code: str, config: str, cache: Path | None) -> Callable[[], list[float]]:
    """Measure seconds to the import and to the first batch, and the peak of memory in bytes."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def once() -> list[float]:
        command = [sys.executable, "-c", BEGIN + code + REPORT, config]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        found: list[float] = json.loads(done.stdout.splitlines()[-1])
        return found

    return once


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    from benchmarks.pipelines import kinematic

    config = json.dumps(kinematic(SIZE))
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "`import synthpix; make(); next()`": process(THEIRS, config, None),
            "the same and a copy into torch": process(THEIRS_AND_TORCH, config, None),
            "ours": process(OURS, config, None),
            "synthpix, after it another seed": process(THEIRS + AGAIN, config, None),
            "ours, after it another seed": process(OURS + AGAIN, config, None),
            "synthpix, compiled before": process(THEIRS, config, Path(folder, "theirs")),
            "ours, compiled before": process(OURS, config, Path(folder, "ours")),
        }
        measured: dict[str, list[list[float]]] = {name: [] for name in contestants}
        for turn in range(ROUNDS + 1):
            for name, contestant in contestants.items():
                point = contestant()
                if turn:
                    measured[name].append(point)
    first = [row[1] for row in next(iter(measured.values()))]
    rows = []
    for name, found in measured.items():
        imports, batches, peaks = zip(*found, strict=True)
        rest = [batch - imported for batch, imported in zip(batches, imports, strict=True)]
        rows.append(
            [
                name,
                *(spread(seconds, unit=1) for seconds in (imports, rest, batches)),
                f"{1 / ratio(first, batches):.2f}",
                f"{median(peaks) / 2**20:.0f}",
            ]
        )
    head = ["what", "before, s", "then to the first batch, s", "together, s", "of synthpix", "MiB"]
    body = table(head, rows)
    body += f"\n\nBatches of 8 kinematic pairs of {SIZE} px. Before is the import, with another "
    body += f"seed all until the first batch of the first. Median and quartiles of {ROUNDS} "
    body += (
        "processes each; MiB is the peak of resident memory of the process itself. synthpix runs "
    )
    body += "without its logger, which would start another process of 190 MB."
    write("startup", "Start-up and memory", body, folder=options.output)


if __name__ == "__main__":
    main()
