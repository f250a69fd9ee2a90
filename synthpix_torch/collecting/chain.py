"""The rows of a chain that are in memory, and how many there are in all."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import torch

from synthpix_torch.collecting.rows import Block, Layout, Row, check_layout, join
from synthpix_torch.collecting.trees import dict_to_tree

BLOCK_BYTES: Final = 8 * 2**20
"""Rows are written to disk when they have as many bytes."""


class Chain:
    """The rows of one chain.

    One thread adds rows, another may write them: it takes the first of the waiting blocks, writes
    it, and calls `release`.

    Attributes:
        calls: How often `collect` was called.
        like: A tree of the chain, without a folder.
        stored: Number of rows on disk, the first ones of the chain.
        waiting: Closed blocks with the rows after them, to be written.
        loaded: Whether the position is that of a checkpoint.
        clean: Whether rows on disk beyond the position were deleted or moved aside.
    """

    def __init__(self, *, calls: int = 0, loaded: bool = False) -> None:
        self.calls = calls
        self.like: Any = None
        self.layout: Layout | None = None
        self.stored = 0
        self.waiting: deque[Block] = deque()
        self.loaded = loaded
        self.clean = False
        self._open: Block | None = None
        self._free: list[Block] = []

    def add(self, name: str, row: Row) -> bool:
        """Copy a row, and return whether its block is full.

        Raises:
            ValueError: The layout differs from that of the first row.
        """
        self.layout = check_layout(name, self.layout, row)
        if self._open is None:
            # Memory that was used before costs no page faults.
            self._open = self._free.pop() if self._free else Block(self.layout, BLOCK_BYTES)
        self._open.add(row)
        return self._open.is_full

    @property
    def is_short(self) -> bool:
        """True if the open block is half full and no other block is free."""
        return self._open is not None and self._open.is_half_full and not self._free

    def prepare(self) -> None:
        """Allocate memory for later rows; in another thread, so that no row waits for it."""
        assert self.layout is not None
        block = Block(self.layout, BLOCK_BYTES)
        block.touch()
        self._free.append(block)

    def close_block(self) -> None:
        """Close the open block, so that its rows are written too."""
        if self._open is not None:
            self.waiting.append(self._open)
            self._open = None

    def release(self) -> None:
        """Count the first of the waiting blocks as stored, and use its memory again."""
        block = self.waiting.popleft()
        self.stored += block.count
        block.count = 0
        self._free.append(block)

    def leaves(self) -> dict[str, torch.Tensor]:
        """Return a copy of the rows in memory, stacked, by path; {} without rows."""
        blocks = [*self.waiting, *([] if self._open is None else [self._open])]
        return {path: torch.from_numpy(array) for path, array in join(blocks).items()}

    def load(self, name: str, leaves: Mapping[str, torch.Tensor], rows: int) -> None:
        """Add rows that `leaves` returned."""
        for row in range(rows):
            if self.add(name, {path: values[row].numpy() for path, values in leaves.items()}):
                self.close_block()

    def tree(self) -> Any:
        """Return the rows in memory as one tree; as a dict by path if no tree is known yet."""
        leaves = self.leaves()
        return leaves if self.like is None else dict_to_tree(leaves, self.like)
