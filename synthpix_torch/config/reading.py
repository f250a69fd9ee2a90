"""Reading a configuration from a YAML file or a mapping."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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
    # A copy, so that the configuration stays what it is when the mapping changes.
    given = copy.deepcopy(dict(config)) if isinstance(config, Mapping) else _read_yaml(config)
    refuse_legacy(given)
    _refuse_unknown(given)
    values = _convert(given, custom_source=custom_source)
    checked = Config(**values, given=given)
    check_combinations(checked, custom_source=custom_source)
    check_effects(checked)
    if checked.include_images:
        return checked
    check_geometry(checked)
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


def _read_yaml(path: Any) -> dict[str, Any]:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"The configuration must be the path of a YAML file or a mapping, "
            f"not {type(path).__name__}."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The configuration file {os.fspath(path)!r} does not exist.")
    try:
        # The parser that synthpix uses, so that one file means the same to both.
        data = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a YAML file: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{os.fspath(path)!r} must hold keys and values, but holds {type(data).__name__}."
        )
    return data


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in KEYS:
            near = difflib.get_close_matches(str(name), KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            raise ValueError(f"The configuration has an unknown key {name!r}: {hint}")


def _convert(given: Mapping[str, Any], *, custom_source: bool) -> dict[str, Any]:
    """Return the converted value or the default of every key."""
    include_images = given.get("include_images") is True
    values: dict[str, Any] = {}
    missing = []
    for name, key in KEYS.items():
        value = _unwrap(given.get(name))
        if value is None:
            values[name] = key.default_for(include_images=include_images)
            if values[name] is REQUIRED:
                missing.append(name)
            continue
        values[name] = key.rule.convert(value)
        if values[name] is None:
            raise ValueError(f"{name} must be {key.rule.words}, not {value!r}.")
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


def _unwrap(value: Any) -> Any:
    """Convert NumPy's numbers and arrays, and other sequences, to Python's numbers and lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_unwrap(part) for part in value]
    return value
