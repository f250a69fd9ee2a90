"""Provide what the training examples share: small data, a small network, a journal of each run."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from synthpix_torch import Batch, SynthPixDataset

CONFIG: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("small.yaml"))


def arguments(default_folder: str) -> argparse.Namespace:
    """Parse the options of every example."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    parser.add_argument("--steps", type=int, default=200, help="training steps in all")
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--config", type=Path, help="a YAML file; default: small.yaml")
    parser.add_argument("--streams", type=int, default=1, help="see SynthPixDataset")
    parser.add_argument("--folder", type=Path, default=Path("runs") / default_folder)
    options = parser.parse_args()
    if not options.resume and any(options.folder.glob("step-*")):
        parser.error(f"{options.folder} holds a run: add --resume, or choose another --folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def data(options: argparse.Namespace) -> SynthPixDataset:
    """Open the training data."""
    return SynthPixDataset(options.config or CONFIG, scale_images=True, streams=options.streams)


class Net(torch.nn.Sequential):
    """Map an image pair to a flow field by three convolutions."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(2, 16, 5, padding=2, padding_mode="replicate"),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 5, padding=2, padding_mode="replicate"),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 2, 5, padding=2, padding_mode="replicate"),
        )


def model() -> tuple[Net, torch.optim.Optimizer]:
    """Create a network and its optimizer, the same in every run."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    net = Net()
    return net, torch.optim.Adam(net.parameters(), lr=1e-3)


def end_point_error(found: torch.Tensor, flow_fields: torch.Tensor) -> torch.Tensor:
    """Return the mean distance between two flow fields in pixels."""
    return (found - flow_fields).square().sum(1).add(1e-6).sqrt().mean()


class Journal:
    """Write one line per step: the batch, its digest, the loss, and the weights after the step."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._path = folder / f"journal-{rank}.txt"

    def note(self, step: int, batch: Batch, loss: torch.Tensor, net: torch.nn.Module) -> None:
        """Append the line of a step."""
        bits = _digest(batch.images, batch.flow_fields)
        weights = _digest(*net.state_dict().values())
        with self._path.open("a") as file:
            file.write(f"{step} {batch.number} {bits} {float(loss.detach()).hex()} {weights}\n")


def _digest(*tensors: torch.Tensor) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file or a folder atomically."""
    unfinished = path.with_name(f"unfinished-{path.name}-{os.getpid()}")
    write(unfinished)
    os.replace(unfinished, path)


def last(folder: Path) -> Path:
    """Return the checkpoint with the largest number in a folder."""
    return max(folder.glob("step-*"), key=lambda path: int(path.stem.removeprefix("step-")))
