"""Steps that synthpix 0.3.1 wrote: the place in the stream that they name."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from synthpix_torch.checkpoint.files import (
    CorruptError,
    list_files,
    open_regular,
    printable,
    read_json,
)
from synthpix_torch.stream.stream import Stream

_GRAIN = "process_0-of-1.json"


def is_synthpix_step(step: Path) -> bool:
    """Return whether synthpix.save_checkpoint wrote a step, with indices of Grain's DataLoader.

    Raises:
        OSError: This process cannot read the step now.
    """
    try:
        state = read_json(step / "grain" / _GRAIN)
    except CorruptError:
        return False
    return isinstance(state, dict) and "last_seen_indices" in state


def find_fault(step: Path) -> str | None:
    """Return why a step of synthpix cannot be read, None if its counts can be.

    Raises:
        OSError: This process cannot read the step now.
    """
    try:
        for name in (*list_files(step), "sampler/manifest.ocdbt"):
            # Orbax would follow a link, wait for a pipe, and leave threads behind at a failure.
            with open_regular(step / name) as file:
                if not file.read(1):
                    raise CorruptError(f"{name} is empty")
        _read_counts(step)
    except OSError:
        raise
    except Exception as error:
        # Orbax raises errors of many kinds.
        return printable(f"synthpix wrote it, and it is incomplete: {error}")
    return None


def read_position(stream: Stream, step: Path) -> int:
    """Return the number of the batch that synthpix would have made next.

    Grain's state counts the records taken, so the flow batches begun. The sampler's
    `batches_generated` counts the uses of the last of them. Both together decide what comes next.
    `items_yielded` and `step` count the same again and must agree; `step` does not count what
    next_episode() skipped. The configuration of the images is not stored and cannot be compared.

    Raises:
        ValueError: The counts do not agree, or belong to other data, another order or another
            configuration.
    """
    order, config = stream.order, stream.config
    if order.streams != 1:
        raise ValueError("synthpix has one stream: leave out streams to load its checkpoints.")
    grain, sampler = _read_counts(step)
    if grain.get("worker_count"):
        raise ValueError(
            f"{step} was saved with worker_count={grain['worker_count']}, which reorders the "
            "stream: it cannot be continued exactly."
        )
    for key, here in stream.flows.names_in_grain.items():
        saved = str(grain.get(key))
        if _without_folder(saved) != _without_folder(here):
            raise ValueError(
                f"{step} was saved with other data or in another order: {printable(saved[:300])}, "
                f"here {here[:300]}. Build the dataset with the saved configuration."
            )
    taken: int = grain["last_seen_indices"]["0"] + 1
    flow_batches = -(-taken // config.batch_size)
    used = sampler.get("batches_generated", 1 if flow_batches else 0)
    # If the current flow batch is unused, the next batch begins another one.
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
            "last flow batch. Build the dataset with the saved configuration, or continue from "
            "dataset.seek(position)."
        )
    return position


def _without_folder(name: str) -> str:
    """Return a data source's name in Grain's state, with paths relative to their common folder."""
    found = re.search(r"file_list=(\[.*\])", name)
    if found is None:
        return name
    try:
        files = ast.literal_eval(found[1])
        folder = os.path.commonpath([os.path.dirname(file) for file in files])
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return name
    return name.replace(found[1], str([os.path.relpath(file, folder) for file in files]))


def _read_counts(step: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the state of Grain and the counts of the sampler."""
    grain = read_json(step / "grain" / _GRAIN)
    if not isinstance(grain["last_seen_indices"]["0"], int):
        raise CorruptError("Grain's index is not a number")
    return grain, _read_sampler(step)


def _read_sampler(step: Path) -> dict[str, int]:
    """Read the counts in the `sampler` item, without the arrays beside them."""
    with ocp.PyTreeCheckpointer() as orbax:
        tree: Any = orbax.metadata(step / "sampler").item_metadata.tree
        counts = {key: 0 for key in ("step", "batches_generated") if key in tree}
        as_array = ocp.RestoreArgs(restore_type=np.ndarray)
        restored: Any = orbax.restore(
            step / "sampler",
            args=ocp.args.PyTreeRestore(
                item={**counts, "scheduler_state": {"items_yielded": 0}},
                restore_args={
                    **dict.fromkeys(counts, as_array),
                    "scheduler_state": {"items_yielded": as_array},
                },
                partial_restore=True,
            ),
        )
    counts = {key: int(restored[key]) for key in counts}
    return {**counts, "items_yielded": int(restored["scheduler_state"]["items_yielded"])}
