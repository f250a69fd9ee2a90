"""Checkpoints on disk: all states of a run as one atomic step."""

from synthpix_torch.checkpoint.checkpointer import Checkpointer, save_checkpoint
from synthpix_torch.checkpoint.folder import CheckpointError
from synthpix_torch.checkpoint.random_state import RandomState

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "RandomState",
    "save_checkpoint",
]
