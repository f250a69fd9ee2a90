"""What the processes of torch.distributed say to each other about a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed

Result = TypeVar("Result")


def are_several() -> bool:
    """Whether there are other processes that can be asked."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Number of this process among them."""
    return torch.distributed.get_rank()


def gather(mine: Any) -> list[Any]:
    """What each rank passed, by rank. All ranks must call it, as often as the others."""
    if not are_several():
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def together(action: Callable[[], Result]) -> Result:
    """Do something on every rank, and fail on all of them if it fails on any.

    No rank goes on to wait for one that has failed.

    Raises:
        Exception: What `action` raised here.
        RuntimeError: `action` failed on another rank.
    """
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        if not are_several():
            raise
        failure = error
    texts = gather(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for rank, text in enumerate(texts):
        if text is not None:
            raise RuntimeError(f"Rank {rank} failed: {text}")
    return result


def check_equal(values: Mapping[str, str]) -> None:
    """Raise on all ranks unless all passed the same.

    Raises:
        RuntimeError: Names what differs and how.
    """
    everyone = gather(dict(values))
    for key in dict.fromkeys(key for theirs in everyone for key in theirs):
        if len({theirs.get(key) for theirs in everyone}) > 1:
            by_rank = ", ".join(f"rank {i}: {theirs.get(key)}" for i, theirs in enumerate(everyone))
            raise RuntimeError(
                f"{key} must be the same on all ranks, but it is {by_rank}. Save at the same step "
                "of every rank, with the same objects registered."
            )
