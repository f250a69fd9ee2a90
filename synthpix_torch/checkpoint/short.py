"""Save a dataset alone, in one call."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

from synthpix_torch.checkpoint.checkpointer import Checkpointer
from synthpix_torch.checkpoint.objects import Dataset

Parameters = ParamSpec("Parameters")

_FORMER_NAMES = {"folder": "checkpoint_dir", "dataset": "sampler"}


def _with_former_names(save: Callable[Parameters, None]) -> Callable[Parameters, None]:
    @functools.wraps(save)
    def call(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> None:
        renamed = {_FORMER_NAMES.get(name, name): value for name, value in keywords.items()}
        if len(renamed) < len(keywords):
            raise TypeError(f"save_checkpoint got an argument under two names: {list(keywords)}.")
        save(*arguments, **renamed)  # type: ignore[arg-type]

    return call


@_with_former_names
def save_checkpoint(
    checkpoint_dir: str | os.PathLike[str], sampler: Dataset, step: int, max_to_keep: int = 1
) -> None:
    """Save a dataset alone, and return when it is on disk; like synthpix.save_checkpoint.

    Args:
        checkpoint_dir: The folder of the steps; also accepted as `folder`.
        sampler: The dataset, saved under the name `data`; also accepted as `dataset`.
        step: Its number, larger than all before.
        max_to_keep: How many of the newest steps to keep. Steps that hold other objects are kept,
            too.

    Raises:
        CheckpointError: It could not be written.
        ValueError: There is such a step or a newer one.
    """
    with Checkpointer(checkpoint_dir, keep=max_to_keep) as checkpoints:
        checkpoints.register(data=sampler)
        checkpoints.save(step)
