"""The state of a dataset: a plain dict that names the next batch and the stream it belongs to.

The dict holds strings and integers only, is the same on every rank and is complete before the first
batch:

    {"format": 2,
     "sampler": {"position": n},
     "grain": {"next_index": i},
     "fingerprint": "batch_size=4|bits=2|renderer=particles|...",
     "made_with": {"jax": "0.10.2", ...}}

`position` is the number of the next undelivered batch. `next_index` follows from it: the first
record still needed, in the order of `Flows.canonical`. The fingerprint lists the values that define
the stream, in the order of their names, without those that are defaults: a key that is added later
with a neutral default changes no fingerprint. A value of `contents` is compared only with another:
states of 0.1.0 and 0.2.0 have none.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from synthpix_torch.checks import readable, shown
from synthpix_torch.stream.format1 import unpack_format_1

FORMAT: Final = 2

LAST_NUMBER: Final = 10**15
"""The largest number of a batch."""

_OPTIONAL: Final = ("contents",)
"""Values that states of 0.1.0 and 0.2.0 lack; they are compared if a state has them."""

_MOST_SHOWN: Final = 20
"""Differences that an error lists."""

_LONGEST: Final = 2**16
"""Characters of a fingerprint; our own have less than 2000."""


class StateMismatchError(ValueError):
    """A state belongs to another stream than the dataset it was loaded into."""


class Description(NamedTuple):
    """The stream that a state is checked against.

    Attributes:
        values: Everything that defines the stream, as short strings by key.
        neutral: Values that a fingerprint does not list, by key.
        made_with: Versions and hardware, which may change bits in the last place.
        next_index: The first record still needed, from the position.
        total: Number of batches in the stream, None if it never ends.
        last: The largest position.
    """

    values: Mapping[str, str]
    neutral: Mapping[str, str]
    made_with: Mapping[str, str]
    next_index: Callable[[int], int]
    total: int | None
    last: int = LAST_NUMBER

    @property
    def fingerprint(self) -> dict[str, str]:
        """The values that a fingerprint lists, in the order of their keys."""
        return {
            key: self.values[key]
            for key in sorted(self.values)
            if self.values[key] not in ("null", self.neutral.get(key))
        }


def make_state(position: int, description: Description) -> dict[str, Any]:
    """Make the state dict for a position."""
    return {
        "format": FORMAT,
        "sampler": {"position": position},
        "grain": {"next_index": description.next_index(position)},
        # One string, so that the structure of a state is the same for all configurations:
        # torch.distributed.checkpoint loads into the structure of the present state.
        "fingerprint": "|".join(f"{key}={value}" for key, value in description.fingerprint.items()),
        "made_with": dict(description.made_with),
    }


def read_state(state: Any, description: Description) -> int:
    """Check a state against a stream and return its position. Changes nothing.

    Raises:
        TypeError: `state` is not a mapping.
        ValueError: `state` is not a state of a dataset, is corrupt or was made by a newer version.
        StateMismatchError: The state was saved with another configuration or other data.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A state must be the dict that state_dict() returned, not {type(state).__name__}."
        )
    version = state.get("format")
    if not {"sampler", "grain", "fingerprint"} <= state.keys() or not _is_index(version):
        keys = ", ".join(sorted(map(readable, islice(state, 5)))) or "nothing"
        raise ValueError(
            f"This is not the state of a SynthPixDataset, it holds {keys}: "
            "pass what its state_dict() returned."
        )
    if version not in (1, FORMAT):
        raise ValueError(
            f"The state has format {shown(version)}, this version of synthpix_torch reads 1 and "
            f"{FORMAT}: install the version that saved it."
        )
    unpack = unpack_format_1 if version == 1 else _unpack
    position = _get_index(state["sampler"], "position")
    next_index = _get_index(state["grain"], "next_index")
    if position > description.last:
        raise ValueError(
            f"The state is corrupt: its position {shown(position)} is larger than "
            f"{description.last}, the number of the last batch. Use an older state."
        )
    _check_fingerprint(unpack(state["fingerprint"]), description, position)
    if description.total is not None and position > description.total:
        raise ValueError(
            f"The state is corrupt: its position {position} lies behind the {description.total} "
            "batches of the stream. Use an older state."
        )
    if next_index != description.next_index(position):
        raise ValueError(
            f"The state is corrupt: next_index {shown(next_index)} does not belong to position "
            f"{position}. Use an older state."
        )
    _warn_of_other_versions(state.get("made_with"), description)
    return position


def digest(state: Mapping[str, Any]) -> str:
    """Digest the fingerprint of a state: equal for states of one stream."""
    text = json.dumps(state["fingerprint"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _check_fingerprint(saved: Mapping[str, str], description: Description, position: int) -> None:
    here = description.fingerprint
    saved = {
        key: value
        for key, value in saved.items()
        if value not in ("null", description.neutral.get(key))
    }
    bits = saved.get("bits"), here["bits"]
    if bits[0] != bits[1] and saved.get("renderer") == here["renderer"]:
        raise StateMismatchError(
            f"The state was saved with version {readable(bits[0])} of the renderer "
            f"{here['renderer']!r}, this synthpix_torch has version {bits[1]}, which makes other "
            "images and labels (docs/differences.md): install the version that saved it to "
            "continue exactly, or "
            f"continue with the new images from dataset.seek({position})."
        )
    differences = [
        f"{readable(key)} (saved {_value(saved, key, description)}, "
        f"here {_value(here, key, description)})"
        for key in {**description.values, **saved}
        if saved.get(key) != here.get(key) and not (key in _OPTIONAL and key not in saved)
    ]
    if differences:
        more = f" and {len(differences) - _MOST_SHOWN} more" * (len(differences) > _MOST_SHOWN)
        raise StateMismatchError(
            "The state belongs to another stream: "
            f"{', '.join(differences[:_MOST_SHOWN])}{more}. Build the dataset "
            "with the saved values, or start without the state; dataset.seek(position) takes over "
            "the position alone."
        )


def _value(values: Mapping[str, str], key: str, description: Description) -> str:
    return readable(values.get(key) or description.neutral.get(key, "null"))


def _unpack(fingerprint: Any) -> dict[str, str]:
    usable = isinstance(fingerprint, str) and len(fingerprint) <= _LONGEST
    parts = fingerprint.split("|") if usable else [""]
    values = dict(part.split("=", 1) for part in parts if "=" in part)
    if len(values) != len(parts) or not {"renderer", "bits"} <= values.keys():
        raise ValueError(
            f"The state is corrupt: its fingerprint is {shown(fingerprint)}. Use an older state."
        )
    return values


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _get_index(item: Any, key: str) -> int:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not _is_index(value):
        raise ValueError(
            f"The state is corrupt: {key} is {shown(value)}, not a number of at least 0."
        )
    assert isinstance(value, int)
    return value


def _warn_of_other_versions(made_with: Any, description: Description) -> None:
    saved = made_with if isinstance(made_with, Mapping) else {}
    changes = [
        f"{key} (saved {readable(saved.get(key))}, here {value})"
        for key, value in description.made_with.items()
        if saved.get(key) != value
    ]
    if changes:
        warnings.warn(
            f"The state was saved with other versions or hardware: {', '.join(changes)}. The "
            "stream continues where it was, but bits may differ in the last place.",
            stacklevel=4,
        )
