"""An independent judge, openpiv, sees in the images the flow that the labels say."""

import numpy as np
import pytest
from kinds import base
from openpiv import pyprocess

from synthpix_torch import SynthPixDataset


@pytest.mark.parametrize("renderer", ["particles", "synthpix"])
def test_openpiv_recovers_the_labels_in_x_and_in_y(renderer: str) -> None:
    size = 128
    y, x = np.mgrid[: size + 32, : size + 32] / (size + 32) * 2 * np.pi
    # Different in x and y, and no symmetry under a change of sign or of axes.
    field = np.stack([2.0 * np.sin(y) + 1.5, 1.5 * np.cos(x) - 2.0], axis=-1).astype(np.float32)
    config = base(
        batch_size=2,
        flow_fields_per_batch=1,
        image_shape=(size, size),
        flow_field_size=(size + 32.0, size + 32.0),
        img_offset=(16.0, 16.0),
        max_speed_x=6.0,
        max_speed_y=6.0,
        min_speed_x=-6.0,
        min_speed_y=-6.0,
    )
    del config["scheduler_class"]
    with SynthPixDataset(config, source=[field], renderer=renderer) as dataset:
        batch = dataset.batch_at(0)
    for image1, image2, flow in zip(
        batch.images[:, 0].numpy(),
        batch.images[:, 1].numpy(),
        batch.flow_fields.numpy(),
        strict=True,
    ):
        u, v, _ = pyprocess.extended_search_area_piv(
            image1.astype(np.int32),
            image2.astype(np.int32),
            window_size=32,
            overlap=16,
            search_area_size=32,
        )
        columns, rows = pyprocess.get_coordinates((size, size), 32, 16)
        at = (slice(None), rows[:, 0].astype(int)[:, None], columns[0].astype(int)[None, :])
        right, down = flow[at]
        assert np.median(abs(u - right)) < 0.2
        # pyprocess counts rows from the top and gives v with that sign.
        assert np.median(abs(v - down)) < 0.2
        assert np.median(abs(right)) > 1
        assert np.median(abs(down)) > 1
