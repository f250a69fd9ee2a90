"""Measure the content of a dataset, and name what is suspicious."""

from synthpix_torch.describe.describe import describe
from synthpix_torch.describe.report import Report

__all__ = ["Report", "describe"]
