"""Which step to restore: the newest that is whole, or the one that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from synthpix_torch.checkpoint.folder import CheckpointError, Folder, Place

FindFault = Callable[[Path], str | None]


class _Found(NamedTuple):
    """The newest step without a fault, None if there is none, and the faults of newer ones."""

    number: int | None
    faults: dict[int, str]


def find_newest(
    folder: Folder, find_fault: FindFault, *, depth: int
) -> tuple[int | None, list[int]]:
    """The newest step without a fault, None if there is none, and those that were passed over.

    Each of those is named in a warning, at the line that lies `depth` calls above this function.

    Raises:
        CheckpointError: A step cannot be read by this process.
    """
    found, faults = _settle(folder, lambda places: _look_through(folder, places, find_fault))
    for number, fault in faults.items():
        warnings.warn(
            f"Step {number} in {folder.path} cannot be restored and is passed over: {fault}.",
            stacklevel=depth + 1,
        )
    return found, list(faults)


def check_step(folder: Folder, number: int, find_fault: FindFault) -> None:
    """Raise unless a step is there and has no fault.

    Raises:
        CheckpointError: It is damaged, or cannot be read by this process.
        ValueError: It is not there.
    """

    def look(places: dict[int, Place]) -> _Found:
        if number not in places:
            known = ", ".join(map(str, sorted(places))) or "none"
            raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
        return _look_through(folder, {number: places[number]}, find_fault)

    _, faults = _settle(folder, look)
    if faults:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {faults[number]}. Restore another "
            "step, or leave out step= for the newest whole one."
        )


def _settle(folder: Folder, look: Callable[[dict[int, Place]], _Found]) -> _Found:
    """What `look` says of the steps of a folder, once no writer moved or deleted any meanwhile.

    To one who looks, those are damaged or gone.
    """
    while True:
        places = folder.places()
        try:
            found = look(places)
        except CheckpointError:
            if folder.places() == places:
                raise
        else:
            if not found.faults or folder.places() == places:
                return found


def _look_through(folder: Folder, places: Mapping[int, Place], find_fault: FindFault) -> _Found:
    """Look at the newest of some steps first, and no further than one without a fault."""
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
            return _Found(number, faults)
        faults[number] = fault
    return _Found(None, faults)
