"""Resume exactly under Lightning; see `synthpix_torch.integrations.lightning`."""

from synthpix_torch.integrations.lightning import ResumeCallback, SynthPixDataModule
from synthpix_torch.integrations.lightning_collector import CollectorCallback

__all__ = ["CollectorCallback", "ResumeCallback", "SynthPixDataModule"]
