"""Reading a configuration from a YAML file or a mapping."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from synthpix_torch.checks import shown
from synthpix_torch.config.arrays import (
    read_background,
    read_body,
    read_histogram,
    read_mask,
    read_seeding,
)
from synthpix_torch.config.combinations import check_combinations, refuse_legacy
from synthpix_torch.config.config import Config
from synthpix_torch.config.effects import check_effects
from synthpix_torch.config.geometry import check_geometry
from synthpix_torch.config.key import REQUIRED
from synthpix_torch.config.keys import KEYS
from synthpix_torch.config.plausibility import odd_settings, warn
from synthpix_torch.config.sizes import check_sizes
from synthpix_torch.config.values import check_magnitude, plain
from synthpix_torch.config.yaml_file import read_yaml


def read_config(
    config: str | os.PathLike[str] | Mapping[str, Any], *, custom_source: bool = False
) -> Config:
    """Read and check a configuration.

    Args:
        config: Path of a YAML file, or a mapping with the keys of `KEYS`.
        custom_source: The flow fields come from a source of the user's own, so that
            `scheduler_class` and `file_list` must not be given.

    Returns:
        The checked configuration.

    Raises:
        TypeError: `config` is neither a path nor a mapping.
        FileNotFoundError: A file that the configuration names does not exist.
        ValueError: A key is missing, unknown or has a value that cannot be used.

    Warns:
        PhysicsWarning: A value is possible, but images would be physically odd.
    """
    found = config if isinstance(config, Mapping) else read_yaml(config)
    # A copy, so that the configuration stays what it is when the mapping changes.
    given = {name: plain(shown(name).strip("'"), value) for name, value in found.items()}
    refuse_legacy(given)
    _refuse_unknown(given)
    values = _convert(given, custom_source=custom_source)
    checked = Config(**values, given=given)
    check_combinations(checked, custom_source=custom_source)
    check_effects(checked)
    if checked.include_images:
        check_sizes(checked)
        return checked
    check_geometry(checked)
    check_sizes(checked)
    for message in odd_settings(checked):
        warn(message)
    return Config(
        **values,
        given=given,
        mask_image=read_mask(checked.mask, checked.image_shape),
        histogram_counts=read_histogram(checked.histogram, checked.image_shape),
        background_levels=read_background(checked.background, checked.image_shape),
        seeding_shares=read_seeding(checked.seeding_image, checked.image_shape),
        body_pixels=read_body(checked.body_mask, checked.image_shape),
    )


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in KEYS:
            near = difflib.get_close_matches(shown(name).strip("'"), KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            raise ValueError(f"The configuration has an unknown key {shown(name)}: {hint}")


def _convert(given: Mapping[str, Any], *, custom_source: bool) -> dict[str, Any]:
    """Return the converted value or the default of every key."""
    include_images = given.get("include_images") is True
    values: dict[str, Any] = {}
    missing = []
    for name, key in KEYS.items():
        value = given.get(name)
        if value is None:
            values[name] = key.default_for(include_images=include_images)
            if values[name] is REQUIRED:
                missing.append(name)
            continue
        values[name] = key.rule.convert(value)
        if values[name] is None:
            raise ValueError(f"{name} must be {key.rule.words}, not {shown(value)}.")
        check_magnitude(name, values[name])
    if custom_source and values["scheduler_class"] is REQUIRED:
        values["scheduler_class"] = None
        missing.remove("scheduler_class")
    if values["diameter_definition"] == "e^-2" and not missing:
        # Half the width and a quarter of the variance.
        values["diameter_ranges"] = tuple((a / 2, b / 2) for a, b in values["diameter_ranges"])
        values["diameter_var"] /= 4
    if missing:
        examples = (
            f"{name}: {KEYS[name].example}" + (f" ({KEYS[name].unit})" if KEYS[name].unit else "")
            for name in missing
        )
        raise ValueError(
            f"The configuration lacks {', '.join(missing)}: add for example {', '.join(examples)}."
        )
    return values
