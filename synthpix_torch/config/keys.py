"""What each key of a configuration must be, and its default."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

FILE_CLASSES = (".npy", ".h5", ".mat")
KINEMATIC = "kinematic"
KINEMATIC_ON_DEVICE = "kinematic-device"
GENERATED = (KINEMATIC, KINEMATIC_ON_DEVICE)
LEGACY_CLASSES = (
    "HDF5FlowFieldScheduler",
    "MATFlowFieldScheduler",
    "NumpyFlowFieldScheduler",
    "EpisodicFlowFieldScheduler",
    "PrefetchingFlowFieldScheduler",
)
OUTPUT_UNITS = ("pixels", "measure units per second")
SCALE_MODES = ("peak", "linear")

REQUIRED = object()
"""Marks a key without a default; of real images only `batch_size` is required."""


class Rule(NamedTuple):
    """What a key must be, in words; a conversion that gives None if it is not; its default."""

    words: str
    convert: Callable[[Any], Any]
    default: Any = REQUIRED


def _number(words: str, holds: Callable[[float], bool], default: Any = REQUIRED) -> Rule:
    def convert(value: Any) -> Any:
        return value if _is_number(value) and holds(value) else None

    return Rule(words, convert, default)


def _integer(words: str, holds: Callable[[int], bool], default: Any = REQUIRED) -> Rule:
    def convert(value: Any) -> Any:
        return value if _is_number(value) and isinstance(value, int) and holds(value) else None

    return Rule(words, convert, default)


def _choice(choices: tuple[str, ...], default: Any = REQUIRED) -> Rule:
    words = "one of " + ", ".join(repr(choice) for choice in choices)
    return Rule(words, lambda value: value if value in choices else None, default)


def _flag(default: bool) -> Rule:
    return Rule("true or false", lambda value: value if isinstance(value, bool) else None, default)


def _pair(
    words: str, holds: Callable[[Any, Any], bool], default: Any = REQUIRED, kind: type = object
) -> Rule:
    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            return None
        if not all(_is_number(part) and isinstance(part, kind) for part in value):
            return None
        return tuple(value) if holds(*value) else None

    return Rule(words, convert, default)


def _ranges(words: str, holds: Callable[[Any, Any], bool]) -> Rule:
    one = _pair("", holds)

    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            return None
        ranges = tuple(one.convert(part) for part in value)
        return None if None in ranges else ranges

    return Rule(words, convert)


def _paths(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        value = [value]
    if not isinstance(value, list | tuple):
        return None
    if not all(isinstance(path, str | os.PathLike) for path in value):
        return None
    return tuple(os.fspath(path) for path in value)


def _device_ids(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(i, int) and i >= 0 for i in value):
        return None
    return tuple(value)


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


_at_least_0 = "a number of at least 0"
_positive = "a positive number"
_probability = "a probability between 0 and 1"

RULES: dict[str, Rule] = {
    "scheduler_class": _choice((*FILE_CLASSES, *GENERATED)),
    "batch_size": _integer("a positive integer", lambda v: v > 0),
    "flow_fields_per_batch": _integer("a positive integer", lambda v: v > 0),
    "batches_per_flow_batch": _integer("a positive integer", lambda v: v > 0),
    "seed": _integer("an integer between 0 and 2**32 - 1", lambda v: 0 <= v < 2**32, 0),
    "file_list": Rule("a file, a folder or a list of them", _paths, ()),
    "randomize": _flag(False),
    "loop": _flag(True),
    "include_images": _flag(False),
    "episode_length": _integer("an integer of at least 0", lambda v: v >= 0, 0),
    "num_threads": _integer("an integer of at least 0", lambda v: v >= 0, 16),
    "buffer_size": _integer("an integer of at least 0", lambda v: v >= 0, None),
    "worker_count": _integer("an integer of at least 0", lambda v: v >= 0, 0),
    "use_grain_scheduler": _flag(True),
    "device_ids": Rule("a list of device numbers", _device_ids, ()),
    "mask": Rule("the path of a .npy file", _path, None),
    "histogram": Rule("the path of a .npy file", _path, None),
    "image_shape": _pair(
        "two positive integers (height, width) in pixels",
        lambda h, w: h > 0 and w > 0,
        kind=int,
    ),
    "img_offset": _pair("two numbers (y, x) of at least 0", lambda y, x: y >= 0 and x >= 0),
    "flow_field_size": _pair("two positive numbers (y, x)", lambda y, x: y > 0 and x > 0),
    "resolution": _number(_positive, lambda v: v > 0),
    "velocities_per_pixel": _number(_positive, lambda v: v > 0),
    "dt": _number(_positive, lambda v: v > 0),
    "output_units": _choice(OUTPUT_UNITS),
    "max_speed_x": _number("a number", lambda v: True),
    "max_speed_y": _number("a number", lambda v: True),
    "min_speed_x": _number("a number", lambda v: True),
    "min_speed_y": _number("a number", lambda v: True),
    "seeding_density_range": _pair("(min, max) with 0 <= min <= max", lambda a, b: 0 <= a <= b),
    "p_hide_img1": _number(_probability, lambda v: 0 <= v <= 1),
    "p_hide_img2": _number(_probability, lambda v: 0 <= v <= 1),
    "diameter_ranges": _ranges("a list of (min, max) with 0 < min <= max", lambda a, b: 0 < a <= b),
    "diameter_var": _number(_at_least_0, lambda v: v >= 0),
    "intensity_ranges": _ranges(
        "a list of (min, max) with 0 < min <= max", lambda a, b: 0 < a <= b
    ),
    "intensity_var": _number(_at_least_0, lambda v: v >= 0),
    "rho_ranges": _ranges(
        "a list of (min, max) with -1 < min <= max < 1", lambda a, b: -1 < a <= b < 1
    ),
    "rho_var": _number(_at_least_0, lambda v: v >= 0),
    "noise_uniform": _number(_at_least_0, lambda v: v >= 0),
    "noise_gaussian_mean": _number(_at_least_0, lambda v: v >= 0),
    "noise_gaussian_std": _number(_at_least_0, lambda v: v >= 0),
    "num_examples": _integer("a positive integer", lambda v: v > 0, 18278),
    "filter_sigma_range": _pair(
        "(min, max) with 0 <= min <= max", lambda a, b: 0 <= a <= b, (5.0, 100.0)
    ),
    "scale_factor_range": _pair(
        "(min, max) with 0 <= min <= max", lambda a, b: 0 <= a <= b, (0.0, 16.0)
    ),
    "scale_mode": _choice(SCALE_MODES, "peak"),
}

REAL_DEFAULTS: dict[str, Any] = {"image_shape": (256, 256)}
