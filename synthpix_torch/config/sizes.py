"""Check that the arrays of a batch, and the work for a pair, have a size that can be computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from synthpix_torch.config.config import Config
from synthpix_torch.config.rules import LARGEST_COUNT

_MOST_PARTICLES: Final = 2**27
_MOST_WORK: Final = 2**36


def check_sizes(config: Config) -> None:
    """Raise if an array would be too large to be indexed, or a pair would take minutes.

    Raises:
        ValueError: It names the number, its bound and the keys to change.
    """
    for what, number, most, keys in _sizes(config):
        if not number <= most:
            raise ValueError(f"{what.format(f'{number:.4g}')}, more than {most}: lower {keys}.")


def _sizes(config: Config) -> Iterator[tuple[str, float, int, str]]:
    pixels = math.prod(config.image_shape)
    # Without it recorded images have the shape of the first.
    if "image_shape" in config.given:
        yield (
            "The images of a batch would hold {} pixels",
            2.0 * pixels * config.batch_size,
            LARGEST_COUNT,
            "batch_size or image_shape",
        )
    if config.include_images:
        return
    yield (
        "The labels of a batch would hold {} values",
        2.0 * pixels * config.velocities_per_pixel**2 * config.batch_size,
        LARGEST_COUNT,
        "velocities_per_pixel, batch_size or image_shape",
    )
    if config.generated:
        yield (
            "The flow fields of a batch would hold {} values",
            2.0
            * math.prod(config.flow_field_size)
            * config.resolution**2
            * config.flow_fields_per_batch,
            LARGEST_COUNT,
            "flow_field_size, resolution or flow_fields_per_batch",
        )
    # What the renderers hold for each particle reaches 2 diameters to each side, and 3 standard
    # deviations of the diameter's change more.
    diameter = max(high for _, high in config.diameter_ranges) + 3 * math.sqrt(config.diameter_var)
    window = 4 * diameter + 1
    particles = _particles(config, reach=2 * diameter)
    yield (
        "A pair would have up to {} particles",
        particles,
        _MOST_PARTICLES,
        "seeding_density_range, image_shape, the speed bounds, dt or diameter_ranges",
    )
    yield (
        "The particle images of a pair would cover {} pixels",
        max(1.0, particles) * window**2,
        _MOST_WORK,
        "diameter_ranges, diameter_var or seeding_density_range",
    )


def _particles(config: Config, *, reach: float) -> float:
    """Bound the particles of a pair: those in the image, in its margins and in the light sheet."""
    pixels_per_speed = config.dt * config.resolution
    speeds = ((config.min_speed_y, config.max_speed_y), (config.min_speed_x, config.max_speed_x))
    area = 1.0
    for size, (slowest, fastest) in zip(config.image_shape, speeds, strict=True):
        margin = max(0.0, fastest) - min(0.0, slowest)
        area *= size + 2 * reach + margin * pixels_per_speed
    layers = 1.0
    if config.sheet_thickness is not None:
        fastest = max(abs(config.min_speed_z), abs(config.max_speed_z))
        depth = abs(config.out_of_plane_displacement) + fastest * config.dt
        layers += 2 * depth / config.sheet_thickness
    return area * layers * config.seeding_density_range[1]
