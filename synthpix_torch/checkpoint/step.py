"""The files of one step: states, a manifest, and checksums of both.

The layout is that of an Orbax Composite, so that Orbax lists and reads the steps:

    sampler/metadata                 state of the dataset `data`, of another one <name>.sampler/...
    grain/process_0-of-1.json        Grain's part of it
    <name>/state.pt                  torch.save of any other object's state
    _CHECKPOINT_METADATA             the manifest, in Orbax's `custom_metadata`
    checksums.sha256                 as sha256sum writes them
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from synthpix_torch.checkpoint.files import (
    CorruptError,
    open_regular,
    printable,
    read_json,
    write_json,
)
from synthpix_torch.checkpoint.seal import check_seal, is_sealed, seal

FORMAT = 1
DATASET, RANDOM, TORCH = "dataset", "random", "torch"
"""Kinds of objects."""
ITEMS = ("sampler", "grain")
"""Items of a dataset."""
METRICS = "metrics"
"""The item in which Orbax looks for metrics."""

_MARK = "synthpix_torch"
_METADATA = "_CHECKPOINT_METADATA"


class Manifest(NamedTuple):
    """The contents of a step.

    Attributes:
        objects: The kind of each object by name.
        datasets: Position, epochs passed and fingerprint's digest of each dataset.
        recipes: What `SynthPixDataset.from_checkpoint` builds each dataset from; empty in steps
            of version 0.1.0.
        metrics: Numbers by which steps are compared.
        step: The number of the step, None in steps before version 0.3.0.
        version: The version of synthpix_torch that wrote the step.
    """

    objects: dict[str, str]
    datasets: dict[str, dict[str, Any]]
    recipes: dict[str, dict[str, Any]]
    metrics: dict[str, float]
    step: int | None
    version: str


def is_name(name: object) -> bool:
    """Return whether a name can be that of an object, and so of a folder of a step."""
    return (
        isinstance(name, str)
        and name.isascii()
        and name.isidentifier()
        and not name.startswith("_")
    )


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
    if manifest.metrics:
        (step / METRICS).mkdir()
        write_json(step / METRICS / METRICS, manifest.metrics)
    mark = {"format": FORMAT, **manifest._asdict()}
    write_json(step / _METADATA, {"custom_metadata": {_MARK: mark}})
    seal(step)


def read_step(step: Path, objects: Mapping[str, str]) -> dict[str, Any]:
    """Read the states of some objects, with tensors on the CPU.

    Args:
        step: A step without fault.
        objects: The kinds of the objects to read, by name.

    Raises:
        CorruptError: A state cannot be read, although it is what was saved.
        OSError: This process cannot read it now.
    """
    states = {}
    for name, kind in objects.items():
        try:
            if kind == DATASET:
                states[name] = read_dataset(step, prefix=_prefix(name))
            else:
                states[name] = _read_torch(step / name / "state.pt")
        except (OSError, CorruptError):
            raise
        except Exception as error:
            # torch raises errors of many kinds.
            raise CorruptError(
                f"the state of {name} cannot be read: {printable(str(error))}"
            ) from error
    return states


def _read_torch(path: Path) -> Any:
    with open_regular(path) as file:
        length = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            # torch compresses nothing: what is longer unpacked would fill the memory.
            if sum(entry.file_size for entry in archive.infolist()) > length:
                raise CorruptError(f"{path} is compressed")
        file.seek(0)
        return torch.load(file, weights_only=True, map_location="cpu")


def write_dataset(folder: Path, state: Mapping[str, Any], *, prefix: str = "") -> None:
    """Write the state of a dataset as the items `sampler` and `grain`."""
    rest = {key: value for key, value in state.items() if key != "grain"}
    for file, content in zip(_files(folder, prefix), (rest, state["grain"]), strict=True):
        file.parent.mkdir()
        write_json(file, content)


def read_dataset(
    folder: Path, *, prefix: str = "", read: Callable[[Path], Any] = read_json
) -> dict[str, Any]:
    """Read the state that `write_dataset` wrote.

    Args:
        folder: The folder that holds the items.
        prefix: Of the names of the items.
        read: Reads a file of JSON.
    """
    rest, grain = (read(file) for file in _files(folder, prefix))
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
        OSError: This process cannot read it now, which does not mean that it is corrupt.
    """
    if not is_ours(step):
        return "synthpix_torch did not write it"
    try:
        check_seal(step)
    except CorruptError as error:
        return printable(str(error))
    manifest = read_manifest(step)
    if manifest is None:
        return "its manifest is missing or malformed"
    if manifest.step is not None and str(manifest.step) != step.name:
        return f"it was saved as step {manifest.step}"
    return None


def is_ours(step: Path) -> bool:
    """Return whether synthpix_torch wrote a step, also if parts of it are lost.

    Raises:
        OSError: This process cannot read it now.
    """
    return is_sealed(step) or _read_mark(step) is not None


def read_manifest(step: Path) -> Manifest | None:
    """Return what a step holds, None if it has no manifest of ours.

    Raises:
        ValueError: A newer version wrote it.
        OSError: This process cannot read it now.
    """
    mark = _read_mark(step)
    if mark is None:
        return None
    if mark["format"] > FORMAT:
        raise ValueError(
            f"{step} has format {mark['format']}, this version of synthpix_torch reads {FORMAT}: "
            f"install version {printable(str(mark.get('version')))} or newer."
        )
    older: dict[str, Any] = {"recipes": {}, "metrics": {}, "step": None}
    parts = older | {key: mark[key] for key in Manifest._fields if key in mark}
    if parts.keys() != set(Manifest._fields):
        return None
    manifest = Manifest(**parts)
    return manifest if _is_well_formed(manifest) else None


def _is_well_formed(manifest: Manifest) -> bool:
    objects, datasets, recipes, metrics, step, version = manifest
    return (
        all(isinstance(part, dict) for part in (objects, datasets, recipes, metrics))
        and all(is_name(name) and isinstance(kind, str) for name, kind in objects.items())
        and all(
            objects.get(name) == DATASET
            and isinstance(about, dict)
            and isinstance(about.get("position"), int)
            and isinstance(about.get("epochs"), float)
            and isinstance(about.get("fingerprint"), str)
            for name, about in datasets.items()
        )
        and all(isinstance(recipe, dict) for recipe in recipes.values())
        and all(isinstance(value, float) for value in metrics.values())
        and isinstance(step, int | None)
        and isinstance(version, str)
    )


def _read_mark(step: Path) -> dict[str, Any] | None:
    try:
        mark = read_json(step / _METADATA)["custom_metadata"][_MARK]
    except (CorruptError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("format"), int) else None
