"""Provide what the benchmarks run: a configuration for a size, and synthpix's sampler for it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path
from typing import Any

import synthpix
from ruamel.yaml import YAML

SMALL: dict[str, Any] = YAML(typ="safe").load(
    Path(__file__).parent.parent / "examples" / "small.yaml"
)


def kinematic(size: int, **changes: Any) -> dict[str, Any]:
    """Configure kinematic fields: images of `size` px, seeding density 0.05, diameter 1 to 2 px."""
    margin = max(8.0, size / 8)
    return {
        **SMALL,
        "batch_size": 8,
        "flow_fields_per_batch": 8,
        "batches_per_flow_batch": 1,
        "num_examples": 1024,
        "num_threads": 16,
        "image_shape": (size, size),
        "flow_field_size": (size + 2 * margin, size + 2 * margin),
        "img_offset": (margin, margin),
        "max_speed_x": margin,
        "max_speed_y": margin,
        "min_speed_x": -margin,
        "min_speed_y": -margin,
        "seeding_density_range": (0.05, 0.05),
        "filter_sigma_range": (5.0, 100.0),
        "scale_factor_range": (0.0, margin),
        **changes,
    }


def sampler(config: dict[str, Any]) -> Any:
    """Build synthpix's own sampler without its banner and its logging process."""
    for name in ("make", "sampler.base", "sampler.synthetic", "sampler.real"):
        sys.modules[f"synthpix.{name}"].logger = logging.getLogger("quiet")  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()):
        return synthpix.make(dict(config))
