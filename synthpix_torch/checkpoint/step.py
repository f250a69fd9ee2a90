"""The files of one step: states, a manifest, and checksums of both.

The layout is that of an Orbax Composite, so that Orbax lists and reads the steps:

    sampler/metadata                 state of the dataset `data`, of another one <name>.sampler/...
    grain/process_0-of-1.json        Grain's part of it
    <name>/state.pt                  torch.save of any other object's state
    _CHECKPOINT_METADATA             the manifest, in Orbax's `custom_metadata`
    checksums.sha256                 as sha256sum writes them
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

FORMAT = 1
DATASET, RANDOM, TORCH = "dataset", "random", "torch"
"""Kinds of objects."""
ITEMS = ("sampler", "grain")
"""Items of a dataset."""
CHECKSUMS = "checksums.sha256"

_MARK = "synthpix_torch"
_METADATA = "_CHECKPOINT_METADATA"
_CORRUPT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)
"""Errors of reading a corrupt step; any other error is a missing permission or resource."""


class Manifest(NamedTuple):
    """The contents of a step.

    Attributes:
        objects: The kind of each object by name.
        datasets: Position, epochs passed and fingerprint's digest of each dataset.
        recipes: What `SynthPixDataset.from_checkpoint` builds each dataset from; empty in steps
            of version 0.1.0.
        version: The version of synthpix_torch that wrote the step.
    """

    objects: dict[str, str]
    datasets: dict[str, dict[str, Any]]
    recipes: dict[str, dict[str, Any]]
    version: str


def write_step(step: Path, states: Mapping[str, Any], manifest: Manifest) -> None:
    """Write a step into a new folder, and flush it to disk.

    Args:
        step: The folder, which must not exist.
        states: States by name; nothing may change them meanwhile.
        manifest: What the step holds.
    """
    step.mkdir()
    for name, kind in manifest.objects.items():
        if kind == DATASET:
            write_dataset(step, states[name], prefix=_prefix(name))
        else:
            (step / name).mkdir()
            with open(step / name / "state.pt", "wb") as file:
                torch.save(states[name], file)
    metadata = {"custom_metadata": {_MARK: {"format": FORMAT, **manifest._asdict()}}}
    (step / _METADATA).write_text(json.dumps(metadata), encoding="utf-8")
    seal(step)


def read_step(step: Path, objects: Mapping[str, str]) -> dict[str, Any]:
    """Read the states of some objects, with tensors on the CPU.

    Args:
        step: A step without fault.
        objects: The kinds of the objects to read, by name.
    """
    return {
        name: read_dataset(step, prefix=_prefix(name))
        if kind == DATASET
        else torch.load(step / name / "state.pt", weights_only=True, map_location="cpu")
        for name, kind in objects.items()
    }


def write_dataset(folder: Path, state: Mapping[str, Any], *, prefix: str = "") -> None:
    """Write the state of a dataset as the items `sampler` and `grain`."""
    rest = {key: value for key, value in state.items() if key != "grain"}
    for file, content in zip(_files(folder, prefix), (rest, state["grain"]), strict=True):
        file.parent.mkdir()
        file.write_text(json.dumps(content), encoding="utf-8")


def read_dataset(folder: Path, *, prefix: str = "") -> dict[str, Any]:
    """Read the state that `write_dataset` wrote."""
    rest, grain = (json.loads(file.read_bytes()) for file in _files(folder, prefix))
    return {**rest, "grain": grain}


def _files(folder: Path, prefix: str) -> tuple[Path, Path]:
    return (
        folder / f"{prefix}sampler" / "metadata",
        folder / f"{prefix}grain" / "process_0-of-1.json",
    )


def _prefix(name: str) -> str:
    return "" if name == "data" else f"{name}."


# Reading the manifest ----------------------------------------------------------------------------


def find_fault(step: Path) -> str | None:
    """Return why a step cannot be restored, None if it can be. Reads every byte.

    Raises:
        ValueError: A newer version wrote it.
        OSError: This process cannot read it, which does not mean that it is corrupt.
    """
    if not is_ours(step):
        return "synthpix_torch did not write it"
    fault = _find_corruption(step)
    if fault is None and read_manifest(step) is None:
        return "its manifest is missing"
    return fault


def is_ours(step: Path) -> bool:
    """Return whether synthpix_torch wrote a step, also if parts of it are lost."""
    return (step / CHECKSUMS).exists() or _read_mark(step) is not None


def read_manifest(step: Path) -> Manifest | None:
    """Return what a step holds, None if it has no manifest of ours.

    Raises:
        ValueError: A newer version wrote it.
    """
    mark = _read_mark(step)
    if mark is None:
        return None
    if mark["format"] > FORMAT:
        raise ValueError(
            f"{step} has format {mark['format']}, this version of synthpix_torch reads {FORMAT}: "
            f"install version {mark.get('version')} or newer."
        )
    try:
        return Manifest(mark["objects"], mark["datasets"], mark.get("recipes", {}), mark["version"])
    except KeyError:
        return None


def _read_mark(step: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((step / _METADATA).read_bytes())["custom_metadata"][_MARK]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("format"), int) else None


# Checksums -------------------------------------------------------------------------------------


def seal(folder: Path) -> None:
    """Write the checksums of all files in a folder, then flush all of it to disk."""
    text = "".join(f"{_digest(folder / name)}  {name}\n" for name in _names(folder))
    # sha256sum reads this line as a comment.
    text += f"# {hashlib.sha256(text.encode()).hexdigest()}\n"
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find_corruption(folder: Path) -> str | None:
    """Return how a folder differs from what was sealed, None if it does not.

    Raises:
        OSError: This process cannot read it.
    """
    try:
        expected = _read_checksums(folder)
        found = set(_names(folder)) - {CHECKSUMS}
        if missing := sorted(expected.keys() - found):
            return f"{', '.join(missing)} is missing"
        if added := sorted(found - expected.keys()):
            return f"{', '.join(added)} does not belong there"
        changed = (name for name, digest in expected.items() if _digest(folder / name) != digest)
        name = next(changed, None)
        return None if name is None else f"{name} was changed"
    except ValueError as error:
        return str(error)
    except OSError as error:
        if error.errno not in _CORRUPT:
            raise
        return str(error)


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.is_file():
        raise ValueError(f"{CHECKSUMS} is missing")
    *lines, last = path.read_bytes().decode(errors="replace").splitlines(keepends=True) or [""]
    if last != f"# {hashlib.sha256(''.join(lines).encode()).hexdigest()}\n":
        raise ValueError(f"{CHECKSUMS} was changed")
    pairs = (line.rstrip("\n").split("  ", 1) for line in lines)
    return {name: digest for digest, name in pairs}


def _names(folder: Path) -> list[str]:
    """Return the sorted names of all files below a folder."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        # A link to a folder would take its content from elsewhere, so it counts as a file.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def _raise(error: OSError) -> NoReturn:
    raise error


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "not a file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
