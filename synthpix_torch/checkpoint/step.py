"""One step as an Orbax Composite: states to items on disk and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from synthpix_torch.checkpoint.integrity import CHECKSUMS, find_damage, seal
from synthpix_torch.checkpoint.registry import DATASET
from synthpix_torch.checkpoint.torch_item import TorchRestore, TorchSave
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.stream import state as states

FORMAT = 1
_MARK = "synthpix_torch"
_METADATA = "_CHECKPOINT_METADATA"


class About(NamedTuple):
    """What a step says of itself.

    Attributes:
        objects: The kind of each object by name.
        datasets: Of each dataset the position, the epochs passed and a digest of its fingerprint.
        version: The version of synthpix_torch that wrote it.
    """

    objects: dict[str, str]
    datasets: dict[str, dict[str, Any]]
    version: str


def describe(
    kinds: Mapping[str, str],
    datasets: Mapping[str, SynthPixDataset],
    taken: Mapping[str, Any],
) -> About:
    """What a step with the given states will say of itself."""
    about = {}
    for name, dataset in datasets.items():
        position = taken[name]["sampler"]["position"]
        about[name] = {
            "position": position,
            "epochs": round(position / dataset.batches_per_epoch, 4),
            "fingerprint": states.digest(taken[name]),
        }
    return About(dict(kinds), about, version("synthpix_torch"))


def write_step(place: Path, taken: Mapping[str, Any], about: About) -> None:
    """Write states as a Composite, with checksums, and bring them to the disk.

    Args:
        place: A folder that does not exist yet.
        taken: The states by name, changed by nobody any more.
        about: What the step says of itself.
    """
    items: dict[str, Any] = {}
    for name, kind in about.objects.items():
        if kind == DATASET:
            arguments = states.save_args(taken[name])
            items |= {item_name(name, item): arguments[item] for item in states.ITEMS}
        else:
            items[name] = TorchSave(taken[name])
    with _orbax() as orbax:
        orbax.save(
            place,
            args=ocp.args.Composite(**items),
            custom_metadata={_MARK: {"format": FORMAT, **about._asdict()}},
        )
    seal(place)


def find_fault(step: Path) -> str | None:
    """What keeps a step from being restored, None if nothing does. Reads every byte.

    Raises:
        ValueError: A newer version wrote it.
    """
    if not is_ours(step):
        return "synthpix_torch did not write it"
    damage = find_damage(step)
    if damage is None and read_about(step) is None:
        return "it does not say what it holds"
    return damage


def is_ours(step: Path) -> bool:
    """Whether synthpix_torch wrote a step, as far as what is left of it can tell."""
    return (step / CHECKSUMS).exists() or _read_mark(step) is not None


def read_about(step: Path) -> About | None:
    """What a step says of itself, None if it says nothing that can be understood.

    Raises:
        ValueError: A newer version wrote it.
    """
    mark = _read_mark(step)
    if mark is None:
        return None
    if mark["format"] > FORMAT:
        raise ValueError(
            f"{step} has format {mark['format']}, this version of synthpix_torch reads {FORMAT}: "
            f"install version {mark.get('version')} or newer."
        )
    try:
        return About(mark["objects"], mark["datasets"], mark["version"])
    except KeyError:
        return None


def _read_mark(step: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((step / _METADATA).read_bytes())["custom_metadata"][_MARK]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("format"), int) else None


def read_step(step: Path, objects: Mapping[str, str]) -> dict[str, Any]:
    """Read the states of some objects of a step in which no fault was found.

    Args:
        step: The folder of the step.
        objects: The kinds of the objects to read, by name.
    """
    items: dict[str, Any] = {}
    for name, kind in objects.items():
        if kind == DATASET:
            arguments = states.restore_args()
            items |= {item_name(name, item): arguments[item] for item in states.ITEMS}
        else:
            items[name] = TorchRestore()
    with _orbax() as orbax:
        restored = orbax.restore(step, args=ocp.args.Composite(**items))
    return {
        name: states.restored_state({i: restored[item_name(name, i)] for i in states.ITEMS})
        if kind == DATASET
        else restored[name]
        for name, kind in objects.items()
    }


def item_name(name: str, item: str) -> str:
    """The item of a dataset: `sampler` and `grain` for `data`, else `<name>.sampler`."""
    return item if name == "data" else f"{name}.{item}"


def _orbax() -> ocp.Checkpointer:
    # One process reads or writes alone, whatever jax.distributed knows of others.
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
    # In the background a folder that cannot be made is waited for until a timeout of minutes.
    at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone, async_options=at_once)
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
