"""Short strings that stand for values in the fingerprint of a state."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def short(value: Any) -> str:
    """Write a value as a string of at most 20 characters, by digest if it is longer.

    Equal numbers give the same string, whether they are integers or floats.
    """
    text = json.dumps(_plain(value), separators=(",", ":")).replace('"', "")
    if len(text) > 20 or "|" in text:
        return "#" + hashlib.sha256(text.encode()).hexdigest()[:10]
    return text


def digest_array(array: np.ndarray | None) -> str | None:
    """Return a digest of an array's contents, dtype and shape; None for None."""
    if array is None:
        return None
    header = f"{array.dtype.str}{array.shape}".encode()
    return "#" + hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
