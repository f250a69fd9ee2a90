"""Rows of a chain on disk: append-only segments, each a file that is absent or complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import torch

from synthpix_torch.collecting.rows import Layout, Row
from synthpix_torch.extra import import_extra
from synthpix_torch.files import write_atomically, write_pieces
from synthpix_torch.tensor_files import pieces

_NAME: Final = re.compile(r"(\d{12})-(\d{12})\.safetensors")


class Segment(NamedTuple):
    """Rows `first` to `stop - 1` in a file."""

    first: int
    stop: int
    path: Path


def list_segments(folder: Path) -> list[Segment]:
    """Return the segments of a chain in the order of their rows; [] if there is no folder."""
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(
        Segment(int(match[1]), int(match[2]), path) for match, path in found if match is not None
    )


def count_rows(segments: list[Segment]) -> int:
    """Return the number of rows from 0 that lie in segments without a gap."""
    rows = 0
    for segment in segments:
        if segment.first == rows:
            rows = segment.stop
    return rows


def write_segment(folder: Path, first: int, rows: Row) -> None:
    """Write stacked rows as one segment and flush it to disk."""
    count = len(next(iter(rows.values())))
    folder.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> None:
        tensors = {name: [torch.from_numpy(array)] for name, array in rows.items()}
        write_pieces(path, pieces(tensors))

    write_atomically(folder / f"{first:012}-{first + count:012}.safetensors", write)


def read_segments(folder: Path, rows: int) -> Iterator[Row]:
    """Read the segments with the first `rows` rows, one after another."""
    load_file = import_extra("safetensors.numpy").load_file
    for segment in list_segments(folder):
        if segment.stop <= rows:
            yield load_file(segment.path)


def read_layout(segment: Segment) -> Layout:
    """Return the shape and the dtype of a row's leaves."""
    with import_extra("safetensors").safe_open(segment.path, framework="np") as file:
        rows = {path: file.get_slice(path)[:1] for path in file.keys()}  # noqa: SIM118
    return {path: (row.shape[1:], row.dtype) for path, row in rows.items()}


def delete_from(folder: Path, row: int) -> None:
    """Delete the segments that begin at a row or later, the last first."""
    for segment in reversed(list_segments(folder)):
        if segment.first >= row:
            segment.path.unlink()


def move_aside(folder: Path) -> Path:
    """Rename a folder to the first free name `<name>.replaced-<n>`, and return that."""
    number = 1
    while (target := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
        number += 1
    os.replace(folder, target)
    return target
