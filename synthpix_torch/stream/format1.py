"""Read the fingerprints of states that synthpix_torch 0.1.0 saved (format 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "stream": (
        "scheduler_class",
        "batch_size",
        "flow_fields_per_batch",
        "batches_per_flow_batch",
        "seed",
        "randomize",
        "loop",
        "include_images",
        "episode_length",
    ),
    "geometry": (
        "image_shape",
        "img_offset",
        "flow_field_size",
        "resolution",
        "velocities_per_pixel",
        "dt",
        "output_units",
        "max_speed_x",
        "max_speed_y",
        "min_speed_x",
        "min_speed_y",
    ),
    "particles": (
        "seeding_density_range",
        "p_hide_img1",
        "p_hide_img2",
        "diameter_ranges",
        "diameter_var",
        "intensity_ranges",
        "intensity_var",
        "rho_ranges",
        "rho_var",
    ),
    "camera": (
        "noise_uniform",
        "noise_gaussian_mean",
        "noise_gaussian_std",
        "mask",
        "histogram",
    ),
    "kinematic": ("num_examples", "filter_sigma_range", "scale_factor_range", "scale_mode"),
    "data": ("records", "names", "flow field shape", "flow field dtype"),
    "batches": ("streams", "renderer", "layout", "image_dtype", "scale_images"),
    "jax": (
        "jax_enable_x64",
        "jax_threefry_partitionable",
        "jax_default_prng_impl",
        "jax_random_seed_offset",
        "jax_enable_custom_prng",
    ),
}
"""The keys of each group in the order in which format 1 lists their values. Never changes."""


def unpack_format_1(fingerprint: Any) -> dict[str, str]:
    """Name the values of a fingerprint of format 1.

    Raises:
        ValueError: The fingerprint is corrupt.
    """
    values = {"bits": "1"}
    for group, keys in _KEYS.items():
        packed = fingerprint.get(group) if isinstance(fingerprint, Mapping) else None
        parts = packed.split("|") if isinstance(packed, str) else []
        if len(parts) != len(keys):
            raise ValueError(
                f"The state is corrupt: its fingerprint lacks values of {group!r}. "
                "Use an older state."
            )
        values |= zip(keys, parts, strict=True)
    return values
