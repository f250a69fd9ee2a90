"""Recorded images come as they were recorded, with their flow in their pixels."""

from pathlib import Path

import numpy as np
import pytest

from . import measures
from .flows import Linear


@pytest.mark.parametrize("steps", [1, 4])
def test_recorded_images_and_flows_come_as_recorded(steps: int, tmp_path: Path) -> None:
    flow = Linear((1.5, 3.0), along_y=(0.0, 0.01), along_x=(0.01, 0.0))
    found = measures.recorded(tmp_path, flow, field_steps=steps)
    assert (found.images == found.recorded).all()
    y, x = np.mgrid[: found.labels.shape[0], : found.labels.shape[1]]
    # Beyond its last sample a recorded field is not known.
    known = (slice(None, 1 - steps or None),) * 2
    assert abs(found.labels - flow(y, x))[known].max() < 1e-4
