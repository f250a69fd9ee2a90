"""The checked configuration: synthpix's own keys, read once, wrong values named."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from synthpix_torch.config.keys import (
    FILE_CLASSES,
    GENERATED,
    KINEMATIC,
    LEGACY_CLASSES,
    REAL_DEFAULTS,
    REQUIRED,
    RULES,
)

FINGERPRINT: dict[str, tuple[str, ...]] = {
    "stream": (
        "scheduler_class",
        "batch_size",
        "flow_fields_per_batch",
        "batches_per_flow_batch",
        "seed",
        "randomize",
        "loop",
        "include_images",
        "episode_length",
    ),
    "geometry": (
        "image_shape",
        "img_offset",
        "flow_field_size",
        "resolution",
        "velocities_per_pixel",
        "dt",
        "output_units",
        "max_speed_x",
        "max_speed_y",
        "min_speed_x",
        "min_speed_y",
    ),
    "particles": (
        "seeding_density_range",
        "p_hide_img1",
        "p_hide_img2",
        "diameter_ranges",
        "diameter_var",
        "intensity_ranges",
        "intensity_var",
        "rho_ranges",
        "rho_var",
    ),
    "camera": (
        "noise_uniform",
        "noise_gaussian_mean",
        "noise_gaussian_std",
        "mask",
        "histogram",
    ),
    "kinematic": ("num_examples", "filter_sigma_range", "scale_factor_range", "scale_mode"),
}
"""The keys that define the stream, in the groups in which a state names them."""


@dataclass(frozen=True)
class Config:
    """A synthpix configuration whose values have been checked, with synthpix's defaults filled in.

    Attributes:
        given: The keys as they were given.
        values: Every key that this kind of pipeline knows, lists as tuples.
        mask: 1 where a pixel is kept and 0 where it is hidden, or None.
        histogram: Number of pixels of each grey level that images are matched to, or None.
    """

    given: Mapping[str, Any]
    values: Mapping[str, Any]
    mask: Int[np.ndarray, "h w"] | None = field(default=None, repr=False)
    histogram: Float[np.ndarray, "256"] | None = field(default=None, repr=False)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def include_images(self) -> bool:
        """Whether image pairs are read from files instead of rendered."""
        return bool(self["include_images"])

    @property
    def batch_size(self) -> int:
        """Image pairs in a batch."""
        return int(self["batch_size"])

    @property
    def flow_fields(self) -> int:
        """Flow fields in a flow batch: `flow_fields_per_batch`, all of them for real images."""
        return self.batch_size if self.include_images else int(self["flow_fields_per_batch"])

    @property
    def repetitions(self) -> int:
        """Batches rendered from one flow batch: `batches_per_flow_batch`, 1 for real images."""
        return 1 if self.include_images else int(self["batches_per_flow_batch"])

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return (self["image_shape"][0], self["image_shape"][1])

    def as_json(self) -> dict[str, Any]:
        """The keys as they were given, as values of JSON and with absolute paths."""
        values = {key: _unwrapped(value) for key, value in self.given.items()}
        for key in ("mask", "histogram"):
            if values.get(key) is not None:
                values[key] = os.path.abspath(values[key])
        if "file_list" in values:
            values["file_list"] = [_absolute(path) for path in self["file_list"]]
        return values

    @staticmethod
    def neutral() -> dict[str, str]:
        """Short values of the defaults, which a fingerprint need not list."""
        return {
            key: short(rule.default) for key, rule in RULES.items() if rule.default is not REQUIRED
        }

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Short values of all keys that define the stream, by group and key."""
        values = {
            **self.values,
            "mask": digest_array(self.mask),
            "histogram": digest_array(self.histogram),
        }
        if values.get("scheduler_class") not in GENERATED:
            values |= dict.fromkeys(FINGERPRINT["kinematic"])
        return {
            group: {key: short(values.get(key)) for key in keys}
            for group, keys in FINGERPRINT.items()
        }


