"""The ranks that share a stream: their numbers, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import torch.distributed

from synthpix_torch.interop.device import processes_of_jax

Result = TypeVar("Result")

_SIZES: Final = (
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "JSM_NAMESPACE_SIZE",
    "FLUX_JOB_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_NTASKS",
)
"""Variables in which launchers state the number of processes. The first one set decides: torchrun
and mpirun start processes within a SLURM job, and a SLURM step may have fewer tasks than its job.
"""


class Ranks(NamedTuple):
    """A rank and a world size, as given or as torch.distributed has them when they are read.

    Attributes:
        given: (rank, world size), None to ask torch.distributed.
    """

    given: tuple[int, int] | None = None

    @property
    def rank(self) -> int:
        """Number of this process among `world_size`.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        if self.given is not None:
            return self.given[0]
        return torch.distributed.get_rank() if _is_distributed() else 0

    @property
    def world_size(self) -> int:
        """Number of processes that share the stream.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        if self.given is not None:
            return self.given[1]
        return torch.distributed.get_world_size() if _is_distributed() else 1


def given_ranks(rank: int | None, world_size: int | None) -> Ranks:
    """Check a rank and a world size that belong together.

    Raises:
        ValueError: Only one of them is given, or the rank is too large.
    """
    if rank is None and world_size is None:
        return Ranks()
    if rank is None or world_size is None:
        raise ValueError("rank and world_size belong together: give both or none.")
    if rank >= world_size:
        raise ValueError(f"rank={rank} must be less than world_size={world_size}.")
    return Ranks((rank, world_size))


def has_process_group() -> bool:
    """Return whether torch.distributed has started."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _is_distributed() -> bool:
    if has_process_group():
        return True
    # Not taken for granted: left over in a single process it would make us skip batches.
    name = next((name for name in _SIZES if os.environ.get(name)), "WORLD_SIZE")
    expected = os.environ.get(name) or "1"
    if expected == "1" and processes_of_jax() > 1:
        name, expected = "jax.process_count()", str(processes_of_jax())
    if expected != "1":
        raise RuntimeError(
            f"{name}={expected} says that there are several processes, but torch.distributed "
            "has not started, so all would get the same batches: call "
            "torch.distributed.init_process_group() first, or give rank and world_size (0 and 1 "
            "for a process that works alone)."
        )
    return False


# Exchange --------------------------------------------------------------------------------------


def get_rank() -> int:
    """Return the number of this process in the process group, 0 if there is none."""
    return torch.distributed.get_rank() if has_process_group() else 0


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks, in the order of the ranks. Collective."""
    if not has_process_group():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def together(action: Callable[[], Result]) -> Result:
    """Run an action on every rank, and raise on all ranks if it fails on any. Collective.

    No rank waits for one that has failed.

    Raises:
        Exception: The action's own error, on the rank where it failed.
        RuntimeError: The action failed on another rank.
    """
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        if not has_process_group():
            raise
        failure = error
    messages = gather(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message is not None:
            raise RuntimeError(f"Rank {rank} failed: {message}")
    return result


def from_first(action: Callable[[], Result]) -> Result:
    """Run an action on rank 0 alone, and return its result on all ranks. Collective.

    Raises:
        Exception: As `together`.
    """
    result: Result = gather(together(lambda: None if get_rank() else action()))[0]
    return result


def check_equal(values: Mapping[str, str]) -> None:
    """Raise on all ranks unless all of them pass the same values. Collective.

    Raises:
        RuntimeError: Names the first value that differs, with the value of each rank.
    """
    everyone = gather(dict(values))
    for key in dict.fromkeys(key for theirs in everyone for key in theirs):
        if len({theirs.get(key) for theirs in everyone}) > 1:
            by_rank = ", ".join(f"rank {i}: {theirs.get(key)}" for i, theirs in enumerate(everyone))
            raise RuntimeError(
                f"{key} must be the same on all ranks, but it is {by_rank}. Call save and restore "
                "on all ranks with the same arguments and the same objects registered."
            )
