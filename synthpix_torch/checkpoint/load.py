"""Read a dataset from the newest complete step of a folder, or from a given one."""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orbax.checkpoint as ocp

from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.folder import CheckpointError, Folder, Location
from synthpix_torch.checkpoint.objects import Dataset
from synthpix_torch.checkpoint.step import DATASET, Manifest
from synthpix_torch.stream.stream import Stream

Result = TypeVar("Result")

_GRAIN = "process_0-of-1.json"


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
    folder: Folder, find_fault: Callable[[Path], str | None], number: int | None = None
) -> Found:
    """Find the newest step without fault, or check a given one.

    Args:
        folder: The steps.
        find_fault: Returns why a step cannot be restored, or None.
        number: The given step.

    Raises:
        CheckpointError: The given step is corrupt, or this process cannot read a step.
        ValueError: There is no such step.
    """
    while True:
        locations = folder.locations()
        if number is not None and number not in locations:
            known = ", ".join(map(str, sorted(locations))) or "none"
            raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
        # A step that its writer moves or deletes meanwhile looks corrupt or missing.
        try:
            found = _look_through(folder, locations, find_fault, number)
        except CheckpointError:
            if folder.locations() == locations:
                raise
        else:
            if not found.faults or folder.locations() == locations:
                break
    if number is not None and found.number is None:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {found.faults[number]}. Restore "
            "another step, or leave out step= for the newest complete one."
        )
    return found


def _look_through(
    folder: Folder,
    locations: dict[int, Location],
    find_fault: Callable[[Path], str | None],
    given: int | None,
) -> Found:
    faults: dict[int, str] = {}
    for number in sorted(locations, reverse=True) if given is None else [given]:
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
        if is_synthpix_step(step):
            dataset.seek(_read_position(dataset.stream, step))
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
        if is_synthpix_step(folder):
            raise _no_recipe(folder, "synthpix", path)
        chosen, manifest = _choose(folder, name)
        recipe = manifest.recipes.get(chosen)
        if recipe is None:
            raise _no_recipe(folder, f"synthpix_torch {manifest.version}", path)
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
        try:
            return read(found.location.path)
        except Exception:
            # Its writer may have moved or deleted it meanwhile, for a newer one.
            if folder.locations().get(found.number) == found.location:
                raise


def _find_fault(step: Path) -> str | None:
    return None if is_synthpix_step(step) else steps.find_fault(step)


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


# Steps of synthpix 0.3.1 -------------------------------------------------------------------------


def is_synthpix_step(step: Path) -> bool:
    """Return whether synthpix.save_checkpoint wrote a step, with indices of Grain's DataLoader."""
    try:
        state = json.loads((step / "grain" / _GRAIN).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "last_seen_indices" in state


def _read_position(stream: Stream, step: Path) -> int:
    """Return the number of the batch that synthpix would have made next.

    Grain's state counts the records taken, so the flow batches begun. The sampler's
    `batches_generated` counts the uses of the last of them. Both together decide what comes next.
    `items_yielded` and `step` count the same again and must agree; `step` does not count what
    next_episode() skipped. The configuration of the images is not stored and cannot be compared.

    Raises:
        ValueError: The counts do not agree, or belong to other data, another order or another
            configuration.
    """
    order, config = stream.order, stream.config
    if order.streams != 1:
        raise ValueError("synthpix has one stream: leave out streams to load its checkpoints.")
    grain = json.loads((step / "grain" / _GRAIN).read_bytes())
    if grain.get("worker_count"):
        raise ValueError(
            f"{step} was saved with worker_count={grain['worker_count']}, which reorders the "
            "stream: it cannot be continued exactly."
        )
    for key, here in stream.flows.names_in_grain.items():
        saved = str(grain.get(key))
        if _without_folder(saved) != _without_folder(here):
            raise ValueError(
                f"{step} was saved with other data or in another order: {saved[:300]}, here "
                f"{here[:300]}. Build the dataset with the saved configuration."
            )
    taken = int(grain["last_seen_indices"]["0"]) + 1
    sampler = _read_sampler(step)
    flow_batches = -(-taken // config.batch_size)
    used = sampler.get("batches_generated", 1 if flow_batches else 0)
    # If the current flow batch is unused, the next batch begins another one.
    begun = flow_batches if used == 0 else flow_batches - 1
    position = begun * config.repetitions + used
    delivered = sampler.get("step", position)
    agree = (
        sampler["items_yielded"] == taken
        and used <= config.repetitions
        and (delivered == position or (order.episodic and delivered < position))
    )
    if not agree:
        raise ValueError(
            f"The counts in {step} do not agree with batch_size={config.batch_size} and "
            f"batches_per_flow_batch={config.repetitions}: Grain took {taken} records, synthpix "
            f"counts {sampler['items_yielded']} records, {delivered} batches and {used} of the "
            "last flow batch. Build the dataset with the saved configuration, or continue from "
            "dataset.seek(position)."
        )
    return position


def _without_folder(name: str) -> str:
    """Return a data source's name in Grain's state, with paths relative to their common folder."""
    found = re.search(r"file_list=(\[.*\])", name)
    if found is None:
        return name
    files = ast.literal_eval(found[1])
    folder = os.path.commonpath([os.path.dirname(file) for file in files])
    return name.replace(found[1], str([os.path.relpath(file, folder) for file in files]))


def _read_sampler(step: Path) -> dict[str, int]:
    """Read the counts in the `sampler` item, without the arrays beside them."""
    with ocp.PyTreeCheckpointer() as orbax:
        tree: Any = orbax.metadata(step / "sampler").item_metadata.tree
        counts = {key: 0 for key in ("step", "batches_generated") if key in tree}
        as_array = ocp.RestoreArgs(restore_type=np.ndarray)
        restored: Any = orbax.restore(
            step / "sampler",
            args=ocp.args.PyTreeRestore(
                item={**counts, "scheduler_state": {"items_yielded": 0}},
                restore_args={
                    **dict.fromkeys(counts, as_array),
                    "scheduler_state": {"items_yielded": as_array},
                },
                partial_restore=True,
            ),
        )
    counts = {key: int(restored[key]) for key in counts}
    return {**counts, "items_yielded": int(restored["scheduler_state"]["items_yielded"])}
