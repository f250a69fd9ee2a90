"""Which step to restore: the newest that is whole, or the one that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from synthpix_torch.checkpoint.folder import CheckpointError, Folder, Place

FindFault = Callable[[Path], str | None]


def find_newest(
    folder: Folder, find_fault: FindFault, *, depth: int
) -> tuple[int | None, list[int]]:
    """The newest step without a fault, None if there is none, and those that were passed over.

    Each of those is named in a warning, at the line that lies `depth` calls above this function.

    Raises:
        CheckpointError: A step cannot be read by this process.
    """
    while True:
        places = folder.places()
        try:
            found, faults = _look_through(folder, places, find_fault)
        except CheckpointError:
            if folder.places() == places:
                raise
            continue
        # What its writer moved or deleted under way looked damaged and is not.
        if not faults or folder.places() == places:
            break
    for number, fault in faults.items():
        warnings.warn(
            f"Step {number} in {folder.path} cannot be restored, an older one is used: {fault}.",
            stacklevel=depth + 1,
        )
    return found, list(faults)


def check_step(folder: Folder, number: int, find_fault: FindFault) -> None:
    """Raise unless a step is there and has no fault.

    Raises:
        CheckpointError: It is damaged, or cannot be read by this process.
        ValueError: It is not there.
    """
    while True:
        places = folder.places()
        if number not in places:
            known = ", ".join(map(str, sorted(places))) or "none"
            raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
        try:
            _, faults = _look_through(folder, {number: places[number]}, find_fault)
        except CheckpointError:
            if folder.places() == places:
                raise
            continue
        if not faults or folder.places() == places:
            break
    if faults:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {faults[number]}. Restore another "
            "step, or leave out step= for the newest whole one."
        )


def _look_through(
    folder: Folder, places: Mapping[int, Place], find_fault: FindFault
) -> tuple[int | None, dict[int, str]]:
    """The newest of some steps without a fault, and the faults of those that are newer."""
    faults: dict[int, str] = {}
    for number in sorted(places, reverse=True):
        try:
            fault = find_fault(places[number].path)
        except OSError as error:
            # Not damage: with older steps in its place what can be mended would be lost.
            raise CheckpointError(
                f"Step {number} in {folder.path} cannot be read: {error}. Mend that, or restore "
                "another step with step=."
            ) from error
        if fault is None:
            return number, faults
        faults[number] = fault
    return None, faults
