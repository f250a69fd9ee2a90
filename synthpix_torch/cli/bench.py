"""`synthpix-torch bench`: measure how fast a configuration makes pairs, and what limits it."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Final

from synthpix_torch.cli.opening import add_dataset_arguments, dataset_arguments, open_dataset
from synthpix_torch.cli.progress import progress
from synthpix_torch.cli.stages import Stages, measure_batches, measure_stages
from synthpix_torch.config.config import Config
from synthpix_torch.interop.versions import version_of
from synthpix_torch.stream.stream import MADE_WITH

HELP = "measure pairs per second and the time of each stage, and say what limits it"

TITLES: Final = {
    "flow_fields": "read or generate flow fields",
    "adapt": "transfer and interpolate flow fields",
    "render": "render images and labels",
    "tensors": "wrap arrays as tensors",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_dataset_arguments(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="time to measure, about")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """Print the measurement and return 0.

    Raises:
        ValueError: An argument or the configuration cannot be used.
        OSError: A file cannot be read.
    """
    if not options.seconds > 0:
        raise ValueError(f"--seconds must be a positive number, not {options.seconds}.")
    half = options.seconds / 2
    with open_dataset(options) as dataset:
        with progress("bench, all stages together", half, "s") as advance:
            first, mean = measure_batches(dataset, seconds=half, advance=advance)
        dataset.close()
        with progress("bench, each stage alone", half, "s"):
            stages = measure_stages(dataset, seconds=half)
        config = dataset.stream.config
        found: dict[str, Any] = {
            "config": str(options.config),
            **dataset_arguments(options),
            "device": dataset.stream.description.made_with["device"],
            "cores": os.cpu_count(),
            "versions": {name: version_of(name) for name in MADE_WITH},
            "batch_size": config.batch_size,
            "pairs_per_second": config.batch_size / mean,
            "seconds_per_batch": mean,
            "seconds_to_first_batch": first,
            "stages": stages._asdict(),
            "limit": stages.slowest,
            "advice": describe_limit(stages, config),
        }
    print(json.dumps(found, indent=2) if options.json else _table(found))
    return 0


def describe_limit(stages: Stages, config: Config) -> str:
    """Say which stage takes the longest, and which keys change it."""
    slowest = stages.slowest
    share = getattr(stages, slowest) / sum(stages)
    flow_batches = f"raise batches_per_flow_batch (now {config.repetitions})"
    if config.include_images:
        flow_batches = "use fewer or smaller records"
    advice = {
        "flow_fields": f"{flow_batches} or num_threads (now {config.num_threads})",
        "adapt": flow_batches,
        "render": "it grows with the pixels, the particles and their diameters",
        "tensors": f"raise batch_size (now {config.batch_size})",
    }[slowest]
    if slowest == "flow_fields" and config.scheduler_class == "kinematic":
        advice += ", or use scheduler_class 'kinematic-device'"
    return f"The limit is to {TITLES[slowest]}, {share:.0%} of all stages: {advice}."


def _table(found: dict[str, Any]) -> str:
    stages = found["stages"]
    width = max(map(len, TITLES.values()))
    lines = [
        f"{found['pairs_per_second']:.4g} pairs per second on {found['device']}, "
        f"{found['cores']} cores",
        f"{'a batch of ' + str(found['batch_size']) + ' pairs':{width}}  "
        f"{1e3 * found['seconds_per_batch']:9.3f} ms",
        f"{'the first batch, with compilation':{width}}  "
        f"{1e3 * found['seconds_to_first_batch']:9.3f} ms",
        "Per batch, each stage alone:",
        *(f"{TITLES[name]:{width}}  {1e3 * stages[name]:9.3f} ms" for name in TITLES),
        found["advice"],
    ]
    return "\n".join(lines)
