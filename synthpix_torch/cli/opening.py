"""The dataset of a subcommand: its arguments and how it is opened."""

from __future__ import annotations

import argparse
from typing import Any

from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.render.renderers import RENDERERS


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the configuration and the arguments of the dataset that define its batches."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the configuration")
    parser.add_argument("--renderer", choices=tuple(RENDERERS), default="particles")
    parser.add_argument("--streams", type=int, default=1, help="interleaved flow batches")
    add_device_argument(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add the device that batches are made on."""
    parser.add_argument("--device", help="cpu, cuda or cuda:1; by default the GPU, if there is one")


def dataset_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of the dataset."""
    return {name: getattr(options, name) for name in ("renderer", "streams", "device")}


def open_dataset(options: argparse.Namespace) -> SynthPixDataset:
    """Build the dataset of a command, all of it on this process.

    Raises:
        ValueError: An argument or a value of the configuration cannot be used.
        FileNotFoundError: A file does not exist.
        RuntimeError: JAX or torch cannot use the device.
    """
    return SynthPixDataset(options.config, rank=0, world_size=1, **dataset_arguments(options))


def unit_of(dataset: SynthPixDataset) -> str:
    """Return the unit of the dataset's flow fields for captions."""
    return "px" if dataset.stream.config.output_units == "pixels" else "length units per second"
