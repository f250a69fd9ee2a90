"""JAX's settings that bits depend on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_RANDOM_FLAGS: Final = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_enable_custom_prng",
)

_SHIELDED: Final = {
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
}


def shielded(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a function under JAX's default settings, whatever the user has set to debug other code.

    Without jit the bits differ; strict promotion and transfer guards stop our programs.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        config = jax.config
        # Four contexts take longer than to dispatch a batch.
        if all(getattr(config, flag) == value for flag, value in _SHIELDED.items()):
            return function(*args, **kwargs)
        with (
            jax.disable_jit(False),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.transfer_guard("allow"),
        ):
            return function(*args, **kwargs)

    return call


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
