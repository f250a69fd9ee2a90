"""`synthpix-torch check`: describe a configuration and name what is suspicious."""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from pathlib import Path

from synthpix_torch.config.plausibility import PhysicsWarning
from synthpix_torch.dataset import SynthPixDataset

HELP = "measure the images of a configuration, and name what is suspicious"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("config", type=Path, help="a YAML file")
    parser.add_argument(
        "--window", type=int, default=32, help="side of an interrogation window in pixels (32)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """Print the report and return 1 if something is suspicious, else 0.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The configuration or the data cannot be used.
    """
    with warnings.catch_warnings():
        # They become sentences of the report.
        warnings.simplefilter("ignore", PhysicsWarning)
        with SynthPixDataset(options.config) as dataset:
            report = dataset.describe(window=options.window)
    print(json.dumps(dataclasses.asdict(report), indent=2) if options.json else report)
    return int(bool(report.suspicious))
