"""Checks of arguments that several modules make."""

from __future__ import annotations

import reprlib
from typing import Any, Final

_MOST_CHARACTERS: Final = 1000


class _Shown(reprlib.Repr):
    """Represent values in time and length that do not grow with their size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 500, 500
        self.maxlist = self.maxtuple = self.maxdict = 8

    def repr_int(self, x: int, level: int) -> str:
        """Write an integer; Python refuses to write those of more than 4300 digits."""
        return repr(x) if x.bit_length() < 256 else f"an integer of {x.bit_length()} bits"


def shown(value: Any) -> str:
    """Write a value for an error message: one line, shortened if it is long."""
    text = " ".join(_Shown().repr(value).splitlines())
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."


def readable(value: Any) -> str:
    """Write a text from a file or a state without quotes, unless it is long or has odd characters.

    Control characters could change what a terminal shows.
    """
    plain = isinstance(value, str) and len(value) <= 200 and value.isprintable()
    return value if plain else shown(value)


def reason(error: BaseException) -> str:
    """Write the message of another package's error for one of ours: one line, not long."""
    text = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise unless an argument is an integer of at least `least` and, if given, at most `most`.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is too small or too large.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {shown(value)}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(value)}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {shown(value)}.")
