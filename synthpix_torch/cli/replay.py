"""`synthpix-torch replay`: make the batch of a checkpoint's step again."""

from __future__ import annotations

import argparse
from pathlib import Path

from synthpix_torch.checks import check_integer
from synthpix_torch.cli.opening import add_device_argument, unit_of
from synthpix_torch.cli.output import Caption, add_output_arguments, open_writers, write_all
from synthpix_torch.dataset import SynthPixDataset

HELP = "make the batch that a checkpoint's step was trained on again, as a picture or as arrays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of checkpoints")
    parser.add_argument("step", metavar="STEP", type=int, help="number of the step")
    add_output_arguments(parser)
    parser.add_argument(
        "--back",
        type=int,
        default=1,
        help="which batch, counted back from the position of the step: 1 (the default) for the "
        "last trained on, 1 to N on N ranks, 0 for the next one",
    )
    parser.add_argument("--name", help="name of the dataset in the step, if it has several")
    add_device_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write the files, print their names and return 0.

    Raises:
        ValueError: There is no such step, dataset or batch.
        OSError: A file cannot be read or written.
        CheckpointError: The step is corrupt.
        ModuleNotFoundError: An extra is missing.
    """
    check_integer("--back", options.back, 0)
    writers = open_writers(options)
    if not options.run.is_dir():
        raise FileNotFoundError(f"{options.run} is not a folder of checkpoints.")
    with SynthPixDataset.from_checkpoint(
        options.run,
        step=options.step,
        name=options.name,
        device=options.device,
        rank=0,
        world_size=1,
    ) as dataset:
        number = dataset.position - options.back
        if number < 0:
            raise ValueError(
                f"Step {options.step} continues with batch {dataset.position}, so there is no "
                f"batch {options.back} before it; --back 0 makes the batch that comes next."
            )
        batch = dataset.batch_at(number)
        title = f"{options.run}, step {options.step}, batch {number}"
        write_all(writers, batch, Caption(title, unit_of(dataset), options.pairs))
    return 0
