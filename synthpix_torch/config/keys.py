"""The table of all keys of a configuration.

Everything that is known about a key is in its row: checks, defaults, error messages and the
fingerprint read this table. A new key is one row here and one attribute of `Config`. Within its
group a new row goes below the old ones, because states of version 0.1.0 list values by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from synthpix_torch.config import rules
from synthpix_torch.config.rules import Rule

REQUIRED: Final = object()
"""The default of a key that must be given."""


@dataclass(frozen=True)
class Key:
    """One row of the table.

    Attributes:
        rule: What the value must be.
        meaning: What the key means, in one sentence.
        unit: Unit of the value; "" if it has none.
        default: Value of a key that is not given, or REQUIRED.
        recorded: The default with recorded image pairs, if it is another one.
        filler: Stands in for the value with recorded image pairs, which do without this key.
        example: A value to show to users, for keys without a default.
        group: Group of the fingerprint; None for keys that do not change the stream.
    """

    rule: Rule
    meaning: str
    unit: str = ""
    default: Any = REQUIRED
    recorded: Any = REQUIRED
    filler: Any = REQUIRED
    example: Any = None
    group: str | None = None

    def default_for(self, *, include_images: bool) -> Any:
        """Return the default for rendered or for recorded image pairs."""
        choices = (self.recorded, self.filler) if include_images else ()
        return next((value for value in choices if value is not REQUIRED), self.default)


_LENGTH = "length unit, for example mm"
_SPEED = "length units per second"
_at_least_0 = rules.number("a number of at least 0", lambda v: v >= 0)
_any_number = rules.number("a number", lambda v: True)
_positive = rules.number("a positive number", lambda v: v > 0)
_probability = rules.number("a probability between 0 and 1", lambda v: 0 <= v <= 1)
_positive_integer = rules.integer("a positive integer", lambda v: v > 0)
_count = rules.integer("an integer of at least 0", lambda v: v >= 0)
_range_from_0 = rules.pair("(min, max) with 0 <= min <= max", lambda a, b: 0 <= a <= b)
_positive_ranges = rules.ranges("a list of (min, max) with 0 < min <= max", lambda a, b: 0 < a <= b)

KEYS: Final[dict[str, Key]] = {
    "scheduler_class": Key(
        rules.text("a file format such as '.npy', or a generator such as 'kinematic'"),
        "Where flow fields come from: files of a format, or a generator.",
        example=".npy",
        group="stream",
    ),
    "batch_size": Key(
        _positive_integer,
        "Image pairs in a batch.",
        "pairs",
        example=8,
        group="stream",
    ),
    "flow_fields_per_batch": Key(
        _positive_integer,
        "Flow fields that a batch is rendered from; pair i moves with field i modulo this number.",
        "flow fields",
        filler=1,
        example=4,
        group="stream",
    ),
    "batches_per_flow_batch": Key(
        _positive_integer,
        "Consecutive batches that are rendered from the same flow fields with new particles.",
        "batches",
        filler=1,
        example=1,
        group="stream",
    ),
    "seed": Key(
        rules.integer("an integer between 0 and 2**32 - 1", lambda v: 0 <= v < 2**32),
        "Seed of the order of the records, of generated flow fields and of the particles.",
        default=0,
        group="stream",
    ),
    "file_list": Key(
        rules.paths(),
        "Files or folders with flow fields.",
        default=(),
    ),
    "randomize": Key(
        rules.flag(),
        "Whether each pass over the records has an order of its own.",
        default=False,
        group="stream",
    ),
    "loop": Key(
        rules.flag(),
        "Whether the records are used again and again, so that the stream never ends.",
        default=True,
        group="stream",
    ),
    "include_images": Key(
        rules.flag(),
        "Whether recorded image pairs are read from the files instead of rendered.",
        default=False,
        group="stream",
    ),
    "episode_length": Key(
        _count,
        "Files in time order that make an episode; 0 for no episodes.",
        "batches",
        default=0,
        group="stream",
    ),
    "num_threads": Key(
        _count,
        "Threads that prefetch records.",
        "threads",
        default=16,
    ),
    "buffer_size": Key(
        _count,
        "Records that are prefetched at most; by default those of two flow batches.",
        "records",
        default=None,
    ),
    "worker_count": Key(
        _count,
        "Must be 0: worker processes would reorder the stream.",
        "processes",
        default=0,
    ),
    "use_grain_scheduler": Key(
        rules.flag(),
        "Must be true: synthpix's legacy schedulers have no exact resume.",
        default=True,
    ),
    "device_ids": Key(
        rules.device_numbers(),
        "The number of the GPU to use, as a list of one; empty for the one that torch uses.",
        default=(),
    ),
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
        "in it. The diameter is 2 sigma of the Gaussian image, half its e^-2 width.",
        "pixels",
        filler=(),
        example=[[1.5, 2.5]],
        group="particles",
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
    "num_examples": Key(
        _positive_integer,
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
        rules.path("the path of a .npy file"),
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
        rules.path("the path of a .npy file"),
        "Image of the share of the seeding density in each pixel of the first image, from 0 to 1.",
        default=None,
        group="effects",
    ),
    "body_mask": Key(
        rules.path("the path of a .npy file"),
        "Image with 1 in a body in the flow, which holds no particles and no labels, and 0 in the "
        "fluid.",
        default=None,
        group="effects",
    ),
}
