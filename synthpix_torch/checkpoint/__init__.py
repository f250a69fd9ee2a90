"""Checkpoints on disk: all states of a run as one atomic step."""

from synthpix_torch.checkpoint.checkpointer import Checkpointer
from synthpix_torch.checkpoint.folder import CheckpointError
from synthpix_torch.checkpoint.random_state import RandomState
from synthpix_torch.checkpoint.short import save_checkpoint

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "RandomState",
    "save_checkpoint",
]
