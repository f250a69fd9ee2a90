"""The files that a batch is written to: figures, blinking pairs, arrays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from synthpix_torch.batch import AnyBatch
from synthpix_torch.checks import check_integer
from synthpix_torch.pictures.views import pairs_of

_FIGURES: Final = (".png", ".pdf", ".svg")
_BLINKING: Final = (".gif", ".apng")
_ARRAYS: Final = (".npz",)


class Caption(NamedTuple):
    """The text of a figure beside the batch.

    Attributes:
        title: Title of the figure.
        unit: Unit of the flow fields.
        shown: Image pairs that are drawn at most.
    """

    title: str
    unit: str
    shown: int


Writer = Callable[[AnyBatch, Caption], None]


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files to write and the number of pairs in a figure."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="file to write, may be repeated: a figure (.png, .pdf, .svg), a blinking pair "
        "(.gif, .apng) or all arrays of the batch (.npz)",
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs in the figure")


def open_writers(options: argparse.Namespace) -> dict[Path, Writer]:
    """Find what writes each file, before any batch is made.

    Raises:
        ValueError: A file has an unknown kind, or no pair is to be shown.
        FileNotFoundError: The folder of a file does not exist.
        ModuleNotFoundError: An extra is missing.
    """
    check_integer("--pairs", options.pairs, 1)
    return {path: _writer(path) for path in options.output}


def write_all(writers: Mapping[Path, Writer], batch: AnyBatch, caption: Caption) -> None:
    """Write the files and print their names.

    Raises:
        OSError: A file cannot be written.
    """
    for path, write in writers.items():
        write(batch, caption)
        print(path)


def _writer(path: Path) -> Writer:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist: make it first.")
    suffix = path.suffix.lower()
    if suffix in _FIGURES:
        from synthpix_torch.pictures.figure import draw_pairs

        def write(batch: AnyBatch, caption: Caption) -> None:
            draw_pairs(pairs_of(batch), **caption._asdict()).savefig(path)
    elif suffix in _BLINKING:
        from synthpix_torch.pictures.blink import save_blinking

        def write(batch: AnyBatch, caption: Caption) -> None:
            save_blinking(pairs_of(batch)[0], path)
    elif suffix in _ARRAYS:

        def write(batch: AnyBatch, caption: Caption) -> None:
            arrays: dict[str, Any] = dict(_arrays(batch._asdict()))
            np.savez_compressed(path, **arrays)
    else:
        known = ", ".join((*_FIGURES, *_BLINKING, *_ARRAYS))
        raise ValueError(f"{path} must end with one of {known}, which choose what is written.")
    return write


def _arrays(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in fields.items():
        if hasattr(value, "_asdict"):
            yield from _arrays(value._asdict(), f"{name}.")
        elif isinstance(value, torch.Tensor):
            # NumPy has no bfloat16.
            value = value.float() if value.dtype == torch.bfloat16 else value
            yield prefix + name, value.cpu().numpy()
        elif value is not None:
            yield prefix + name, np.asarray(value)
