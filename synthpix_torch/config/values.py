"""Values of a configuration as they were given: plain, few, and of a magnitude that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from synthpix_torch.checks import shown

_MOST_VALUES: Final = 100_000
_DEEPEST: Final = 8
_SMALLEST, _LARGEST = 1e-12, 1e12


def plain(name: str, value: Any) -> Any:
    """Copy a value, with NumPy's numbers and arrays and other sequences as numbers and lists.

    Args:
        name: Its key, for error messages.
        value: What the configuration holds.

    Raises:
        ValueError: It holds too many values, or lists within lists without end.
    """
    left = _MOST_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= value.size if isinstance(value, np.ndarray) else 1
        if left < 0:
            raise ValueError(f"{name} holds more than {_MOST_VALUES} values: shorten it.")
        if depth > _DEEPEST:
            raise ValueError(f"{name} holds lists that are nested more than {_DEEPEST} deep.")
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
            return [copy(part, depth + 1) for part in value]
        return value

    return copy(value, 0)


def check_magnitude(name: str, value: Any) -> None:
    """Raise unless each number in a value is 0 or has a magnitude that float32 can multiply.

    Raises:
        ValueError: It names the key and the value.
    """
    if isinstance(value, tuple):
        for part in value:
            check_magnitude(name, part)
    elif isinstance(value, float | int) and value and not _SMALLEST <= abs(value) <= _LARGEST:
        raise ValueError(
            f"{name} holds {shown(value)}: numbers must be 0 or have a magnitude from "
            f"{_SMALLEST:g} to {_LARGEST:g}. Use other units."
        )
