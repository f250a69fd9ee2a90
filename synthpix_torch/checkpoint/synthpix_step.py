"""The place in the stream that a checkpoint of synthpix 0.3.1 stands for."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from synthpix_torch.dataset import SynthPixDataset

_GRAIN = "process_0-of-1.json"


def is_one(step: Path) -> bool:
    """Whether synthpix.save_checkpoint wrote a step: Grain's DataLoader left its indices there."""
    try:
        state = json.loads((step / "grain" / _GRAIN).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "last_seen_indices" in state


def read_position(dataset: SynthPixDataset, step: Path) -> int:
    """Number of the batch that synthpix would have given next.

    Grain's state says how many records were taken, so how many flow batches were begun. The
    sampler's `batches_generated` says how often the last of them was used. Both are needed, and
    both alone decide what comes next. `items_yielded` and `step` count the same things once more
    and must agree; `step` counts nothing that next_episode() skipped.

    The configuration of the images is not in such a checkpoint and cannot be compared.

    Raises:
        ValueError: The counts do not agree, or belong to other data, another order or another
            configuration.
    """
    order, config = dataset.stream.order, dataset.stream.config
    if order.streams != 1:
        raise ValueError("synthpix has one stream: leave out streams to load its checkpoints.")
    grain = json.loads((step / "grain" / _GRAIN).read_bytes())
    if grain.get("worker_count"):
        raise ValueError(
            f"{step} was saved with worker_count={grain['worker_count']}, which reorders the "
            "stream: it cannot be continued exactly."
        )
    for key, here in dataset.stream.flows.names_in_grain.items():
        saved = str(grain.get(key))
        if _without_folder(saved) != _without_folder(here):
            raise ValueError(
                f"{step} was saved with other data or in another order: {saved[:300]}, here "
                f"{here[:300]}. Build the dataset with the saved configuration."
            )
    taken = int(grain["last_seen_indices"]["0"]) + 1
    sampler = _read_sampler(step)
    flow_batches = -(-taken // config.batch_size)
    used = sampler.get("batches_generated", 1 if flow_batches else 0)
    # Without a flow batch in use the next batch begins a new one.
    begun = flow_batches if used == 0 else flow_batches - 1
    position = begun * config.repetitions + used
    delivered = sampler.get("step", position)
    agree = (
        sampler["items_yielded"] == taken
        and used <= config.repetitions
        and (delivered == position or (order.episodic and delivered < position))
    )
    if not agree:
        raise ValueError(
            f"The counts in {step} do not agree with batch_size={config.batch_size} and "
            f"batches_per_flow_batch={config.repetitions}: Grain took {taken} records, synthpix "
            f"counts {sampler['items_yielded']} records, {delivered} batches and {used} of the "
            "last flow batch. Build the dataset with the saved configuration, or go on with "
            "dataset.seek(position)."
        )
    return position


def _without_folder(name: str) -> str:
    """The name of a data source in Grain's state, with paths from their common folder on."""
    found = re.search(r"file_list=(\[.*\])", name)
    if found is None:
        return name
    files = ast.literal_eval(found[1])
    folder = os.path.commonpath([os.path.dirname(file) for file in files])
    return name.replace(found[1], str([os.path.relpath(file, folder) for file in files]))


def _read_sampler(step: Path) -> dict[str, int]:
    """The counts in the `sampler` item; none of the arrays beside them is read."""
    with ocp.PyTreeCheckpointer() as orbax:
        tree: Any = orbax.metadata(step / "sampler").item_metadata.tree
        wanted: dict[str, Any] = {"scheduler_state": {"items_yielded": 0}}
        wanted |= {key: 0 for key in ("step", "batches_generated") if key in tree}
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=_map_leaves(wanted, ocp.RestoreArgs(restore_type=np.ndarray)),
            partial_restore=True,
        )
        restored: Any = orbax.restore(step / "sampler", args=arguments)
    counts = {**restored, **restored["scheduler_state"]}
    del counts["scheduler_state"]
    return {key: int(value) for key, value in counts.items()}


def _map_leaves(tree: Any, leaf: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _map_leaves(value, leaf) for key, value in tree.items()}
    return leaf
