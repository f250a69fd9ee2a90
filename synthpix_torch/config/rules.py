"""Rules for the values of a configuration: what a value must be, and how it is converted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

LARGEST_COUNT: Final = 2**31 - 1
"""The largest number of anything: JAX counts in 32 bits."""


class Rule(NamedTuple):
    """The rule that a value must fulfil.

    Attributes:
        words: The rule in words, for error messages: "a positive number".
        convert: Returns the converted value, or None if the value breaks the rule.
    """

    words: str
    convert: Callable[[Any], Any]


def number(words: str, holds: Callable[[float], bool]) -> Rule:
    """Require a finite number, kept as the int or float that it is."""

    def convert(value: Any) -> Any:
        return value if _is_number(value) and holds(value) else None

    return Rule(words, convert)


def integer(words: str, holds: Callable[[int], bool]) -> Rule:
    """Require an integer."""

    def convert(value: Any) -> Any:
        return value if _is_integer(value) and holds(value) else None

    return Rule(words, convert)


def positive_integer(*, most: int = LARGEST_COUNT) -> Rule:
    """Require an integer from 1 to `most`."""
    return integer(f"a positive integer up to {most}", lambda value: 0 < value <= most)


def count(*, most: int = LARGEST_COUNT) -> Rule:
    """Require an integer from 0 to `most`."""
    return integer(f"an integer from 0 to {most}", lambda value: 0 <= value <= most)


def choice(*choices: str) -> Rule:
    """Require one of some strings."""
    words = "one of " + ", ".join(map(repr, choices))
    return Rule(words, lambda value: value if isinstance(value, str) and value in choices else None)


def text(words: str) -> Rule:
    """Require a string."""
    return Rule(words, lambda value: value if isinstance(value, str) else None)


def flag() -> Rule:
    """Require true or false."""
    return Rule("true or false", lambda value: value if isinstance(value, bool) else None)


def pair(words: str, holds: Callable[[Any, Any], bool], *, kind: type = object) -> Rule:
    """Require two finite numbers of a kind; convert them to a tuple."""
    is_part = _is_integer if kind is int else _is_number

    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_part, value)):
            return None
        return tuple(value) if holds(*value) else None

    return Rule(words, convert)


def ranges(words: str, holds: Callable[[Any, Any], bool]) -> Rule:
    """Require a list of pairs with at least one; convert it to a tuple of tuples."""
    one = pair("", holds)

    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            return None
        converted = tuple(one.convert(part) for part in value)
        return None if None in converted else converted

    return Rule(words, convert)


def names(words: str, *counts: int) -> Rule:
    """Require one of some counts of strings; convert them to a tuple, also one string alone."""

    def convert(value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or len(given) not in counts:
            return None
        return tuple(given) if all(isinstance(one, str) and one for one in given) else None

    return Rule(words, convert)


def paths() -> Rule:
    """Require a path or a list of paths; convert them to a tuple of strings."""
    return Rule("a file, a folder or a list of them", _convert_paths)


def path(words: str) -> Rule:
    """Require a path; convert it to a string."""
    return Rule(words, _convert_path)


def device_numbers() -> Rule:
    """Require a list of integers of at least 0; convert it to a tuple."""
    return Rule("a list of device numbers", _convert_device_numbers)


def _convert_path(value: Any) -> str | None:
    converted = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return converted if isinstance(converted, str) and converted and "\0" not in converted else None


def _convert_paths(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    converted = tuple(map(_convert_path, value))
    return None if None in converted else converted


def _convert_device_numbers(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return None
    return tuple(value) if all(_is_integer(i) and 0 <= i <= LARGEST_COUNT for i in value) else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
