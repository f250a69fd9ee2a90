"""Measure the cost of a checkpoint: python -m benchmarks.checkpoint.

Of synthpix only saving is measured: its restore raises with the required versions of Orbax.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import synthpix
import torch

from benchmarks.pipelines import kinematic, sampler
from benchmarks.report import command_line, ratio, spread, table, write
from synthpix_torch import Checkpointer, SynthPixDataset

ROUNDS = 30
MODEL_ROUNDS = 6
WIDTH, LAYERS = 3162, 5


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def dataset_alone(folder: Path, size: int) -> list[object]:
    """Measure one row: a dataset with images of `size` px, and synthpix's sampler."""
    config = kinematic(size, batch_size=8, flow_fields_per_batch=8)
    source = sampler(config)
    dataset = SynthPixDataset(config)
    next(source), next(iter(dataset))
    theirs, returns, on_disk, restores = [], [], [], []
    with Checkpointer(folder / f"ours-{size}", keep=1) as checkpoints:
        checkpoints.register(data=dataset)
        for step in range(ROUNDS + 1):
            there = folder / f"theirs-{size}"
            theirs.append(timed(partial(synthpix.save_checkpoint, there, source, step)))
            begin = time.perf_counter()
            checkpoints.save(step)
            returns.append(time.perf_counter() - begin)
            checkpoints.wait()
            on_disk.append(time.perf_counter() - begin)
            restores.append(timed(checkpoints.restore))
    written = sum(path.stat().st_size for path in files(folder / f"ours-{size}" / str(ROUNDS)))
    theirs_written = sum(path.stat().st_size for path in files(there / str(ROUNDS)))
    return [
        size,
        *(spread(seconds[1:]) for seconds in (theirs, returns, on_disk, restores)),
        f"{ratio(theirs[1:], returns[1:]):.0f}, {ratio(theirs[1:], on_disk[1:]):.1f}",
        theirs_written,
        written,
    ]


def with_a_model(folder: Path) -> list[list[object]]:
    """Measure how long a training waits while a model and Adam's moments are saved."""
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    numbers = count()

    def plain() -> None:
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(states, folder / "plain.pt")

    def plain_and_sync() -> None:
        plain()
        with open(folder / "plain.pt", "rb") as file:
            os.fsync(file.fileno())

    naive, synced, returns, on_disk = [], [], [], []
    with Checkpointer(folder / "model", keep=1) as checkpoints:
        checkpoints.register(model=model, optimizer=optimizer)
        for _ in range(MODEL_ROUNDS + 1):
            naive.append(timed(plain))
            synced.append(timed(plain_and_sync))
            begin = time.perf_counter()
            checkpoints.save(next(numbers))
            returns.append(time.perf_counter() - begin)
            checkpoints.wait()
            on_disk.append(time.perf_counter() - begin)
    rows: list[list[object]] = []
    for name, seconds in (
        ("`torch.save`", naive),
        ("`torch.save` and fsync", synced),
        ("`Checkpointer.save` returns", returns),
        ("complete on disk, with checksums and fsync", on_disk),
    ):
        of = f"{ratio(seconds[1:], naive[1:]):.2f}"
        rows.append([name, f"{parameters / 1e6:.0f} million", spread(seconds[1:]), of])
    return rows


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--disk",
        type=Path,
        metavar="FOLDER",
        help="save below this folder, and delete it again; default: the folder for temporary files",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.disk) as temporary:
        small = [dataset_alone(Path(temporary), size) for size in (16, 64, 256)]
        large = with_a_model(Path(temporary))
    body = "The dataset alone, batches of 8 pairs, milliseconds:\n\n"
    head = [
        *("image, px", "synthpix.save_checkpoint", "save returns", "on disk with fsync"),
        *("restore", "times faster", "synthpix, bytes", "bytes"),
    ]
    body += table(head, small)
    body += "\n\nA model of linear layers with Adam, milliseconds for which a training waits:\n\n"
    body += table(["", "parameters", "ms", "of torch.save"], large)
    body += f"\n\nMedian and quartiles of {ROUNDS} and {MODEL_ROUNDS} rounds, after one that is "
    body += (
        "discarded. synthpix.save_checkpoint waits until everything is written; it does not fsync."
    )
    write("checkpoint", "Cost of a checkpoint", body, folder=options.output)


if __name__ == "__main__":
    main()
