"""Keys of generated flow fields."""

from typing import Final

from synthpix_torch.config import rules
from synthpix_torch.config.key import Key

_range_from_0 = rules.pair(
    "(min, max) with 0 <= min <= max <= 10000", lambda a, b: 0 <= a <= b <= 10_000
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
}
