"""Checks of arguments that several modules make."""

from __future__ import annotations

from typing import Any


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise unless an argument is an integer of at least `least`.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}.")
