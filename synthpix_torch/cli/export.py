"""`synthpix-torch export`: record batches of a configuration."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.recording import Recording, record
from synthpix_torch.recording.export import FORMS

HELP = "record batches of a configuration in a folder, as safetensors or in another format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("config", type=Path, help="YAML file of the configuration")
    parser.add_argument("batches", type=_range, help="first and last + 1, such as 0:100")
    parser.add_argument("folder", type=Path, help="new folder, or one to finish")
    parser.add_argument(
        "--images",
        choices=("given", "uint8", "uint16"),
        default="given",
        help="storage of grey levels; integers are rounded (default: the bits that were made)",
    )
    parser.add_argument("--digests", action="store_true", help="store no data, only digests")
    parser.add_argument(
        "--form", choices=tuple(FORMS), help="write this format instead of a recording"
    )


def run(options: argparse.Namespace) -> int:
    """Record the batches; a second call finishes an interrupted one."""
    if options.form and options.digests:
        raise ValueError("--digests stores no data to write as another format: leave out --form.")
    if not options.config.is_file():
        raise ValueError(f"{options.config} is not a file.")
    with SynthPixDataset(options.config) as dataset:
        if options.form is None:
            record(
                dataset,
                options.folder,
                options.batches,
                data=not options.digests,
                images=options.images,
                progress=True,
            )
        else:
            _export(dataset, options)
    print(options.folder)
    return 0


def _export(dataset: SynthPixDataset, options: argparse.Namespace) -> None:
    if options.folder.exists():
        raise ValueError(f"{options.folder} exists: choose another name.")
    options.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as temporary:
        folder = Path(temporary) / "recording"
        record(dataset, folder, options.batches, images=options.images, progress=True)
        Recording(folder).export(options.folder, form=options.form)


def _range(text: str) -> range:
    first, colon, stop = text.partition(":")
    if not (colon and first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(
            f"{text!r} are no batches: write FIRST:STOP, such as 0:100 for batches 0 to 99"
        )
    return range(int(first), int(stop))
