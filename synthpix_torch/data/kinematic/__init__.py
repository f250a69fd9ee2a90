"""Kinematic flow fields: homogeneous random fields, generated on the host or on the device."""

from synthpix_torch.data.kinematic.device import kinematic_fields
from synthpix_torch.data.kinematic.folding import Folding, folded_share, measure_folding
from synthpix_torch.data.kinematic.host import KinematicFields
from synthpix_torch.data.kinematic.settings import KinematicSettings

__all__ = [
    "Folding",
    "KinematicFields",
    "KinematicSettings",
    "folded_share",
    "kinematic_fields",
    "measure_folding",
]
