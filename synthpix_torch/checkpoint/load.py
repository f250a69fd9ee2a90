"""Read a dataset from the newest complete step of a folder, or from a given one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from synthpix_torch.checkpoint import from_synthpix
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.files import CorruptError, printable
from synthpix_torch.checkpoint.folder import CheckpointError, Folder, Location
from synthpix_torch.checkpoint.objects import Dataset
from synthpix_torch.checkpoint.step import DATASET, Manifest

Result = TypeVar("Result")


class Found(NamedTuple):
    """The step to read.

    Attributes:
        number: Its number, None if there is no step without fault.
        location: Where it was found.
        faults: Why newer steps cannot be restored, by number.
    """

    number: int | None
    location: Location | None
    faults: dict[int, str]

    def warn(self, folder: Path, *, stacklevel: int) -> None:
        """Warn of each newer step that cannot be restored, at a caller's line."""
        for number, fault in self.faults.items():
            warnings.warn(
                f"Step {number} in {folder} cannot be restored and is skipped: {fault}.",
                stacklevel=stacklevel + 1,
            )


def find_step(
    folder: Folder,
    find_fault: Callable[[Path], str | None],
    number: int | None = None,
    ranked: Callable[[Folder, Iterable[int]], list[int]] | None = None,
) -> Found:
    """Find the newest step without fault or the best one, or check a given one.

    Args:
        folder: The steps.
        find_fault: Returns why a step cannot be restored, or None.
        number: The given step.
        ranked: Returns the steps that have a metric, the best first; without it the newest counts.

    Raises:
        CheckpointError: The given step is corrupt, or this process cannot read a step now.
        ValueError: There is no such step, or none has the metric.
    """
    while True:
        locations = folder.locations()
        if number is not None and number not in locations:
            known = ", ".join(map(str, sorted(locations))) or "none"
            raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
        # A step that its writer moves or deletes meanwhile looks corrupt or missing.
        try:
            if number is not None:
                candidates = [number]
            else:
                candidates = (ranked or _newest_first)(folder, locations)
            found = _look_through(folder, locations, find_fault, candidates)
        except CheckpointError:
            if folder.locations() == locations:
                raise
        else:
            if not found.faults or folder.locations() == locations:
                break
    if ranked is not None and locations and not candidates:
        raise ValueError(f"No step in {folder.path} has the metric: save with metrics={{...}}.")
    if number is not None and found.number is None:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {found.faults[number]}. Restore "
            "another step, or leave out step= for the newest complete one."
        )
    return found


def _newest_first(_: Folder, numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, reverse=True)


def _look_through(
    folder: Folder,
    locations: dict[int, Location],
    find_fault: Callable[[Path], str | None],
    candidates: list[int],
) -> Found:
    faults: dict[int, str] = {}
    for number in candidates:
        try:
            fault = find_fault(locations[number].path)
        except OSError as error:
            # The step may be fine: an older one in its place would lose what it holds.
            raise CheckpointError(
                f"Step {number} in {folder.path} cannot be read: {error}. Fix that, or restore "
                "another step with step=."
            ) from error
        if fault is None:
            return Found(number, locations[number], faults)
        faults[number] = fault
    return Found(None, None, faults)


# Datasets ----------------------------------------------------------------------------------------


def load_newest(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Load the newest complete step of a folder into a dataset; other objects are ignored.

    Args:
        dataset: The dataset.
        path: Steps of this package or of synthpix 0.3.1, which have no checksums: their counts
            must agree with each other.

    Raises:
        FileNotFoundError: There is no complete step.
        ValueError: The step holds no dataset or several, or does not fit.
        StateMismatchError: It was saved with another configuration or other data.
        CheckpointError: This process cannot read the folder or a step.
    """

    def load(step: Path) -> None:
        if from_synthpix.is_synthpix_step(step):
            dataset.seek(from_synthpix.read_position(dataset.stream, step))
        else:
            name, _ = _choose(step, None)
            dataset.load_state_dict(steps.read_step(step, {name: DATASET})[name])

    _read(path, None, load, advice="leave out load_from")


def read_recipe(
    path: str | os.PathLike[str], step: int | None = None, name: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a dataset can be built again from, and its state.

    Args:
        path: The folder of the steps.
        step: The step; the newest complete one by default.
        name: The dataset's name; by default `data`, or the only dataset.

    Returns:
        The dataset's `recipe` and its state dict.

    Raises:
        FileNotFoundError: There is no complete step.
        ValueError: There is no such step or dataset, or the step holds no recipe.
        CheckpointError: The given step is corrupt, or this process cannot read it.
    """

    def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        if from_synthpix.is_synthpix_step(folder):
            raise _no_recipe(folder, "synthpix", path)
        chosen, manifest = _choose(folder, name)
        recipe = manifest.recipes.get(chosen)
        if recipe is None:
            raise _no_recipe(folder, f"synthpix_torch {printable(manifest.version)}", path)
        if not {"config", "arguments", "source"} <= recipe.keys() or not (
            isinstance(recipe["config"], dict) and isinstance(recipe["arguments"], dict)
        ):
            raise CorruptError(f"the recipe of {chosen} is malformed")
        return recipe, steps.read_step(folder, {chosen: DATASET})[chosen]

    return _read(path, step, read, advice="choose another folder")


def _read(
    path: str | os.PathLike[str],
    number: int | None,
    read: Callable[[Path], Result],
    *,
    advice: str,
) -> Result:
    folder = Folder(path)
    while True:
        found = find_step(folder, _find_fault, number)
        found.warn(folder.path, stacklevel=4)
        if found.number is None or found.location is None:
            raise FileNotFoundError(f"There is no complete step in {folder.path}: {advice}.")
        failure: Exception | None = None
        try:
            result = read(found.location.path)
        except (OSError, CorruptError) as error:
            failure = CheckpointError(
                f"Step {found.number} in {folder.path} cannot be read: {error}."
            )
            failure.__cause__ = error
        except Exception as error:
            failure = error
        # Else its writer has moved, deleted or replaced it while it was read.
        if folder.locations().get(found.number) == found.location:
            break
    if failure is not None:
        raise failure
    return result


def _find_fault(step: Path) -> str | None:
    if from_synthpix.is_synthpix_step(step):
        return from_synthpix.find_fault(step)
    return steps.find_fault(step)


def _choose(step: Path, name: str | None) -> tuple[str, Manifest]:
    """Return the name of a dataset in a step, and the step's manifest."""
    manifest = steps.read_manifest(step)
    assert manifest is not None
    names = list(manifest.datasets)
    held = f"{step} holds {len(names)} datasets ({', '.join(names) or 'none'})"
    if name is not None and name not in names:
        raise ValueError(f"{held}, none of them named {name}: choose one of them.")
    if name is None and "data" not in names and len(names) != 1:
        raise ValueError(
            f"{held}, none of them named data: restore it with a Checkpointer, or choose a name in "
            "SynthPixDataset.from_checkpoint."
        )
    return name or ("data" if "data" in names else names[0]), manifest


def _no_recipe(step: Path, writer: str, path: str | os.PathLike[str]) -> ValueError:
    return ValueError(
        f"{step} was written by {writer}, which stores no configuration: build the dataset with "
        f"SynthPixDataset(config, load_from={os.fspath(path)!r})."
    )
