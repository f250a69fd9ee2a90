"""Which step to restore: the newest that is whole, or the one that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from synthpix_torch.checkpoint.folder import CheckpointError, Folder

FindFault = Callable[[Path], str | None]


def find_newest(
    folder: Folder, find_fault: FindFault, *, depth: int
) -> tuple[int | None, list[int]]:
    """The newest step without a fault, None if there is none, and those that were passed over.

    Each of those is named in a warning, at the line that lies `depth` calls above this function.

    Raises:
        CheckpointError: A step cannot be read by this process.
    """
    passed_over: list[int] = []
    for number in reversed(folder.steps()):
        fault = _look(folder, number, find_fault)
        if fault is None:
            return number, passed_over
        if not folder.step(number).exists():
            # Its writer has deleted it since, and so there is a newer one.
            return find_newest(folder, find_fault, depth=depth + 1)
        passed_over.append(number)
        warnings.warn(
            f"Step {number} in {folder.path} cannot be restored, an older one is used: {fault}.",
            stacklevel=depth + 1,
        )
    return None, passed_over


def check_step(folder: Folder, number: int, find_fault: FindFault) -> None:
    """Raise unless a step is there and has no fault.

    Raises:
        CheckpointError: It is damaged, or cannot be read by this process.
        ValueError: It is not there.
    """
    if number not in folder.steps():
        known = ", ".join(map(str, folder.steps())) or "none"
        raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
    fault = _look(folder, number, find_fault)
    if fault is not None:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {fault}. Restore another step, "
            "or leave out step= for the newest whole one."
        )


def _look(folder: Folder, number: int, find_fault: FindFault) -> str | None:
    try:
        return find_fault(folder.step(number))
    except OSError as error:
        # Not damage: with older steps in its place what can be mended would be lost.
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be read: {error}. Mend that, or restore "
            "another step with step=."
        ) from error
