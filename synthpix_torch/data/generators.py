"""The table of generators of flow fields."""

from __future__ import annotations

from typing import Any, Final

from jaxtyping import Array, Float, Int
from synthpix.data_sources import KinematicDataSource

from synthpix_torch.config.config import Config
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.kinematic import KinematicFields, kinematic_fields


def _open_kinematic(config: Config, exact: bool) -> Any:
    source = KinematicDataSource if exact else KinematicFields
    return source(
        num_examples=config.num_examples,
        image_shape=config.image_shape,
        filter_sigma_range=config.filter_sigma_range,
        scale_factor_range=config.scale_factor_range,
        scale_mode=config.scale_mode,
        seed=config.seed,
    )


def _kinematic_on_device(
    config: Config, record_numbers: Int[Array, " f"]
) -> Float[Array, "f h w 2"]:
    return kinematic_fields(
        record_numbers,
        seed=config.seed,
        shape=config.image_shape,
        filter_sigma_range=config.filter_sigma_range,
        scale_factor_range=config.scale_factor_range,
        scale_mode=config.scale_mode,
    )


_KINEMATIC = Generator(shape=lambda config: config.image_shape, open=_open_kinematic)

GENERATORS: Final[dict[str, Generator]] = {
    "kinematic": _KINEMATIC,
    "kinematic-device": _KINEMATIC._replace(generate=_kinematic_on_device),
}
"""Generators by the name that a configuration gives as `scheduler_class`."""
