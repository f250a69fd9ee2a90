"""Warnings of settings that are possible but physically odd."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Final

from synthpix_torch.config.config import Config, Range

SMALLEST_DISPLACEMENT: Final = 0.05
"""Pixels; the error of correlation methods is of this size."""

SMALLEST_DIAMETER, LARGEST_DIAMETER = 1.0, 6.0
"""2 sigma in pixels: below, displacements lock to whole pixels; above, windows hold few images."""

DENSEST: Final = 0.3
"""Particles per pixel; above, particle images overlap to speckle."""

FEWEST: Final = 5
"""Particles in an image."""

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class PhysicsWarning(UserWarning):
    """Settings or data are possible, but images or labels would be physically odd.

    The message gives the number. Python's warning filter hides it or makes it an error:
    `warnings.simplefilter("error", PhysicsWarning)`.
    """


def warn(message: str) -> None:
    """Issue a PhysicsWarning that points at the caller of the package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, PhysicsWarning, stacklevel=level)


def odd_settings(config: Config) -> Iterator[str]:
    """Name the settings of rendered images that are physically odd, with the number."""
    yield from _odd_particles(config)
    yield from _odd_light(config)
    yield from _odd_geometry(config)


def _odd_particles(config: Config) -> Iterator[str]:
    smallest, largest = _ends(config.diameter_ranges)
    if smallest < SMALLEST_DIAMETER:
        yield (
            f"diameter_ranges begin at {smallest:g} px (2 sigma): below {SMALLEST_DIAMETER:g} px "
            "particle images are undersampled, and measured displacements lock to whole pixels."
        )
    if largest > LARGEST_DIAMETER:
        yield (
            f"diameter_ranges reach {largest:g} px (2 sigma): particle images of PIV have 1 to 3 "
            'px. For e^-2 widths (4 sigma) set diameter_definition: "e^-2".'
        )
    if math.sqrt(config.diameter_var) > largest:
        yield (
            f"diameter_var={config.diameter_var:g} is a standard deviation of "
            f"{math.sqrt(config.diameter_var):g} px, more than the largest diameter {largest:g} px."
        )
    if config.rho_var > 1:
        yield f"rho_var={config.rho_var:g} scatters a correlation coefficient, which lies in +-1."
    density = config.seeding_density_range[1]
    particles = density * math.prod(config.image_shape)
    if density > DENSEST:
        yield (
            f"seeding_density_range reaches {density:g} particles per pixel: usual are 0.01 to "
            f"0.1, above {DENSEST:g} particle images overlap to speckle."
        )
    elif particles < FEWEST:
        yield (
            f"seeding_density_range reaches {density:g} particles per pixel, {particles:.3g} "
            "particles an image: usual are 0.01 to 0.1 per pixel."
        )
    for name in ("p_hide_img1", "p_hide_img2"):
        if getattr(config, name) > 0.5:
            yield (
                f"{name}={getattr(config, name):g} hides more than half of the particles: most "
                "have no partner in the other image."
            )


def _odd_light(config: Config) -> Iterator[str]:
    dimmest, brightest = _ends(config.intensity_ranges)
    if brightest > 255:
        yield (
            f"intensity_ranges reach {brightest:g}, but images end at 255 grey levels: particles "
            "are clipped. Divide intensities of 12 bits by 16."
        )
    elif brightest < 10:
        yield (
            f"intensity_ranges end at {brightest:g} of 255 grey levels: images are almost black. "
            "Multiply intensities between 0 and 1 by 255."
        )
        # What follows compares with the intensity.
        return
    if math.sqrt(config.intensity_var) > brightest:
        yield (
            f"intensity_var={config.intensity_var:g} is a standard deviation of "
            f"{math.sqrt(config.intensity_var):g} grey levels, more than the largest intensity "
            f"{brightest:g}."
        )
    # The integral of a Gaussian of sigma d / 2 is 2 pi I (d / 2)^2; middles of all ranges.
    spot = 2 * math.pi * min(255, max(sum(one) / 2 for one in config.intensity_ranges))
    spot *= (max(sum(one) / 2 for one in config.diameter_ranges) / 2) ** 2
    light = spot * sum(config.seeding_density_range) / 2
    background = config.noise_uniform / 2 + config.noise_gaussian_mean
    if light + background > 127.5:
        yield (
            f"Images have a mean of {light + background:.4g} of 255 grey levels ({light:.4g} from "
            f"particles, {background:.4g} from noise): large parts are white. Lower "
            "seeding_density_range, diameter_ranges, intensity_ranges or the noise."
        )
    spread = math.hypot(config.noise_uniform / math.sqrt(12), config.noise_gaussian_std)
    if spread > dimmest > 0:
        yield (
            f"Noise has a standard deviation of {spread:.4g} grey levels, more than the dimmest "
            f"particles ({dimmest:g})."
        )


def _odd_geometry(config: Config) -> Iterator[str]:
    pixels_per_speed = config.resolution * config.dt
    speeds = ("min_speed_x", "max_speed_x", "min_speed_y", "max_speed_y")
    bounds = {name: abs(getattr(config, name)) * pixels_per_speed for name in speeds}
    name, widest = max(bounds.items(), key=lambda item: item[1])
    if 0 < widest < SMALLEST_DISPLACEMENT:
        yield (
            f"The speed bounds allow for displacements up to {widest:.3g} px ({name} * dt * "
            "resolution), less than PIV can measure: check their unit, dt and resolution."
        )
    if widest > min(config.image_shape) / 2:
        yield (
            f"{name}={getattr(config, name):g} allows for displacements up to {widest:.4g} px in "
            f"images of {min(config.image_shape)} px: check its unit, dt and resolution."
        )
    for axis, direction in enumerate("yx"):
        seen = config.image_shape[axis] / config.resolution
        share = seen / config.flow_field_size[axis]
        if share < 0.02:
            yield (
                f"Along {direction} the image shows {seen:.4g} length units of the "
                f"{config.flow_field_size[axis]:g} of the flow field, {100 * share:.2g} %: check "
                "the units of resolution and flow_field_size."
            )
    if config.velocities_per_pixel > 4:
        yield (
            f"velocities_per_pixel={config.velocities_per_pixel:g} makes labels of "
            f"{config.velocities_per_pixel:g} times the images' height and width: 1 labels every "
            "pixel."
        )


def _ends(ranges: tuple[Range, ...]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
