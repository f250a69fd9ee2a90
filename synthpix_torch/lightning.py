"""Resume exactly under Lightning; see `synthpix_torch.integrations.lightning`."""

from synthpix_torch.integrations.lightning import ResumeCallback, SynthPixDataModule

__all__ = ["ResumeCallback", "SynthPixDataModule"]
