"""Keys of the images: where they lie in the flow field, their particles and their noise."""

from typing import Final

from synthpix_torch.config import rules
from synthpix_torch.config.key import Key

_LENGTH = "length unit, for example mm"
_SPEED = "length units per second"
_at_least_0 = rules.number("a number of at least 0", lambda v: v >= 0)
_any_number = rules.number("a number", lambda v: True)
_positive = rules.number("a positive number", lambda v: v > 0)
_probability = rules.number("a probability between 0 and 1", lambda v: 0 <= v <= 1)
_range_from_0 = rules.pair("(min, max) with 0 <= min <= max", lambda a, b: 0 <= a <= b)
_positive_ranges = rules.ranges("a list of (min, max) with 0 < min <= max", lambda a, b: 0 < a <= b)

IMAGE_KEYS: Final[dict[str, Key]] = {
    "image_shape": Key(
        rules.pair(
            "two positive integers (height, width) in pixels",
            lambda h, w: h > 0 and w > 0,
            kind=int,
        ),
        "Height and width of the images.",
        "pixels",
        recorded=(256, 256),
        example=[256, 256],
        group="geometry",
    ),
    "img_offset": Key(
        rules.pair("two numbers (y, x) of at least 0", lambda y, x: y >= 0 and x >= 0),
        "Centre of the image's first pixel in the flow field, from the field's first node down and "
        "to the right: at 10 pixels per mm an offset of 5 mm is 50 pixels.",
        _LENGTH,
        filler=(0.0, 0.0),
        example=[4.0, 4.0],
        group="geometry",
    ),
    "flow_field_size": Key(
        rules.pair("two positive numbers (y, x)", lambda y, x: y > 0 and x > 0),
        "Height and width of the flow field; node j of n lies at j * size / n.",
        _LENGTH,
        filler=(1.0, 1.0),
        example=[264.0, 264.0],
        group="geometry",
    ),
    "resolution": Key(
        _positive,
        "Pixels of the image per length unit of the flow field.",
        "pixels per length unit",
        filler=1.0,
        example=1.0,
        group="geometry",
    ),
    "velocities_per_pixel": Key(
        _positive,
        "Labels per pixel along each axis: 1 labels every pixel, 0.5 every other one.",
        "labels per pixel",
        filler=1.0,
        example=1.0,
        group="geometry",
    ),
    "dt": Key(
        _positive,
        "Time from the first image to the second.",
        "seconds",
        filler=1.0,
        example=1.0,
        group="geometry",
    ),
    "output_units": Key(
        rules.choice("pixels", "measure units per second"),
        "Unit of the labels: displacement in pixels, or velocity in length units per second.",
        filler="pixels",
        example="pixels",
        group="geometry",
    ),
    "max_speed_x": Key(
        _any_number,
        "Upper bound of the velocity to the right, for the margin in which particles are seeded.",
        _SPEED,
        filler=0.0,
        example=3.0,
        group="geometry",
    ),
    "max_speed_y": Key(
        _any_number,
        "Upper bound of the velocity downwards, for the margin in which particles are seeded.",
        _SPEED,
        filler=0.0,
        example=3.0,
        group="geometry",
    ),
    "min_speed_x": Key(
        _any_number,
        "Lower bound of the velocity to the right, negative for flow to the left.",
        _SPEED,
        filler=0.0,
        example=-3.0,
        group="geometry",
    ),
    "min_speed_y": Key(
        _any_number,
        "Lower bound of the velocity downwards, negative for upward flow.",
        _SPEED,
        filler=0.0,
        example=-3.0,
        group="geometry",
    ),
    "crop": Key(
        rules.pair("two integers (y, x) of at least 0", lambda y, x: y >= 0 and x >= 0, kind=int),
        "First pixel of the crop of image_shape that is cut from recorded images; by default they "
        "are served whole.",
        "pixels",
        default=None,
        group="geometry",
    ),
    "seeding_density_range": Key(
        _range_from_0,
        "Range of the seeding density; the number of particles of a pair is density times area, "
        "without the Poisson scatter of a real seeding.",
        "particles per pixel",
        filler=(0.0, 0.0),
        example=[0.03, 0.06],
        group="particles",
    ),
    "p_hide_img1": Key(
        _probability,
        "Probability that a particle is missing in the first image (out-of-plane loss).",
        filler=0.0,
        example=0.01,
        group="particles",
    ),
    "p_hide_img2": Key(
        _probability,
        "Probability that a particle is missing in the second image (out-of-plane loss).",
        filler=0.0,
        example=0.01,
        group="particles",
    ),
    "diameter_ranges": Key(
        _positive_ranges,
        "Ranges of the diameter of particle images; a pair draws one range, a particle a diameter "
        "in it. The diameter is 2 sigma of the Gaussian image unless diameter_definition says "
        "otherwise.",
        "pixels",
        filler=(),
        example=[[1.5, 2.5]],
        group="particles",
    ),
    "diameter_definition": Key(
        rules.choice("2 sigma", "e^-2"),
        "What diameter_ranges and diameter_var mean: 2 sigma of the Gaussian image, or its e^-2 "
        "width, which is 4 sigma.",
        default="2 sigma",
    ),
    "diameter_var": Key(
        _at_least_0,
        "Variance of a particle's diameter from the first image to the second.",
        "pixels^2",
        filler=0.0,
        example=0.0,
        group="particles",
    ),
    "intensity_ranges": Key(
        _positive_ranges,
        "Ranges of the peak intensity of particle images; a pair draws one range, a particle an "
        "intensity in it.",
        "grey levels of 255",
        filler=(),
        example=[[100, 200]],
        group="particles",
    ),
    "intensity_var": Key(
        _at_least_0,
        "Variance of a particle's peak intensity from the first image to the second.",
        "grey levels^2",
        filler=0.0,
        example=0.0,
        group="particles",
    ),
    "rho_ranges": Key(
        rules.ranges("a list of (min, max) with -1 < min <= max < 1", lambda a, b: -1 < a <= b < 1),
        "Ranges of the correlation coefficient between x and y of the Gaussian particle image, "
        "which tilts elliptical images.",
        filler=(),
        example=[[-0.2, 0.2]],
        group="particles",
    ),
    "rho_var": Key(
        _at_least_0,
        "Variance of a particle's correlation coefficient from the first image to the second.",
        filler=0.0,
        example=0.0,
        group="particles",
    ),
    "ellipticity": Key(
        _at_least_0,
        "Largest difference between the diameters of a particle along x and y, both within its "
        "range; 0 for round particles.",
        "pixels",
        default=1.0,
        group="particles",
    ),
    "noise_uniform": Key(
        _at_least_0,
        "Largest grey level of uniform noise, from 0 up, added to each pixel.",
        "grey levels of 255",
        filler=0.0,
        example=0.0,
        group="camera",
    ),
    "noise_gaussian_mean": Key(
        _at_least_0,
        "Mean of the Gaussian noise of each pixel; images are clipped to 0 to 255 afterwards.",
        "grey levels of 255",
        filler=0.0,
        example=0.0,
        group="camera",
    ),
    "noise_gaussian_std": Key(
        _at_least_0,
        "Standard deviation of the Gaussian noise of each pixel; clipping at 0 halves it on a "
        "black background and raises the mean (5 becomes 2.9 with mean 2.0).",
        "grey levels of 255",
        filler=0.0,
        example=0.0,
        group="camera",
    ),
    "mask": Key(
        rules.path("the path of a .npy file"),
        "Image mask of 0 and 1 that every image is multiplied with.",
        default=None,
        group="camera",
    ),
    "histogram": Key(
        rules.path("the path of a .npy file"),
        "Counts of the 256 grey levels that every image is matched to.",
        default=None,
        group="camera",
    ),
}
