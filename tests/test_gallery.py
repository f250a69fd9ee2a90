"""The pictures of the documentation: there, small, and of existing keys."""

from __future__ import annotations

from pathlib import Path

import gallery
import numpy as np
import pytest
from PIL import Image

from synthpix_torch.config.keys import KEYS

MOST_BYTES = 700_000


def test_every_picture_is_shown_and_together_they_are_small() -> None:
    files = {path: path.stat().st_size for path in gallery.FOLDER.iterdir()}
    shown = {strip.path for strip in gallery.STRIPS}
    assert shown <= files.keys()
    assert sum(files.values()) < MOST_BYTES
    pages = [*gallery.FOLDER.parent.glob("*.md"), gallery.ROOT / "README.md"]
    text = "".join(page.read_text() for page in pages)
    assert [path.name for path in files if f"images/{path.name})" not in text] == []


def test_strips_name_existing_keys_and_change_only_those() -> None:
    for strip in gallery.STRIPS:
        assert set(strip.keys) <= KEYS.keys()
        assert all(changes.keys() <= KEYS.keys() for changes in strip.panels.values())


@pytest.mark.long
@pytest.mark.filterwarnings("default::synthpix_torch.PhysicsWarning")
def test_strips_are_current(tmp_path: Path) -> None:
    gallery.write_maps(tmp_path)
    for strip in gallery.STRIPS:
        with Image.open(strip.path) as saved:
            found = np.asarray(gallery.draw_strip(strip, tmp_path), int)
            # Other processors round the last bit otherwise.
            assert (np.abs(found - np.asarray(saved)) <= 1).mean() > 0.999, strip.path.name
