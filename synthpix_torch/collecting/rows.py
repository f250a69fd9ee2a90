"""Rows of a chain: leaves as tensors on the CPU, all of one layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
import torch

Row: TypeAlias = dict[str, torch.Tensor]
Layout: TypeAlias = dict[str, tuple[tuple[int, ...], torch.dtype]]


def snapshot(name: str, leaf: Any) -> torch.Tensor:
    """Copy a leaf to the CPU.

    Raises:
        TypeError: It is no number or array of numbers.
    """
    if isinstance(leaf, torch.Tensor):
        tensor = leaf.detach().to("cpu", copy=True).contiguous()
    elif isinstance(leaf, (bool, int, float, np.ndarray, np.generic, jax.Array)):
        array = np.array(leaf)
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(
                f"Leaf {name!r} has dtype {array.dtype}, a Collector stores booleans, integers and "
                "real numbers: convert it, or leave it out."
            )
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        tensor = torch.from_numpy(array)
    else:
        raise TypeError(
            f"Leaf {name!r} is a {type(leaf).__name__}, a Collector stores numbers and arrays of "
            "numbers: convert it, or leave it out."
        )
    if tensor.is_complex():
        raise TypeError(f"Leaf {name!r} is complex: collect its real and imaginary parts.")
    # HDF5 has no bfloat16; float32 holds it exactly.
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def check_layout(chain: str, first: Layout | None, row: Row) -> Layout:
    """Return the layout of a row, which must be that of the first row of its chain.

    Raises:
        ValueError: It is another, or the row is empty.
    """
    layout = {path: (tuple(tensor.shape), tensor.dtype) for path, tensor in row.items()}
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


def _shown(leaf: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]} of shape {leaf[0]}".removeprefix("torch.")


def stack(rows: Sequence[Row]) -> Row:
    """Stack the leaves of rows; {} without rows."""
    return {path: torch.stack([row[path] for row in rows]) for path in rows[0]} if rows else {}
