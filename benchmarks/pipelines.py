"""What the benchmarks run: a configuration of a given size, and synthpix's sampler for it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import Any

import synthpix


def kinematic(size: int, **changes: Any) -> dict[str, Any]:
    """Kinematic flow fields in images of `size` px, seeding density 0.05, diameter 1 to 2."""
    margin = max(8.0, size / 8)
    return {
        "scheduler_class": "kinematic",
        "batch_size": 8,
        "flow_fields_per_batch": 8,
        "batches_per_flow_batch": 1,
        "num_examples": 1024,
        "image_shape": (size, size),
        "flow_field_size": (size + 2 * margin, size + 2 * margin),
        "img_offset": (margin, margin),
        "resolution": 1.0,
        "velocities_per_pixel": 1.0,
        "seed": 0,
        "max_speed_x": margin,
        "max_speed_y": margin,
        "min_speed_x": -margin,
        "min_speed_y": -margin,
        "output_units": "pixels",
        "dt": 1.0,
        "seeding_density_range": (0.05, 0.05),
        "p_hide_img1": 0.01,
        "p_hide_img2": 0.01,
        "diameter_ranges": [(1.0, 2.0)],
        "diameter_var": 0.1,
        "intensity_ranges": [(100, 200)],
        "intensity_var": 1.0,
        "rho_ranges": [(-0.2, 0.2)],
        "rho_var": 0.01,
        "noise_uniform": 2.0,
        "noise_gaussian_mean": 0.0,
        "noise_gaussian_std": 1.0,
        "randomize": True,
        "loop": True,
        "scale_factor_range": (0.0, margin),
        **changes,
    }


def sampler(config: dict[str, Any]) -> Any:
    """synthpix's own sampler, without its banner and its logging process."""
    for name in ("make", "sampler.base", "sampler.synthetic", "sampler.real"):
        sys.modules[f"synthpix.{name}"].logger = logging.getLogger("quiet")  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()):
        return synthpix.make(dict(config))
