"""Keys of imaging effects: light sheet, camera, background, seeding and a body in the flow."""

from typing import Final

from synthpix_torch.config import rules
from synthpix_torch.config.key import Key

_LENGTH = "length unit, for example mm"
_SPEED = "length units per second"
_at_least_0 = rules.number("a number of at least 0", lambda v: v >= 0)
_any_number = rules.number("a number", lambda v: True)
_positive = rules.number("a positive number", lambda v: v > 0)
_image = rules.path("the path of a .npy file")

EFFECT_KEYS: Final[dict[str, Key]] = {
    "sheet_profile": Key(
        rules.choice("none", "top-hat", "gaussian"),
        "Profile of the light sheet across its thickness; 'none' lights all particles equally.",
        default="none",
        group="effects",
    ),
    "sheet_thickness": Key(
        _positive,
        "Full thickness of a top-hat light sheet, full e^-2 width of a Gaussian one; the seeding "
        "density counts particles in this thickness.",
        _LENGTH,
        default=None,
        example=1.0,
        group="effects",
    ),
    "out_of_plane_displacement": Key(
        _any_number,
        "Displacement of all particles through the light sheet between the images, added to that "
        "by the third component of the flow field.",
        _LENGTH,
        default=0.0,
        group="effects",
    ),
    "min_speed_z": Key(
        _any_number,
        "Lower bound of the third component of flow fields, for the depth in which particles are "
        "seeded.",
        _SPEED,
        default=0.0,
        group="effects",
    ),
    "max_speed_z": Key(
        _any_number,
        "Upper bound of the third component of flow fields, for the depth in which particles are "
        "seeded.",
        _SPEED,
        default=0.0,
        group="effects",
    ),
    "electrons_per_grey_level": Key(
        _at_least_0,
        "Photo-electrons per grey level of light, whose number is Poisson distributed; 0 for no "
        "shot noise.",
        "electrons per grey level of 255",
        default=0.0,
        group="effects",
    ),
    "gain": Key(
        _positive,
        "Factor from light to grey levels, applied after shot noise and before noise_gaussian_mean "
        "(dark offset) and noise_gaussian_std (read noise).",
        default=1.0,
        group="effects",
    ),
    "bit_depth": Key(
        rules.integer("0, 8, 10, 12, 14 or 16", lambda v: v in (0, 8, 10, 12, 14, 16)),
        "Bits of the camera: grey levels are rounded to 2^bits levels from 0 to 255; 0 for no "
        "rounding.",
        "bits",
        default=0,
        group="effects",
    ),
    "background": Key(
        _image,
        "Image of background light in grey levels, added to both images before the camera's noise.",
        default=None,
        group="effects",
    ),
    "background_gradient": Key(
        rules.pair("two numbers (y, x)", lambda y, x: True),
        "Rise of background light from the first to the last row and from the first to the last "
        "column; 0 at the darkest corner.",
        "grey levels of 255",
        default=(0.0, 0.0),
        group="effects",
    ),
    "seeding_image": Key(
        _image,
        "Image of the share of the seeding density in each pixel of the first image, from 0 to 1.",
        default=None,
        group="effects",
    ),
    "body_mask": Key(
        _image,
        "Image with 1 in a body in the flow, which holds no particles and no labels, and 0 in the "
        "fluid.",
        default=None,
        group="effects",
    ),
}
