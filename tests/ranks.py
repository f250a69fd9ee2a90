"""Record the batches of one rank: torchrun tests/ranks.py --folder=F [--steps=N]."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from kinds import base, few
from oracle import digest

from synthpix_torch import SynthPixDataset

STREAMS = (1, 4)
FINITE = {"loop": False, "num_examples": 13}


def open_all() -> dict[int, SynthPixDataset]:
    """Open the same data with streams=1 and with streams=4."""
    return {streams: SynthPixDataset(base(**few), streams=streams) for streams in STREAMS}


def in_the_middle(position: int, streams: int) -> bool:
    """Return whether the flow batches at a position are partly used."""
    return position % (few["batches_per_flow_batch"] * streams) != 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--finite", action="store_true")
    parser.add_argument("--fail-at", type=int, default=-1)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    state = options.folder / "state.json"
    if options.finite:
        with SynthPixDataset(base(**few, **FINITE)) as dataset:
            numbers = []
            for batch in dataset:
                # Waits for ever if another rank has no batch left.
                dist.all_reduce(torch.zeros(1))
                numbers.append(batch.number)
            (options.folder / f"finite-{rank}.json").write_text(json.dumps(numbers))
        dist.destroy_process_group()
        return
    datasets = open_all()
    step = 0
    if state.exists():
        saved = json.loads(state.read_text())
        for streams, dataset in datasets.items():
            dataset.load_state_dict(saved[str(streams)])
    passes = {streams: iter(dataset) for streams, dataset in datasets.items()}
    first_time = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    for step in range(options.steps):
        if step == options.fail_at and rank == ranks - 1 and first_time:
            os.kill(os.getpid(), 9)
        for streams, batches in passes.items():
            batch = next(batches)
            with (options.folder / f"{ranks}-{streams}-{rank}.txt").open("a") as file:
                file.write(f"{batch.number} {digest(batch)}\n")
        dist.barrier()
        positions = {streams: dataset.position for streams, dataset in datasets.items()}
        if rank == 0 and all(in_the_middle(positions[streams], streams) for streams in STREAMS):
            states = {streams: dataset.state_dict() for streams, dataset in datasets.items()}
            unfinished = state.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(states))
            os.replace(unfinished, state)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