def short(value: Any) -> str:
    """A value as a string of at most 20 characters, by digest if it is longer.

    Numbers that are equal give the same string, whether they are integers or not.
    """
    text = json.dumps(_plain(value), separators=(",", ":")).replace('"', "")
    if len(text) > 20 or "|" in text:
        return "#" + hashlib.sha256(text.encode()).hexdigest()[:10]
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def digest_array(array: np.ndarray | None) -> str | None:
    """Digest of an array's contents, dtype and shape; None for None."""
    if array is None:
        return None
    header = f"{array.dtype.str}{array.shape}".encode()
    return "#" + hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()[:10]


def read_config(
    config: str | os.PathLike[str] | Mapping[str, Any], *, custom_source: bool = False
) -> Config:
    """Read and check a synthpix configuration.

    Args:
        config: Path of a YAML file, or a mapping with synthpix's keys.
        custom_source: The flow fields come from a source of the user's own, so that
            `scheduler_class` and `file_list` have no place.

    Returns:
        The checked configuration.

    Raises:
        TypeError: `config` is neither a path nor a mapping.
        FileNotFoundError: A file that the configuration names does not exist.
        ValueError: A key is missing, unknown or has a value that cannot be used.
    """
    # A copy, so that the configuration stays what it is when the mapping changes.
    raw = copy.deepcopy(dict(config)) if isinstance(config, Mapping) else _read_yaml(config)
    _refuse_legacy(raw)
    for key in raw:
        if key not in RULES:
            near = difflib.get_close_matches(str(key), RULES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it."
            raise ValueError(f"The configuration has an unknown key {key!r}: {hint}")
    values = _checked_values(raw, custom_source=custom_source)
    _check_combinations(values, custom_source=custom_source)
    if values["include_images"]:
        return Config(raw, values)
    _check_geometry(values)
    return Config(raw, values, _read_mask(values), _read_histogram(values))


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


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


def _refuse_legacy(raw: Mapping[str, Any]) -> None:
    if raw.get("use_grain_scheduler") is False or raw.get("scheduler_class") in LEGACY_CLASSES:
        raise ValueError(
            "The configuration asks for synthpix's legacy scheduler, whose order has no exact "
            f"resume. Use scheduler_class {', '.join(FILE_CLASSES)} or {KINEMATIC}, "
            "and leave out use_grain_scheduler."
        )


def _unwrapped(value: Any) -> Any:
    """A value with numbers and arrays of NumPy, and sequences of others, as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_unwrapped(part) for part in value]
    return value


def _checked_values(raw: Mapping[str, Any], *, custom_source: bool) -> dict[str, Any]:
    raw = {key: _unwrapped(value) for key, value in raw.items()}
    real = raw.get("include_images") is True
    values: dict[str, Any] = {}
    missing = []
    for key, rule in RULES.items():
        value = raw.get(key)
        if value is None:
            default = REAL_DEFAULTS.get(key, rule.default) if real else rule.default
            if default is not REQUIRED:
                values[key] = default
            elif not real or key in ("batch_size", "scheduler_class"):
                missing.append(key)
            continue
        values[key] = rule.convert(value)
        if values[key] is None:
            raise ValueError(f"{key} must be {rule.words}, not {value!r}.")
    if custom_source and "scheduler_class" in missing:
        missing.remove("scheduler_class")
    if missing:
        raise ValueError(f"The configuration lacks {', '.join(missing)}: add it with a value.")
    return values


def _check_combinations(values: Mapping[str, Any], *, custom_source: bool) -> None:
    scheduler = values.get("scheduler_class")
    if custom_source and (scheduler is not None or values["file_list"]):
        raise ValueError(
            "Flow fields come from `source` or from files, not from both: leave out "
            "scheduler_class and file_list, or `source`."
        )
    if values["worker_count"] > 0:
        raise ValueError(
            f"worker_count={values['worker_count']} would reorder the stream: use worker_count: 0, "
            "num_threads reads in parallel and keeps the order."
        )
    if len(values["device_ids"]) > 1:
        raise ValueError(
            f"device_ids names {len(values['device_ids'])} devices, one process uses one: start "
            "one process per GPU (torchrun), each with its own device."
        )
    if scheduler in FILE_CLASSES and not values["file_list"]:
        raise ValueError(
            f"scheduler_class {scheduler!r} needs file_list, a list of files or folders."
        )
    if values["include_images"] and scheduler != ".mat":
        raise ValueError(
            "Only scheduler_class '.mat' holds real images: set it, or include_images: false."
        )
    if values["include_images"]:
        for key in ("mask", "histogram"):
            if values[key] is not None:
                raise ValueError(f"Real images are served as they are: leave out {key}.")
    if values["episode_length"] > 0:
        _check_episodes(values, custom_source=custom_source)
    if not values["include_images"] and values["flow_fields_per_batch"] > values["batch_size"]:
        raise ValueError(
            f"flow_fields_per_batch={values['flow_fields_per_batch']} must not be larger than "
            f"batch_size={values['batch_size']}."
        )


def _check_episodes(values: Mapping[str, Any], *, custom_source: bool) -> None:
    if custom_source or values["scheduler_class"] in GENERATED:
        raise ValueError(
            "Episodes are made of files in time order: set episode_length: 0, "
            "or a scheduler_class that reads files."
        )
    if values["randomize"]:
        raise ValueError(
            "randomize: true would destroy the time order within episodes: set randomize: false, "
            "the order of the episodes is shuffled by `seed` anyway."
        )
    if not values["include_images"] and values["batches_per_flow_batch"] != 1:
        raise ValueError(
            f"batches_per_flow_batch={values['batches_per_flow_batch']} would repeat the steps of "
            "an episode: set batches_per_flow_batch: 1."
        )


def _check_geometry(values: Mapping[str, Any]) -> None:
    """Refuse images that particles could enter from outside the flow field.

    The same arithmetic as synthpix's sampler, in its order of operations, so that both refuse the
    same configurations.
    """
    for axis, name in ((0, "y"), (1, "x")):
        fastest, slowest = values[f"max_speed_{name}"], values[f"min_speed_{name}"]
        if fastest < slowest:
            raise ValueError(
                f"max_speed_{name}={fastest} must not be less than min_speed_{name}={slowest}."
            )
        fastest, slowest = max(0.0, fastest), min(0.0, slowest)
        dt, offset = values["dt"], values["img_offset"][axis]
        before = offset - fastest * dt
        if before < 0:
            raise ValueError(
                f"The image lies outside the flow field: img_offset along {name} is {offset}, but "
                f"must be at least max_speed_{name} * dt = {fastest * dt}."
            )
        length = values["image_shape"][axis] / values["resolution"] + fastest * dt - slowest * dt
        if length + before > values["flow_field_size"][axis]:
            raise ValueError(
                f"The image lies outside the flow field: flow_field_size along {name} is "
                f"{values['flow_field_size'][axis]}, but must be at least {length + before}."
            )
        if int(values["image_shape"][axis] * values["velocities_per_pixel"]) < 1:
            raise ValueError(
                f"velocities_per_pixel={values['velocities_per_pixel']} leaves no label along "
                f"{name}: raise it."
            )


def _read_array(key: str, path: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The {key} file {path!r} does not exist.")
    try:
        array = np.load(path)
    except (ValueError, EOFError) as error:
        raise ValueError(f"The {key} file {path!r} is not a .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"The {key} file {path!r} must hold one array.")
    return array


def _read_mask(values: Mapping[str, Any]) -> np.ndarray | None:
    if values["mask"] is None:
        return None
    mask = _read_array("mask", values["mask"])
    if mask.shape != values["image_shape"] or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"The mask {values['mask']!r} must hold only 0 and 1 in the image_shape "
            f"{values['image_shape']}; its shape is {mask.shape}."
        )
    return mask


def _read_histogram(values: Mapping[str, Any]) -> np.ndarray | None:
    if values["histogram"] is None:
        return None
    histogram = _read_array("histogram", values["histogram"])
    pixels = math.prod(values["image_shape"])
    counts = histogram.shape == (256,) and (histogram >= 0).all()
    if not counts or not np.isclose(histogram.sum(), pixels):
        raise ValueError(
            f"The histogram {values['histogram']!r} must hold 256 counts that sum to the {pixels} "
            f"pixels of an image; its shape is {histogram.shape} and its sum {histogram.sum()}."
        )
    return histogram
