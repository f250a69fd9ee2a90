"""Measure JAX's memory at start and the effect of the working set: python -m benchmarks.gpu_memory.

Choose `GPU_WORKING_BYTES` of the default renderer from the second table: the smallest value whose
time is within 2 % of the best for all sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import torch

from benchmarks.core import many_keys, scene, timed
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch.interop.device import choose_device
from synthpix_torch.render.particles import ParticleRenderer

STARTS = {
    "JAX as it starts by itself": "import jax; jax.numpy.zeros(1).block_until_ready()",
    "JAX beside the dataset, before a batch": "SynthPixDataset(kinematic(256))",
    "JAX beside the dataset, after a batch of 8 pairs of 256 px": (
        "next(iter(SynthPixDataset(kinematic(256)))); torch.cuda.synchronize()"
    ),
}


def taken_at_start(work: str) -> float:
    """Measure the GiB of the GPU that `work` takes in a new process, without torch's context."""
    script = f"""
import json, torch
from benchmarks.pipelines import kinematic
from synthpix_torch import SynthPixDataset
free, _ = torch.cuda.mem_get_info()
{work}
print(json.dumps(free - torch.cuda.mem_get_info()[0]))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
    )
    return float(json.loads(done.stdout.splitlines()[-1])) / 2**30


def working_sets(size: int, batch: int, mebibytes: list[int], *, rounds: int) -> list[list[object]]:
    """Measure time and memory of one batch for each bound on the working set."""
    config, fields = scene(size, batch, diameter=2.0)
    keys = many_keys(batch)
    compiled: dict[int, Any] = {}
    for bound in mebibytes:
        renderer = ParticleRenderer(
            config, fields.shape[1:], jax.devices()[0], working_bytes=bound * 2**20
        )
        compiled[bound] = jax.jit(renderer.render).lower(keys[0], fields).compile()

    def contender(run: Any) -> Callable[[int], Any]:
        return lambda i: run(keys[i % 100], fields)

    measured = interleaved(
        {str(bound): timed(contender(run), per=batch) for bound, run in compiled.items()},
        rounds=rounds,
    )
    best = min(measured.values(), key=lambda seconds: sorted(seconds)[len(seconds) // 2])
    return [
        [
            *(size, batch, bound),
            spread(measured[str(bound)]),
            f"{ratio(measured[str(bound)], best):.2f}",
            f"{run.memory_analysis().temp_size_in_bytes / 2**20:.0f}",
        ]
        for bound, run in compiled.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--bounds", type=int, nargs="+", default=[16, 64, 256, 512, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args(arguments)
    body = ""
    if torch.cuda.is_available():
        starts = [[name, f"{taken_at_start(work):.2f}"] for name, work in STARTS.items()]
        body += table(["what has started", "GiB of the GPU"], starts) + "\n\n"
    choose_device()
    rows = []
    for size in given.sizes:
        for batch in given.batch_sizes:
            found = working_sets(size, batch, given.bounds, rounds=given.rounds)
            # In case the run is interrupted.
            print(table(["", "", "", "", "", ""], found), flush=True)
            rows += found
    head = ["image, px", "batch", "bound, MiB", "ms per pair", "times the best", "takes, MiB"]
    body += table(head, rows)
    body += f"\n\nMedian and quartiles of {given.rounds} rounds."
    title = "Memory at start and working set of the renderer"
    write("gpu_memory", title, body, folder=given.output)


if __name__ == "__main__":
    main()
