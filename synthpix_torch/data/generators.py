"""The table of generators of flow fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

from synthpix.data_sources import KinematicDataSource

from synthpix_torch.config.config import Config
from synthpix_torch.data.analytic import (
    FLOWS,
    AnalyticFields,
    AnalyticSettings,
    analytic_fields,
)
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.kinematic import KinematicFields, KinematicSettings, kinematic_fields
from synthpix_torch.data.plausibility import remarks_on_folding


def _kinematic(config: Config, exact: bool) -> Generator:
    settings = KinematicSettings.from_config(config)
    theirs = KinematicDataSource(
        num_examples=config.num_examples,
        image_shape=config.image_shape,
        filter_sigma_range=config.filter_sigma_range,
        scale_factor_range=config.scale_factor_range,
        scale_mode=config.scale_mode,
        seed=config.seed,
    )
    # synthpix takes the scale, which is in pixels, for a velocity.
    largest = _largest_kinematic(config) * (1.0 if exact else settings.pixel_velocity)
    return Generator(
        records=theirs if exact else KinematicFields(config.num_examples, settings),
        shape=config.image_shape if exact else settings.shape,
        name_in_grain=repr(theirs),
        slowest=(-largest, -largest),
        fastest=(largest, largest),
        remarks=tuple if exact else partial(remarks_on_folding, settings),
    )


def _kinematic_on_device(config: Config, exact: bool) -> Generator:
    _refuse_device(config, exact)
    settings = KinematicSettings.from_config(config)
    return _kinematic(config, exact)._replace(generate=partial(kinematic_fields, settings=settings))


def _analytic(flow: str, config: Config, exact: bool) -> Generator:
    settings = AnalyticSettings.from_config(config, flow)
    records = AnalyticFields(config.num_examples, settings)
    unit = settings.grid.pixel_velocity
    noise = _largest_kinematic(config) if settings.closed_form.noise else 0.0
    (left, right), (up, down) = settings.bounds()
    return Generator(
        records=records,
        shape=settings.grid.shape,
        name_in_grain=repr(records),
        slowest=((left - noise) * unit, (up - noise) * unit),
        fastest=((right + noise) * unit, (down + noise) * unit),
        remarks=partial(remarks_on_folding, settings.grid) if noise else tuple,
    )


def _analytic_on_device(flow: str, config: Config, exact: bool) -> Generator:
    _refuse_device(config, exact)
    settings = AnalyticSettings.from_config(config, flow)
    generate = partial(analytic_fields, settings=settings)
    return _analytic(flow, config, exact)._replace(generate=generate)


def _refuse_device(config: Config, exact: bool) -> None:
    if exact:
        raise ValueError(
            "synthpix makes no flow fields on the device: use scheduler_class "
            f"{str(config.scheduler_class).removesuffix('-device')!r}, or renderer='particles'."
        )


def _largest_kinematic(config: Config) -> float:
    """Return the largest component of a field in pixels.

    With scale_mode "linear" it is estimated as five standard deviations of noise of variance 1/3
    behind a Gaussian filter, whose squared weights sum to 1 / (4 pi sigma^2), at most 1.
    """
    largest = config.scale_factor_range[1]
    if config.scale_mode == "peak":
        return largest
    sigma = config.filter_sigma_range[0]
    gain = 1.0 if sigma == 0 else min(1.0, 1 / (2 * math.sqrt(math.pi) * sigma))
    return largest * 5 * gain / math.sqrt(3)


GENERATORS: Final[dict[str, Callable[[Config, bool], Generator]]] = {
    "kinematic": _kinematic,
    "kinematic-device": _kinematic_on_device,
    **{name: partial(_analytic, name) for name in FLOWS},
    **{f"{name}-device": partial(_analytic_on_device, name) for name in FLOWS},
}
"""Functions that open the generators, by `scheduler_class`.

Their arguments are the configuration and whether synthpix's own bits are needed.
"""
