"""JAX's settings that random numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jax

_RANDOM_FLAGS: Final = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_enable_custom_prng",
)


def random_flags() -> dict[str, Any]:
    """Return the settings of this thread by name."""
    return {flag: getattr(jax.config, flag) for flag in _RANDOM_FLAGS}


def check_random_flags(before: Mapping[str, Any]) -> None:
    """Check that the settings are still those that `random_flags` returned.

    Raises:
        RuntimeError: A setting has changed, so random numbers would be others.
    """
    now = random_flags()
    changes = ", ".join(
        f"{flag} from {before[flag]} to {value}"
        for flag, value in now.items()
        if value != before[flag]
    )
    if changes:
        raise RuntimeError(
            f"JAX's settings have changed since the dataset was made: {changes}. Other random "
            "numbers would follow: set them back, or make a new dataset."
        )
