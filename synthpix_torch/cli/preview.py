"""`synthpix-torch preview`: draw a batch of a configuration or of a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from synthpix_torch.cli.opening import add_dataset_arguments, open_dataset, unit_of
from synthpix_torch.cli.output import Caption, add_output_arguments, open_writers, write_all
from synthpix_torch.recording import Recording

HELP = "draw image pairs, flow fields and histograms of a batch, or a blinking pair"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_dataset_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--batch", type=int, default=0, help="number of the batch; of a recording, its first"
    )


def run(options: argparse.Namespace) -> int:
    """Write the files, print their names and return 0.

    Raises:
        ValueError: An argument or the configuration cannot be used.
        OSError: A file cannot be read or written.
        ModuleNotFoundError: An extra is missing.
    """
    writers = open_writers(options)
    if Path(options.config).is_dir():
        recording = Recording(options.config)
        number = options.batch or recording.manifest.plan.first
        unit = recording.manifest.plan.units["flow_fields"].replace("pixels", "px")
        title = f"{Path(options.config).name}, batch {number}"
        write_all(writers, recording.batch_at(number), Caption(title, unit, options.pairs))
        return 0
    with open_dataset(options) as dataset:
        batch = dataset.batch_at(options.batch)
        title = f"{Path(options.config).name}, batch {batch.number}"
        write_all(writers, batch, Caption(title, unit_of(dataset), options.pairs))
    return 0
