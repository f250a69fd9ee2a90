"""PIV image pairs from SynthPix as torch tensors, without a copy, resumed bit for bit."""

from synthpix_torch.batch import Batch, ImageParameters, SynthPixBatch
from synthpix_torch.checkpoint import (
    Checkpointer,
    CheckpointError,
    RandomState,
    save_checkpoint,
)
from synthpix_torch.config.plausibility import PhysicsWarning
from synthpix_torch.data.records import FlowFieldSource
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.integrations.orbax import OrbaxStateful, checkpoint_args, restored_state
from synthpix_torch.presets import camera
from synthpix_torch.recording import Pair, Recording, RecordingError, record
from synthpix_torch.stream.passes import Window
from synthpix_torch.stream.state import StateMismatchError

__all__ = [
    "Batch",
    "CheckpointError",
    "Checkpointer",
    "FlowFieldSource",
    "ImageParameters",
    "OrbaxStateful",
    "Pair",
    "PhysicsWarning",
    "RandomState",
    "Recording",
    "RecordingError",
    "StateMismatchError",
    "SynthPixBatch",
    "SynthPixDataset",
    "Window",
    "camera",
    "checkpoint_args",
    "record",
    "restored_state",
    "save_checkpoint",
]
