"""The rank of this process among those that share a stream."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch.distributed


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


def _is_distributed() -> bool:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return True
    # Not taken for granted: left over in a single process it would make us skip batches.
    expected = os.environ.get("WORLD_SIZE", "1")
    if expected not in ("", "1"):
        raise RuntimeError(
            f"WORLD_SIZE={expected} says that there are several processes, but torch.distributed "
            "has not started, so all would get the same batches: call "
            "torch.distributed.init_process_group() first, or give rank and world_size."
        )
    return False
