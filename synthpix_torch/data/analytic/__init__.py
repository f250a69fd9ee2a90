"""Analytic flow fields in closed form, with parameters drawn for each record."""

from synthpix_torch.data.analytic.fields import AnalyticFields, analytic_fields
from synthpix_torch.data.analytic.flows import FLOWS, Flow, Parameters
from synthpix_torch.data.analytic.settings import AnalyticSettings

__all__ = [
    "FLOWS",
    "AnalyticFields",
    "AnalyticSettings",
    "Flow",
    "Parameters",
    "analytic_fields",
]
