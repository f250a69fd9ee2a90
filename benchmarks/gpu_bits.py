"""Compare the bits of batches between devices: python -m benchmarks.gpu_bits.

    python -m benchmarks.gpu_bits make here.npz           # on each device, or with --device cpu
    python -m benchmarks.gpu_bits compare here.npz there.npz

`make` prints one digest over all batches, to compare processes on the same device, and saves the
digests of all batches and the arrays of some.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pipelines import kinematic
from benchmarks.report import machine, table
from synthpix_torch import Batch, SynthPixDataset

KINDS = {
    "fields from the host": {"scheduler_class": "kinematic"},
    "fields from the device": {"scheduler_class": "kinematic-device"},
}


def on_host(batch: Batch) -> dict[str, np.ndarray]:
    """Copy the arrays of a batch to the host, by name."""
    named = {**batch._asdict(), **(batch.params._asdict() if batch.params else {})}
    return {k: v.cpu().numpy() for k, v in named.items() if isinstance(v, torch.Tensor)}


def make(path: Path, *, device: str | None, batches: int, kept: int, size: int) -> None:
    found: dict[str, Any] = {}
    for kind, changes in KINDS.items():
        digests = []
        with SynthPixDataset(kinematic(size, **changes), device=device) as dataset:
            iterator = iter(dataset)
            for number in range(batches):
                arrays = on_host(next(iterator))
                total = hashlib.sha256()
                for name, array in sorted(arrays.items()):
                    total.update(name.encode() + array.tobytes())
                    if number < kept:
                        found[f"{kind}/{name}/{number}"] = array
                digests.append(total.hexdigest())
            place = f"{dataset.device}, {machine()}"
        found[f"{kind}/digests"] = np.array(digests)
        found["place"] = np.array(place)
        together = hashlib.sha256("".join(digests).encode()).hexdigest()
        print(f"{kind}: {batches} batches of 8 pairs of {size} px, {together}")
    np.savez_compressed(path, **found)


def compare(here: Path, there: Path) -> None:
    a, b = np.load(here), np.load(there)
    print(f"{a['place']}\n{b['place']}\n")
    for kind in KINDS:
        one, two = a[f"{kind}/digests"], b[f"{kind}/digests"]
        print(f"{kind}: {(one == two).sum()} of {len(one)} batches have the same bits.\n")
        rows = []
        arrays = [key for key in a.files if key.startswith(kind) and not key.endswith("digests")]
        for name in sorted({key.split("/")[1] for key in arrays}):
            keys = [key for key in arrays if key.split("/")[1] == name]
            differences = [abs(a[key].astype(float) - b[key].astype(float)) for key in keys]
            largest = max(difference.max() for difference in differences)
            share = np.mean([(difference > 0).mean() for difference in differences])
            rows.append([name, f"{largest:.3g}", f"{share:.3%}"])
        print(table(["array", "largest difference", "elements that differ"], rows) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("path", type=Path)
    making.add_argument("--device")
    making.add_argument("--batches", type=int, default=1000)
    making.add_argument("--kept", type=int, default=8, help="batches whose arrays are saved")
    making.add_argument("--size", type=int, default=64)
    making.set_defaults(command=make)
    comparing = commands.add_parser("compare")
    comparing.add_argument("here", type=Path)
    comparing.add_argument("there", type=Path)
    comparing.set_defaults(command=compare)
    given = vars(parser.parse_args(arguments))
    given.pop("command")(**given)


if __name__ == "__main__":
    main()
