"""Positions of images in their flow fields, as synthpix computes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import synthpix.sampler.base
import synthpix.sampler.synthetic
from synthpix.sampler import SyntheticImageSampler
from synthpix.scheduler.protocol import SchedulerProtocol
from synthpix.types import ImageGenerationSpecification

from synthpix_torch.config.config import Config


class Geometry(NamedTuple):
    """The geometry that synthpix's functions need beside keys and flow fields.

    Attributes:
        specification: Particles, noise and shape of the images of one batch.
        position_bounds: Height and width in pixels of the area that particles are drawn in.
        position_bounds_offset: Its upper left corner (y, x) in the flow field, in length units.
        zero_padding: Rows and columns by which the flow field is extended above and to the left.
        label_shape: Height and width of the labels, velocities_per_pixel times those of the images.
        grid_steps: Grid steps of the flow field per length unit, (y, x).
    """

    specification: ImageGenerationSpecification
    position_bounds: tuple[int, int]
    position_bounds_offset: tuple[float, float]
    zero_padding: tuple[int, int]
    label_shape: tuple[int, int]
    grid_steps: tuple[float, float]


def geometry(config: Config, flow_field_shape: tuple[int, ...], device: jax.Device) -> Geometry:
    """Ask synthpix's sampler how it would place images in flow fields of this shape.

    Raises:
        ValueError: synthpix refuses the configuration.
    """
    specification = ImageGenerationSpecification(
        batch_size=config.batch_size,
        image_shape=config.image_shape,
        diameter_ranges=list(config.diameter_ranges),
        intensity_ranges=list(config.intensity_ranges),
        rho_ranges=list(config.rho_ranges),
        **{
            key: getattr(config, key)
            for key in (
                "img_offset",
                "seeding_density_range",
                "p_hide_img1",
                "p_hide_img2",
                "diameter_var",
                "intensity_var",
                "rho_var",
                "dt",
                "noise_uniform",
                "noise_gaussian_mean",
                "noise_gaussian_std",
            )
        },
    )
    try:
        with _own_logger(), jax.default_device(device):
            sampler = SyntheticImageSampler(
                scheduler=_ShapeOnly(flow_field_shape),
                generation_specification=specification,
                # One device, whichever: the sampler is never run, it only must not share batches.
                device_ids=[0],
                **{
                    key: getattr(config, key)
                    for key in (
                        "batches_per_flow_batch",
                        "flow_fields_per_batch",
                        "flow_field_size",
                        "resolution",
                        "velocities_per_pixel",
                        "seed",
                        "max_speed_x",
                        "max_speed_y",
                        "min_speed_x",
                        "min_speed_y",
                        "output_units",
                    )
                },
            )
    except ValueError as error:
        raise ValueError(f"synthpix refuses the configuration: {error}") from error
    return Geometry(
        specification=specification.update(img_offset=sampler.img_offset),
        position_bounds=sampler.position_bounds,
        position_bounds_offset=sampler.position_bounds_offset,
        zero_padding=sampler.zero_padding,
        label_shape=sampler.output_flow_field_shape,
        grid_steps=(sampler.flow_field_res_y, sampler.flow_field_res_x),
    )


_REPLACING = threading.Lock()


@contextmanager
def _own_logger() -> Iterator[None]:
    """Let synthpix's sampler log through Python's logging, for one thread at a time.

    Its own logger starts a helper process and opens a socket with the first message.
    """
    modules: tuple[Any, ...] = (synthpix.sampler.base, synthpix.sampler.synthetic)
    ours = logging.getLogger("synthpix_torch.synthpix")
    with _REPLACING:
        theirs = [module.logger for module in modules]
        for module in modules:
            module.logger = ours
        try:
            yield
        finally:
            for module, logger in zip(modules, theirs, strict=True):
                module.logger = logger


class _ShapeOnly(SchedulerProtocol):  # type: ignore[misc]
    """A scheduler that knows the shape of its flow fields and has none."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def get_flow_fields_shape(self) -> tuple[int, int, int]:
        height, width, components = self._shape
        return (height, width, components)
