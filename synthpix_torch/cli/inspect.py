"""`synthpix-torch inspect`: list what a folder of checkpoints holds."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from synthpix_torch.checkpoint import from_synthpix
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.files import list_files, printable
from synthpix_torch.checkpoint.folder import Folder

HELP = "list the steps of a folder of checkpoints, reading every byte"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """Print the steps and return 1 if one is corrupt, else 0.

    Raises:
        ValueError: There is no such folder.
        CheckpointError: The folder cannot be read.
    """
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is not a folder")
    found = _describe_all(options.folder)
    print(json.dumps(found, indent=2) if options.json else _table(found))
    return int(any(step["corrupt"] for step in found))


def _describe_all(path: Path) -> list[dict[str, Any]]:
    folder = Folder(path)
    found = []
    for number, location in sorted(folder.locations().items()):
        # A writer may delete or move the step in the meantime.
        with suppress(FileNotFoundError):
            step = describe_step(path, number)
            moved = step["corrupt"] and folder.locations().get(number) != location
            found.append(describe_step(path, number) if moved else step)
    return found


def describe_step(folder: Path, number: int) -> dict[str, Any]:
    """Describe a step: number, age in seconds, size in bytes, contents, and why it is corrupt.

    Raises:
        FileNotFoundError: There is no such step.
    """
    path = Folder(folder).step(number)
    manifest, corrupt, size, writer = None, None, 0, "another program"
    try:
        if from_synthpix.is_synthpix_step(path):
            writer, corrupt = "synthpix", from_synthpix.find_fault(path)
        elif steps.is_ours(path):
            writer, manifest = "synthpix_torch", steps.read_manifest(path)
            corrupt = steps.find_fault(path)
        if writer != "another program" or not path.is_symlink():
            size = sum(os.lstat(path / name).st_size for name in list_files(path))
    except (ValueError, OSError) as error:
        corrupt = printable(str(error))
    if manifest:
        writer += f" {manifest.version}"
    return {
        "step": number,
        "age": round(max(0.0, time.time() - path.stat().st_mtime), 1),
        "size": size,
        "objects": manifest.objects if manifest else {},
        "datasets": manifest.datasets if manifest else {},
        "metrics": manifest.metrics if manifest else {},
        "written_by": writer,
        "corrupt": corrupt,
    }


def _table(found: Sequence[dict[str, Any]]) -> str:
    rows = [("step", "age", "size", "position", "fingerprint", "metrics", "objects", "")]
    for step in found:
        datasets = step["datasets"].items()
        position = ", ".join(
            f"{name}: batch {dataset['position']}, epoch {dataset['epochs']:.2f}"
            for name, dataset in datasets
        )
        rows.append(
            (
                str(step["step"]),
                _age(step["age"]),
                _size(step["size"]),
                position or "-",
                ", ".join(dataset["fingerprint"] for _, dataset in datasets) or "-",
                ", ".join(f"{name} {value:.6g}" for name, value in step["metrics"].items()) or "-",
                ", ".join(step["objects"]) or f"by {step['written_by']}",
                f"CORRUPT: {step['corrupt']}" if step["corrupt"] else "",
            )
        )
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
