"""Helpers of the tests of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Counter:
    """The smallest thing with a state."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def files(folder: Path) -> list[str]:
    """The visible files and folders of a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
