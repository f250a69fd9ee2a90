"""The command `synthpix-torch inspect`: what a folder of checkpoints holds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from synthpix_torch.checkpoint import synthpix_step
from synthpix_torch.checkpoint.folder import CheckpointError, Folder
from synthpix_torch.checkpoint.step import find_fault, is_ours, read_about


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all is well, 1 if a step is damaged, 2 if there is no folder."""
    parser = argparse.ArgumentParser(prog="synthpix-torch")
    commands = parser.add_subparsers(required=True)
    inspect = commands.add_parser("inspect", help="list the steps of a folder, reading every byte")
    inspect.add_argument("folder", type=Path)
    inspect.add_argument("--json", action="store_true", help="as JSON, for programs")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    try:
        found = _describe_all(options.folder)
    except CheckpointError as error:
        parser.error(str(error))
    print(json.dumps(found, indent=2) if options.json else _table(found))
    return int(any(step["damage"] for step in found))


def _describe_all(path: Path) -> list[dict[str, Any]]:
    folder = Folder(path)
    found = []
    for number, place in sorted(folder.places().items()):
        # Its writer may move or delete a step while it is looked at.
        with suppress(FileNotFoundError):
            step = describe_step(path, number)
            moved = step["damage"] and folder.places().get(number) != place
            found.append(describe_step(path, number) if moved else step)
    return found


def describe_step(folder: Path, number: int) -> dict[str, Any]:
    """One step: its number, age in seconds, size in bytes, what it holds and what is wrong."""
    path = Folder(folder).step(number)
    about, damage, ours = None, None, True
    try:
        ours = is_ours(path)
        if ours:
            about = read_about(path)
            damage = find_fault(path)
    except (ValueError, OSError) as error:
        damage = str(error)
    if ours:
        writer = f"synthpix_torch {about.version}" if about else "synthpix_torch"
    else:
        writer = "synthpix" if synthpix_step.is_one(path) else "another program"
    return {
        "step": number,
        "age": round(max(0.0, time.time() - path.stat().st_mtime), 1),
        "size": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "objects": about.objects if about else {},
        "datasets": about.datasets if about else {},
        "written_by": writer,
        "damage": damage,
    }


def _table(found: Sequence[dict[str, Any]]) -> str:
    rows = [("step", "age", "size", "position", "fingerprint", "objects", "")]
    for step in found:
        datasets = step["datasets"].items()
        position = ", ".join(
            f"{name}: batch {about['position']}, epoch {about['epochs']:.2f}"
            for name, about in datasets
        )
        rows.append(
            (
                str(step["step"]),
                _age(step["age"]),
                _size(step["size"]),
                position or "-",
                ", ".join(about["fingerprint"] for _, about in datasets) or "-",
                ", ".join(step["objects"]) or f"by {step['written_by']}",
                f"DAMAGED: {step['damage']}" if step["damage"] else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
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
