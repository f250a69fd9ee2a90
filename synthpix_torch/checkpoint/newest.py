"""Which step to restore: the newest that is whole, or the one that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from synthpix_torch.checkpoint.folder import CheckpointError, Folder

FindFault = Callable[[Path], str | None]


def find_newest(folder: Folder, find_fault: FindFault) -> tuple[int | None, list[int]]:
    """The newest step without a fault, None if there is none, and those that were passed over.

    Each of those is named in a warning.
    """
    passed_over: list[int] = []
    for number in reversed(folder.steps()):
        fault = find_fault(folder.step(number))
        if fault is None:
            return number, passed_over
        if not folder.step(number).exists():
            # Its writer has deleted it since, and so there is a newer one.
            return find_newest(folder, find_fault)
        passed_over.append(number)
        warnings.warn(
            f"Step {number} in {folder.path} cannot be restored, an older one is used: {fault}.",
            stacklevel=4,
        )
    return None, passed_over


def check_step(folder: Folder, number: int, find_fault: FindFault) -> None:
    """Raise unless a step is there and has no fault.

    Raises:
        CheckpointError: It is damaged.
        ValueError: It is not there.
    """
    if number not in folder.steps():
        known = ", ".join(map(str, folder.steps())) or "none"
        raise ValueError(f"There is no step {number} in {folder.path}; there are: {known}.")
    fault = find_fault(folder.step(number))
    if fault is not None:
        raise CheckpointError(
            f"Step {number} in {folder.path} cannot be restored: {fault}. Restore another step, "
            "or leave out step= for the newest whole one."
        )
