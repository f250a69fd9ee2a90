"""What a dataset holds, measured, and what about it is suspicious."""

from synthpix_torch.describe.describe import describe
from synthpix_torch.describe.report import Report

__all__ = ["Report", "describe"]
