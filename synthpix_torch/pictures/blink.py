"""A blinking picture of an image pair."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from synthpix_torch.extra import required_by
from synthpix_torch.pictures.views import Pair, white_level

with required_by("Blinking pictures need Pillow", "PIL", "PIL.Image", extra="pictures"):
    from PIL import Image

SMALLEST: Final = 320
"""Smaller images are enlarged by whole factors up to this height or width in pixels."""

MILLISECONDS: Final = 400
"""Time that each image is shown."""


def save_blinking(pair: Pair, path: str | os.PathLike[str]) -> None:
    """Write both images of a pair as an endless animation, a GIF or an APNG by the file's name.

    Raises:
        OSError: The file cannot be written.
    """
    factor = max(1, SMALLEST // max(pair.images.shape[1:]))
    levels = np.clip(np.rint(pair.images * (255 / white_level([pair]))), 0, 255).astype(np.uint8)
    first, second = (
        Image.fromarray(level.repeat(factor, axis=0).repeat(factor, axis=1)) for level in levels
    )
    first.save(path, save_all=True, append_images=[second], duration=MILLISECONDS, loop=0)
