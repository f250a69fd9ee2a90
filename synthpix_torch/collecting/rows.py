"""Rows of a chain: leaves as arrays of one layout, copied into blocks of memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import jax
import numpy as np
import torch

Row: TypeAlias = dict[str, np.ndarray]
Layout: TypeAlias = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]

_NUMPY_FLOATS: Final = (torch.float16, torch.float32, torch.float64)
_SIZES: Final = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}


def view(name: str, leaf: Any) -> np.ndarray:
    """Return a leaf as an array on the CPU; it may share the memory of the leaf.

    Raises:
        TypeError: It is no number or array of numbers.
    """
    if isinstance(leaf, torch.Tensor):
        tensor = leaf.detach().cpu()
        if tensor.is_floating_point() and tensor.dtype not in _NUMPY_FLOATS:
            # HDF5 has no bfloat16; float32 holds it exactly.
            tensor = tensor.float()
        array = tensor.resolve_conj().resolve_neg().numpy()
    elif isinstance(leaf, (bool, int, float, np.ndarray, np.generic, jax.Array)):
        array = np.asarray(leaf)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
    else:
        raise TypeError(
            f"Leaf {name!r} is a {type(leaf).__name__}, a Collector stores numbers and arrays of "
            "numbers: convert it, or leave it out."
        )
    if array.dtype.kind == "c":
        raise TypeError(f"Leaf {name!r} is complex: collect its real and imaginary parts.")
    if array.dtype.itemsize not in _SIZES.get(array.dtype.kind, ()):
        raise TypeError(
            f"Leaf {name!r} has dtype {array.dtype}, a Collector stores booleans, integers and "
            "real numbers: convert it, or leave it out."
        )
    return array


def check_layout(chain: str, first: Layout | None, row: Row) -> Layout:
    """Return the layout of a row, which must be that of the first row of its chain.

    Raises:
        ValueError: It is another, or the row is empty.
    """
    layout = {path: (array.shape, array.dtype.newbyteorder("=")) for path, array in row.items()}
    if not layout:
        raise ValueError("The tree has no leaves: collect at least one number.")
    for path in sorted(layout.keys() | (first or layout).keys()):
        old, new = (first or layout).get(path), layout.get(path)
        if old != new:
            raise ValueError(
                f"Leaf {path!r} of chain {chain!r} was {_shown(old)} and is {_shown(new)} now: "
                "use another chain for another tree."
            )
    return layout


def _shown(leaf: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]} of shape {leaf[0]}"


class Block:
    """Memory for rows of one layout, which is allocated once and may be filled many times.

    Attributes:
        count: Rows in it.
    """

    def __init__(self, layout: Layout, nbytes: int) -> None:
        """Allocate memory for as many rows as have `nbytes` bytes, at least for one."""
        row = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout.values())
        self._capacity = max(1, nbytes // max(1, row))
        self._arrays = {
            path: np.empty((self._capacity, *shape), dtype)
            for path, (shape, dtype) in layout.items()
        }
        self.count = 0

    @property
    def is_full(self) -> bool:
        """True if no row can be added."""
        return self.count == self._capacity

    @property
    def is_half_full(self) -> bool:
        """True if exactly half of the rows are filled."""
        return self.count == (self._capacity + 1) // 2

    def touch(self) -> None:
        """Write to all of the memory, which the system provides only then."""
        for array in self._arrays.values():
            array.fill(0)

    def add(self, row: Row) -> None:
        """Copy a row into the block, in this thread alone: torch would wait for busy cores."""
        for path, array in row.items():
            self._arrays[path][self.count] = array
        self.count += 1

    def rows(self) -> Row:
        """Return its rows, stacked; they share its memory."""
        return {path: array[: self.count] for path, array in self._arrays.items()}


def join(blocks: Iterable[Block]) -> Row:
    """Return a copy of the rows of blocks, stacked; {} without rows."""
    parts = [block.rows() for block in blocks if block.count]
    if not parts:
        return {}
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}
