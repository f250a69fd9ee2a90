"""A dataset as items of a CheckpointManager that the user made."""

from __future__ import annotations

import orbax.checkpoint as ocp

from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.stream import state as states


def checkpoint_args(dataset: SynthPixDataset, *, restore: bool = False) -> ocp.args.Composite:
    """The items `sampler` and `grain` of a dataset, for a CheckpointManager of your own.

        manager.save(step, args=Composite(model=..., **checkpoint_args(dataset)))

        arguments = Composite(model=..., **checkpoint_args(dataset, restore=True))
        restored = manager.restore(step, args=arguments)
        dataset.load_state_dict(restored_state(restored))

    Args:
        dataset: Its state is taken at once, so that a save in the background is safe.
        restore: Whether the arguments are to restore.
    """
    return states.restore_args() if restore else states.save_args(dataset.state_dict())
