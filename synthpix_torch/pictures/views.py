"""The pairs of a batch as NumPy arrays, ready to draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from synthpix_torch.batch import AnyBatch, SynthPixBatch


class Pair(NamedTuple):
    """An image pair with its flow field, on the host.

    Attributes:
        images: Both images, grey levels.
        flow_field: Channel 0 to the right, channel 1 down.
        valid: Where there is a flow field.
    """

    images: Float[np.ndarray, "2 h w"]
    flow_field: Float[np.ndarray, "2 y x"]
    valid: Bool[np.ndarray, "y x"]


def pairs_of(batch: AnyBatch) -> list[Pair]:
    """Copy the pairs of a batch to the host, without empty slots.

    Raises:
        ValueError: All slots are empty.
    """
    if isinstance(batch, SynthPixBatch):
        pairs = torch.stack([batch.images1, batch.images2], dim=1)
        vectors = batch.flow_fields.movedim(-1, 1)
    else:
        pairs, vectors = batch.images, batch.flow_fields
    images, flow_fields = pairs.float().cpu().numpy(), vectors.cpu().numpy()
    valid = np.ones_like(flow_fields[:, 0], bool)
    if batch.valid_flow_mask is not None:
        valid = batch.valid_flow_mask.cpu().numpy()
    filled = np.flatnonzero(batch.mask.cpu().numpy())
    if not filled.size:
        raise ValueError(f"All slots of batch {batch.number} are empty: choose another batch.")
    return [Pair(images[i], flow_fields[i], valid[i]) for i in filled]


def white_level(pairs: Iterable[Pair]) -> float:
    """Return the grey level to draw as white: that which 0.1 % of the pixels exceed."""
    return max(1.0, float(np.percentile(np.stack([pair.images for pair in pairs]), 99.9)))


def largest_displacement(pairs: Iterable[Pair]) -> float:
    """Return the length of the longest vector of the flow fields."""
    return max(float(np.hypot(*pair.flow_field).max()) for pair in pairs)
