"""A dataset goes on from a folder of checkpoints, whoever wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from synthpix_torch.checkpoint import synthpix_step
from synthpix_torch.checkpoint.folder import Folder
from synthpix_torch.checkpoint.newest import find_newest
from synthpix_torch.checkpoint.registry import DATASET
from synthpix_torch.checkpoint.step import find_fault, read_about, read_step
from synthpix_torch.dataset import SynthPixDataset


def load_newest(dataset: SynthPixDataset, path: str | os.PathLike[str]) -> None:
    """Move a dataset to where the newest whole step was saved; other objects are left out.

    Steps of synthpix itself carry no checksums: their counts must agree with each other.

    Raises:
        FileNotFoundError: There is no whole step.
        ValueError: The step holds no dataset or several, or does not fit.
        StateMismatchError: It was saved with another configuration or other data.
        CheckpointError: The folder or a step cannot be read by this process.
    """
    folder = Folder(path)
    while True:
        number, _ = find_newest(folder, _find_fault, depth=3)
        if number is None:
            raise FileNotFoundError(
                f"There is no whole step in {folder.path}: leave out load_from."
            )
        place = folder.places().get(number)
        try:
            _load(dataset, folder.step(number))
            return
        except Exception:
            # Its writer may have moved or deleted it by now, for a newer one.
            if place is not None and folder.places().get(number) == place:
                raise


def _load(dataset: SynthPixDataset, step: Path) -> None:
    if synthpix_step.is_one(step):
        dataset.seek(synthpix_step.read_position(dataset, step))
    else:
        name = _choose(step)
        dataset.load_state_dict(read_step(step, {name: DATASET})[name])


def _find_fault(step: Path) -> str | None:
    return None if synthpix_step.is_one(step) else find_fault(step)


def _choose(step: Path) -> str:
    """The name of the dataset of a step."""
    about = read_about(step)
    assert about is not None
    names = list(about.datasets)
    if "data" in names:
        return "data"
    if len(names) != 1:
        raise ValueError(
            f"{step} holds {len(names)} datasets ({', '.join(names) or 'none'}), none of them "
            "named data: restore it with a Checkpointer."
        )
    return names[0]
