"""A dataset in a checkpoint that you save with Orbax."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import orbax.checkpoint as ocp
from grain.checkpoint import CheckpointRestore, CheckpointSave

from synthpix_torch.checkpoint.objects import Dataset
from synthpix_torch.checkpoint.step import ITEMS, read_dataset, write_dataset


def checkpoint_args(dataset: Dataset, *, restore: bool = False) -> ocp.args.Composite:
    """Return the items `sampler` and `grain` of a dataset, for your own CheckpointManager.

        manager.save(step, args=Composite(model=..., **checkpoint_args(dataset)))

        arguments = Composite(model=..., **checkpoint_args(dataset, restore=True))
        restored = manager.restore(step, args=arguments)
        dataset.load_state_dict(restored_state(restored))

    Grain's own checkpoint restore reads the item `grain`.

    Args:
        dataset: Its present state is saved, also by a save in the background.
        restore: Return the arguments to restore.
    """
    if restore:
        return ocp.args.Composite(
            sampler=ocp.args.JsonRestore(),
            grain=CheckpointRestore(_grain_iterator({"next_index": 0})),
        )
    # Through JSON, because Orbax reads in the background what it is passed.
    state = json.loads(json.dumps(dataset.state_dict()))
    return ocp.args.Composite(
        grain=CheckpointSave(_grain_iterator(state.pop("grain"))), sampler=ocp.args.JsonSave(state)
    )


def restored_state(restored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict of a dataset from what a CheckpointManager restored.

    Args:
        restored: Restored with `checkpoint_args(dataset, restore=True)`.

    Raises:
        ValueError: An item is missing.
    """
    missing = [item for item in ITEMS if restored.get(item) is None]
    if missing:
        raise ValueError(f"The checkpoint lacks the items {', '.join(missing)} of the dataset.")
    return {**restored["sampler"], "grain": restored["grain"].get_state()}


class OrbaxStateful:
    """Adapts a dataset to the stateful protocol of Orbax v1.

    Only Orbax calls the methods: both are coroutines, which do nothing unless they are awaited.

        save_checkpointables(path, {"data": OrbaxStateful(dataset)})
        load_checkpointables(path, {"data": OrbaxStateful(dataset)})
    """

    def __init__(self, dataset: Dataset) -> None:
        """Wrap a dataset, which saving and loading refer to."""
        self.dataset = dataset

    async def save(self, directory: Any) -> Awaitable[None]:
        """Take the dataset's state, and return the coroutine that writes it."""
        state = self.dataset.state_dict()

        async def write() -> None:
            write_dataset(await directory.await_creation(), state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Return the coroutine that loads the state into the dataset."""

        async def read() -> None:
            self.dataset.load_state_dict(read_dataset(directory, read=_read_json))

        return read()


def _read_json(path: Path) -> Any:
    # Orbax may pass a path that is not on a local disk.
    return json.loads(path.read_bytes())


def _grain_iterator(state: Mapping[str, int]) -> Any:
    """Return an iterator of Grain in a given state, which is all that is saved of it."""
    iterator = iter(grain.MapDataset.range(sys.maxsize).to_iter_dataset(_NO_THREADS))
    iterator.set_state(dict(state))
    return iterator


_NO_THREADS = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
