"""Keys of generated flow fields."""

from typing import Final

from synthpix_torch.config import rules
from synthpix_torch.config.key import Key

_range_from_0 = rules.pair(
    "(min, max) with 0 <= min <= max <= 10000", lambda a, b: 0 <= a <= b <= 10_000
)
_range = rules.pair(
    "(min, max) with -10000 <= min <= max <= 10000", lambda a, b: -10_000 <= a <= b <= 10_000
)
_radii = rules.pair(
    "(min, max) with 0.1 <= min <= max <= 10000", lambda a, b: 0.1 <= a <= b <= 10_000
)
_wavelengths = rules.pair(
    "(min, max) with 2 <= min <= max <= 10000", lambda a, b: 2 <= a <= b <= 10_000
)

GENERATOR_KEYS: Final[dict[str, Key]] = {
    "num_examples": Key(
        rules.positive_integer(),
        "Flow fields that a generator makes.",
        "flow fields",
        default=18278,
        group="kinematic",
    ),
    "filter_sigma_range": Key(
        _range_from_0,
        "Range of the standard deviation of the Gaussian filter that smooths kinematic fields.",
        "pixels",
        default=(5.0, 100.0),
        group="kinematic",
    ),
    "scale_factor_range": Key(
        _range_from_0,
        "Range of the largest displacement of a kinematic field, or of the factor of the smoothed "
        "noise with scale_mode 'linear'.",
        "pixels",
        default=(0.0, 16.0),
        group="kinematic",
    ),
    "scale_mode": Key(
        rules.choice("peak", "linear"),
        "What scale_factor_range scales: the largest displacement, or the smoothed noise.",
        default="peak",
        group="kinematic",
    ),
    "displacement_range": Key(
        _range,
        "Range of the displacement of uniform flow, of the largest displacement of vortices and of "
        "taylor-green; negative for the opposite direction.",
        "pixels",
        default=(-8.0, 8.0),
        group="analytic",
    ),
    "gradient_range": Key(
        _range,
        "Range of the displacement per pixel of shear, rotation and stagnation; positive rotations "
        "turn clockwise in the image.",
        "pixels per pixel",
        default=(-0.05, 0.05),
        group="analytic",
    ),
    "angle_range": Key(
        _range,
        "Range of the direction of uniform flow and shear, and of the outflow of stagnation: 0 is "
        "to the right, 90 down.",
        "degrees",
        default=(0.0, 360.0),
        group="analytic",
    ),
    "core_radius_range": Key(
        _radii,
        "Range of the radius at which rankine and lamb-oseen vortices are fastest.",
        "pixels",
        default=(8.0, 32.0),
        group="analytic",
    ),
    "wavelength_range": Key(
        _wavelengths,
        "Range of the wavelength of taylor-green, twice the distance of neighbouring vortices.",
        "pixels",
        default=(32.0, 128.0),
        group="analytic",
    ),
    "centre_range": Key(
        _range,
        "Range of the centre of analytic flows along both axes: 0 is the first border of the "
        "image, 1 the last.",
        "share of the image",
        default=(0.25, 0.75),
        group="analytic",
    ),
}
