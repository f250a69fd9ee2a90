"""PIV image pairs from SynthPix as torch tensors, without a copy, resumed bit for bit."""

from synthpix_torch.batch import Batch, ImageParameters, SynthPixBatch
from synthpix_torch.dataset import SynthPixDataset, Window
from synthpix_torch.sources import FlowFieldSource
from synthpix_torch.state import StateMismatchError

__all__ = [
    "Batch",
    "FlowFieldSource",
    "ImageParameters",
    "StateMismatchError",
    "SynthPixBatch",
    "SynthPixDataset",
    "Window",
]
