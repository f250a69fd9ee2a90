"""Reading YAML files within bounds: a small file can stand for a very large configuration."""

from __future__ import annotations

import os
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    ScalarEvent,
)

from synthpix_torch.checks import reason, shown

_LARGEST_FILE: Final = 2**20
_LONGEST: Final = 2**16
_MOST_VALUES: Final = 50_000
_DEEPEST: Final = 16


def read_yaml(path: Any) -> dict[str, Any]:
    """Read the keys and values of a YAML file. Nothing in it is executed.

    Raises:
        TypeError: `path` is not a path.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ValueError: It is no YAML file of keys and values, or too large or too deep.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"The configuration must be the path of a YAML file or a mapping, "
            f"not {type(path).__name__}."
        )
    name = shown(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The configuration file {name} does not exist.")
    with open(path, "rb") as file:
        raw = file.read(_LARGEST_FILE + 1)
    if len(raw) > _LARGEST_FILE:
        raise ValueError(
            f"The configuration file {name} has more than {_LARGEST_FILE} bytes: name folders in "
            "file_list instead of files."
        )
    try:
        text = raw.decode("utf-8")
        _check_events(text)
        # The parser that synthpix uses, so that one file means the same to both.
        data = _parser().load(text)
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        problem = reason(ValueError(error.problem or error.context))
        raise ValueError(f"{name} is not a YAML file: {problem}{line}.") from error
    # A tag such as !!bool is applied to any text: its errors are those of Python's types.
    except Exception as error:
        raise ValueError(f"{name} is not a YAML file: {reason(error)}.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{name} must hold keys and values, but holds {type(data).__name__}.")
    return data


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_events(text: str) -> None:
    """Raise if a document is too deep or, with its aliases written out, too large.

    Raises:
        ValueError: It is.
    """
    sizes: dict[str, int] = {}
    # The number of values before each open collection, and the collection's anchor.
    opened: list[tuple[int, str | None]] = []
    values = 0
    for event in _parser().parse(text):
        if isinstance(event, CollectionEndEvent):
            before, anchor = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - before
            continue
        if isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} refers to nothing that ends before it")
            values += sizes[event.anchor]
        elif isinstance(event, ScalarEvent | CollectionStartEvent):
            values += 1
            if isinstance(event, CollectionStartEvent):
                opened.append((values - 1, event.anchor))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if isinstance(event, ScalarEvent) and len(event.value) > _LONGEST:
            raise ValueError(f"it holds a text of more than {_LONGEST} characters")
        if values > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if len(opened) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
