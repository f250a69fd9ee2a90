"""Complete configurations from a few facts about the images."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Sequence
from typing import Any, Final

from synthpix_torch.config import rules
from synthpix_torch.config.keys import KEYS

_DARK_OFFSET: Final = 4.0
"""Standard deviations of noise that the dark level lies above 0, where noise would be clipped."""

_SMOOTHNESS: Final = 1.5
"""Standard deviations of a kinematic filter per largest displacement; such fields rarely fold."""

_NARROWEST_FILTER: Final = 5.0
"""Pixels, as the default of `filter_sigma_range`."""


class Configuration(dict[str, Any]):
    """A configuration whose `str()` is YAML, with the unit of each key."""

    def __str__(self) -> str:
        """Write the configuration as a YAML file."""
        lines = []
        for name, value in self.items():
            text, unit = f"{name}: {_as_yaml(value)}", KEYS[name].unit
            lines.append(f"{text:40}  # {unit}" if unit else text)
        return "\n".join([*lines, ""])


def camera(
    *,
    image_shape: tuple[int, int] = (256, 256),
    density: float | tuple[float, float] = 0.03,
    diameter: float | tuple[float, float] = 2.5,
    intensity: float | tuple[float, float] = (100.0, 200.0),
    max_displacement: float = 8.0,
    noise: float = 0.0,
    lost_pairs: float = 0.0,
    resolution: float = 1.0,
    dt: float = 1.0,
    file_list: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    batch_size: int = 8,
    **keys: Any,
) -> Configuration:
    """Make a complete configuration from what a PIV camera sees.

    Flow fields are kinematic, smooth enough that few fold, unless `file_list` or `scheduler_class`
    is given. They cover the image and a margin of the largest displacement and the largest
    particle, so that no particle is missing at the borders. `print` the result for its YAML.

    Args:
        image_shape: Height and width in pixels.
        density: Particles per pixel that each image shows, or their (min, max).
        diameter: e^-2 diameter of particle images in pixels, before the pixels integrate the light;
            or its (min, max).
        intensity: Peak of particle images in grey levels of 255, or its (min, max).
        max_displacement: Largest displacement in pixels. Kinematic fields have peaks from 0 to it,
            all equally frequent. Flow fields from files must not exceed it along either axis.
        noise: Standard deviation of the camera's noise in grey levels. The dark level is 4 standard
            deviations, so that the noise is not clipped at 0.
        lost_pairs: Share of the particles of each image that are missing in the other.
        resolution: Pixels per length unit of the flow fields.
        dt: Time between the images in seconds. With the default resolution and dt flow fields
            are displacements in pixels.
        file_list: Files or folders with flow fields, of format `scheduler_class` (default ".npy").
        batch_size: Image pairs in a batch, each with a flow field of its own.
        **keys: Keys of the configuration, which replace those that follow from the arguments above;
            None leaves a key out. `scheduler_class=None` is for a source of your own.

    Returns:
        A dict for `SynthPixDataset`.

    Raises:
        TypeError: There is no such argument or key.
        ValueError: A value is out of range.
    """
    height, width = _checked("image_shape", image_shape, KEYS["image_shape"].rule)
    densities = _range("density", density)
    diameters = _range("diameter", diameter)
    intensities = _range("intensity", intensity)
    largest: float = _checked("max_displacement", max_displacement, _AT_LEAST_0)
    noise = _checked("noise", noise, _AT_LEAST_0)
    lost = _checked("lost_pairs", lost_pairs, _SHARE)
    resolution = _checked("resolution", resolution, KEYS["resolution"].rule)
    dt = _checked("dt", dt, KEYS["dt"].rule)
    _refuse_unknown(keys)
    margin = math.ceil(largest + diameters[1] + 1)
    speed = largest / (resolution * dt)
    flows: dict[str, Any] = {"scheduler_class": "kinematic" if file_list is None else ".npy"}
    if file_list is not None:
        flows["file_list"] = file_list
    elif str(keys.get("scheduler_class", "kinematic")).startswith("kinematic"):
        narrowest = max(_NARROWEST_FILTER, _SMOOTHNESS * largest)
        widest = max(2 * narrowest, min(height, width) / 8)
        flows["filter_sigma_range"] = [narrowest, widest]
        flows["scale_factor_range"] = [0, largest]
    configuration = flows | {
        "batch_size": batch_size,
        "flow_fields_per_batch": batch_size,
        "batches_per_flow_batch": 1,
        "image_shape": [height, width],
        "flow_field_size": [(side + 2 * margin) / resolution for side in (height, width)],
        "img_offset": [margin / resolution] * 2,
        "resolution": resolution,
        "velocities_per_pixel": 1.0,
        "dt": dt,
        "output_units": "pixels",
        "max_speed_x": speed,
        "max_speed_y": speed,
        "min_speed_x": -speed,
        "min_speed_y": -speed,
        # Each image shows the share 1 - lost of the particles that are seeded.
        "seeding_density_range": [round(end / (1 - lost), 9) for end in densities],
        "p_hide_img1": lost,
        "p_hide_img2": lost,
        "diameter_definition": "e^-2",
        "diameter_ranges": [list(diameters)],
        "diameter_var": 0.0,
        "ellipticity": 0.0,
        "intensity_ranges": [list(intensities)],
        "intensity_var": 0.0,
        "rho_ranges": [[0.0, 0.0]],
        "rho_var": 0.0,
        "noise_uniform": 0.0,
        "noise_gaussian_mean": _DARK_OFFSET * noise,
        "noise_gaussian_std": noise,
    }
    configuration |= keys
    return Configuration({name: one for name, one in configuration.items() if one is not None})


_AT_LEAST_0: Final = rules.number("a number of at least 0", lambda v: v >= 0)
_SHARE: Final = rules.number("a share from 0 to below 1", lambda v: 0 <= v < 1)
_POSITIVE: Final = rules.number("", lambda v: v > 0)
_POSITIVE_RANGE: Final = rules.pair("", lambda a, b: 0 < a <= b)


def _checked(name: str, value: Any, rule: rules.Rule) -> Any:
    converted = rule.convert(value)
    if converted is None:
        raise ValueError(f"{name} must be {rule.words}, not {value!r}.")
    return converted


def _range(name: str, value: Any) -> tuple[float, float]:
    """Check a positive number or its range."""
    number = _POSITIVE.convert(value)
    ends = _POSITIVE_RANGE.convert(value) if number is None else (number, number)
    if ends is None:
        raise ValueError(
            f"{name} must be a positive number or (min, max) with 0 < min <= max, not {value!r}."
        )
    return float(ends[0]), float(ends[1])


def _refuse_unknown(keys: dict[str, Any]) -> None:
    for name in keys:
        if name not in KEYS:
            near = difflib.get_close_matches(name, [*(camera.__kwdefaults__ or ()), *KEYS], n=1)
            hint = f": did you mean {near[0]!r}?" if near else "; docs/configuration.md lists them."
            raise TypeError(f"camera has no argument {name!r}, nor has a configuration{hint}")


def _as_yaml(value: Any) -> str:
    """Write a value as JSON, which is YAML."""
    plain = value.tolist if hasattr(value, "tolist") else None
    return json.dumps(plain() if plain else value, default=os.fspath, ensure_ascii=False)
