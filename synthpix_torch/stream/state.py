"""The state of a dataset: a plain dict, and the same as an Orbax Composite.

The dict holds strings and integers only, is the same on every rank and is complete before the first
batch:

    {"format": 1,
     "sampler": {"position": n},
     "grain": {"next_index": i},
     "fingerprint": {"stream": "kinematic|8|4|3|...", ...},
     "made_with": {"jax": "0.10.2", ...}}

`position` is the number of the next batch that the user has not been given. `next_index` follows
from it: the first record still needed, in the order of `Flows.canonical`. A fingerprint's
value lists those of the keys of its group in the order of `Description.fields`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grain.python as grain
import orbax.checkpoint as ocp
from grain.checkpoint import CheckpointRestore, CheckpointSave

FORMAT = 1
ITEMS = ("sampler", "grain")


class StateMismatchError(ValueError):
    """A state belongs to another stream than the dataset it was loaded into."""


class Description(NamedTuple):
    """What a state is checked against.

    Attributes:
        fields: Values of everything that defines the stream, by group and key.
        made_with: Versions and hardware, which may change bits in the last place.
        next_index: The first record still needed, from the position.
        total: Number of batches in the stream, None if it never ends.
    """

    fields: Mapping[str, Mapping[str, str]]
    made_with: Mapping[str, str]
    next_index: Callable[[int], int]
    total: int | None


def make_state(position: int, description: Description) -> dict[str, Any]:
    """A fresh state dict for the next batch to deliver."""
    return {
        "format": FORMAT,
        "sampler": {"position": position},
        "grain": {"next_index": description.next_index(position)},
        "fingerprint": {
            group: "|".join(values.values()) for group, values in description.fields.items()
        },
        "made_with": dict(description.made_with),
    }


def read_state(state: Any, description: Description) -> int:
    """Check a state against a dataset and return its position. Changes nothing.

    Raises:
        TypeError: `state` is not a mapping.
        ValueError: `state` is not a state of a dataset, is damaged or was made by a newer version.
        StateMismatchError: The state was saved with another configuration or other data.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A state must be the dict that state_dict() gave, not {type(state).__name__}."
        )
    version = state.get("format")
    if not {"sampler", "grain", "fingerprint"} <= state.keys() or not _is_index(version):
        keys = ", ".join(sorted(map(str, state))[:5]) or "nothing"
        raise ValueError(
            f"This is not the state of a SynthPixDataset, it holds {keys}: "
            "pass what its state_dict() gave."
        )
    if version != FORMAT:
        raise ValueError(
            f"The state has format {version}, this version of synthpix_torch reads {FORMAT}: "
            "install the version that saved it."
        )
    saved = _unpack(state["fingerprint"], description)
    differences = [
        f"{key} (saved {saved[group][key]}, here {value})"
        for group, values in description.fields.items()
        for key, value in values.items()
        if saved[group][key] != value
    ]
    if differences:
        raise StateMismatchError(
            f"The state belongs to another stream: {', '.join(differences)}. Build the dataset "
            "with the saved values, or start without the state; dataset.seek(position) takes over "
            "the position alone."
        )
    position = _get_index(state["sampler"], "position")
    next_index = _get_index(state["grain"], "next_index")
    if description.total is not None and position > description.total:
        raise ValueError(
            f"The state is damaged: its position {position} lies behind the {description.total} "
            "batches of the stream. Use an older state."
        )
    if next_index != description.next_index(position):
        raise ValueError(
            f"The state is damaged: next_index {next_index} does not belong to position "
            f"{position}. Use an older state."
        )
    _warn_of_other_versions(state.get("made_with"), description)
    return position


def _unpack(fingerprint: Any, description: Description) -> dict[str, dict[str, str]]:
    """The values of a saved fingerprint by group and key."""
    unpacked = {}
    for group, values in description.fields.items():
        packed = fingerprint.get(group) if isinstance(fingerprint, Mapping) else None
        parts = packed.split("|") if isinstance(packed, str) else []
        if len(parts) != len(values):
            raise ValueError(
                f"The state is damaged: its fingerprint lacks values of {group!r}. "
                "Use an older state."
            )
        unpacked[group] = dict(zip(values, parts, strict=True))
    return unpacked


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _get_index(item: Any, key: str) -> int:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not _is_index(value):
        raise ValueError(f"The state is damaged: {key} is {value!r}, not a number of at least 0.")
    assert isinstance(value, int)
    return value


def _warn_of_other_versions(made_with: Any, description: Description) -> None:
    saved = made_with if isinstance(made_with, Mapping) else {}
    changes = [
        f"{key} (saved {saved.get(key)}, here {value})"
        for key, value in description.made_with.items()
        if saved.get(key) != value
    ]
    if changes:
        warnings.warn(
            f"The state was saved with other versions or hardware: {', '.join(changes)}. The "
            "stream goes on where it was, but bits may differ in the last place.",
            stacklevel=4,
        )


def save_args(state: Mapping[str, Any]) -> ocp.args.Composite:
    """A state as arguments for any CheckpointManager of Orbax: items `sampler` and `grain`.

    Grain's own checkpoint restore reads the `grain` item.
    """
    # Through JSON, because Orbax writes in the background what it is given.
    sampler = json.loads(json.dumps(_without_grain(state)))
    return ocp.args.Composite(
        sampler=ocp.args.JsonSave(sampler),
        grain=CheckpointSave(_grain_iterator(state["grain"])),
    )


def restore_args() -> ocp.args.Composite:
    """Arguments with which a CheckpointManager restores what `save_args` saved."""
    return ocp.args.Composite(
        sampler=ocp.args.JsonRestore(), grain=CheckpointRestore(_grain_iterator({"next_index": 0}))
    )


def restored_state(restored: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a dataset from what a CheckpointManager restored.

    Args:
        restored: What a CheckpointManager restored for `checkpoint_args(dataset, restore=True)`.

    Raises:
        ValueError: An item is missing.
    """
    missing = [item for item in ITEMS if restored.get(item) is None]
    if missing:
        raise ValueError(f"The checkpoint lacks the items {', '.join(missing)} of the dataset.")
    return {**restored["sampler"], "grain": restored["grain"].get_state()}


def write_files(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state into an empty folder, in the files that Orbax and Grain write for the items."""
    for item, content in _files(folder).items():
        content.parent.mkdir()
        saved = state["grain"] if item == "grain" else _without_grain(state)
        content.write_text(json.dumps(saved), encoding="utf-8")


def read_files(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `write_files` wrote."""
    read = {item: json.loads(content.read_bytes()) for item, content in _files(folder).items()}
    return {**read["sampler"], "grain": read["grain"]}


def digest(state: Mapping[str, Any]) -> str:
    """A short digest of the fingerprint: equal for states of one stream."""
    text = json.dumps(state["fingerprint"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    return {
        "sampler": Path(folder, "sampler", "metadata"),
        "grain": Path(folder, "grain", "process_0-of-1.json"),
    }


def _without_grain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "grain"}


def _grain_iterator(state: Mapping[str, int]) -> Any:
    """An iterator of Grain in a given state. It stands for any: the state is its index alone."""
    iterator = iter(grain.MapDataset.range(sys.maxsize).to_iter_dataset(_NO_THREADS))
    iterator.set_state(dict(state))
    return iterator


_NO_THREADS = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
