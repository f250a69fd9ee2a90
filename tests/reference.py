"""Print the reference of configuration keys: python tests/reference.py > docs/configuration.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gallery

from synthpix_torch.config.effect_keys import EFFECT_KEYS
from synthpix_torch.config.generator_keys import GENERATOR_KEYS
from synthpix_torch.config.image_keys import IMAGE_KEYS
from synthpix_torch.config.key import REQUIRED, Key
from synthpix_torch.config.stream_keys import STREAM_KEYS

PARTS = {
    "Data and stream": STREAM_KEYS,
    "Images": IMAGE_KEYS,
    "Generated flow fields": GENERATOR_KEYS,
    "Imaging effects": EFFECT_KEYS,
}

HEAD = Path(__file__).with_name("configuration.md").read_text(encoding="utf-8").rstrip("\n")
"""Text before the tables."""


def shown(value: Any) -> str:
    """Format a value as in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def row(name: str, key: Key) -> str:
    """Format the row of a key."""
    default = "" if key.default is REQUIRED else shown(key.default)
    cells = [f"`{name}`", key.meaning, key.rule.words, key.unit, default]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    for title, part in PARTS.items():
        yield f"\n### {title}\n"
        yield "| key | meaning | value | unit | default |"
        yield "|---|---|---|---|---|"
        yield from (row(name, key) for name, key in part.items())
        yield from gallery.lines(part)


if __name__ == "__main__":
    print("\n".join(lines()))
