"""Checkpoints on disk: everything a run needs as one atomic Orbax step."""

from synthpix_torch.checkpoint.checkpointer import Checkpointer, save_checkpoint
from synthpix_torch.checkpoint.folder import CheckpointError
from synthpix_torch.checkpoint.own_manager import checkpoint_args
from synthpix_torch.checkpoint.random_state import RandomState

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "RandomState",
    "checkpoint_args",
    "save_checkpoint",
]
