"""The checked configuration: an attribute for each key."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from synthpix_torch.config.fingerprint import digest_array, short
from synthpix_torch.config.key import REQUIRED
from synthpix_torch.config.keys import KEYS

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration whose values have been checked, with the defaults filled in.

    The attributes are the keys of the table `synthpix_torch.config.keys.KEYS`, which has their
    meanings and units, and those below. `diameter_ranges` and `diameter_var` are of 2 sigma,
    whatever the `diameter_definition`.

    Attributes:
        given: The keys as they were given.
        mask_image: 1 where a pixel is kept and 0 where it is hidden; read from `mask`.
        histogram_counts: Number of pixels of each grey level; read from `histogram`.
        background_levels: Light of the background in grey levels; read from `background`.
        seeding_shares: Share of the seeding density of each pixel; read from `seeding_image`.
        body_pixels: True in the body; read from `body_mask`.
    """

    scheduler_class: str | None
    batch_size: int
    flow_fields_per_batch: int
    batches_per_flow_batch: int
    seed: int
    file_list: tuple[str, ...]
    randomize: bool
    loop: bool
    include_images: bool
    flow_variables: tuple[str, ...] | None
    image_variables: tuple[str, ...] | None
    episode_length: int
    num_threads: int
    buffer_size: int | None
    worker_count: int
    use_grain_scheduler: bool
    device_ids: tuple[int, ...]
    image_shape: tuple[int, int]
    img_offset: tuple[float, float]
    flow_field_size: tuple[float, float]
    resolution: float
    velocities_per_pixel: float
    dt: float
    output_units: Literal["pixels", "measure units per second"]
    max_speed_x: float
    max_speed_y: float
    min_speed_x: float
    min_speed_y: float
    crop: tuple[int, int] | None
    seeding_density_range: Range
    p_hide_img1: float
    p_hide_img2: float
    diameter_ranges: tuple[Range, ...]
    diameter_definition: Literal["2 sigma", "e^-2"]
    diameter_var: float
    intensity_ranges: tuple[Range, ...]
    intensity_var: float
    rho_ranges: tuple[Range, ...]
    rho_var: float
    ellipticity: float
    noise_uniform: float
    noise_gaussian_mean: float
    noise_gaussian_std: float
    mask: str | None
    histogram: str | None
    num_examples: int
    filter_sigma_range: Range
    scale_factor_range: Range
    scale_mode: Literal["peak", "linear"]
    displacement_range: Range
    gradient_range: Range
    angle_range: Range
    core_radius_range: Range
    wavelength_range: Range
    centre_range: Range
    sheet_profile: Literal["none", "top-hat", "gaussian"]
    sheet_thickness: float | None
    out_of_plane_displacement: float
    min_speed_z: float
    max_speed_z: float
    electrons_per_grey_level: float
    gain: float
    bit_depth: int
    background: str | None
    background_gradient: tuple[float, float]
    seeding_image: str | None
    body_mask: str | None

    given: Mapping[str, Any] = field(compare=False)
    mask_image: Int[np.ndarray, "h w"] | None = field(default=None, repr=False, compare=False)
    histogram_counts: Float[np.ndarray, "256"] | None = field(
        default=None, repr=False, compare=False
    )
    background_levels: Float[np.ndarray, "h w"] | None = field(
        default=None, repr=False, compare=False
    )
    seeding_shares: Float[np.ndarray, "h w"] | None = field(default=None, repr=False, compare=False)
    body_pixels: Bool[np.ndarray, "h w"] | None = field(default=None, repr=False, compare=False)

    @property
    def generated(self) -> bool:
        """True if flow fields come from a generator: names of file formats begin with a dot."""
        return self.scheduler_class is not None and not self.scheduler_class.startswith(".")

    @property
    def records_per_flow_batch(self) -> int:
        """Records of a flow batch: `flow_fields_per_batch`; `batch_size` for recorded images."""
        return self.batch_size if self.include_images else self.flow_fields_per_batch

    @property
    def repetitions(self) -> int:
        """Batches made from one flow batch: `batches_per_flow_batch`; 1 for recorded images."""
        return 1 if self.include_images else self.batches_per_flow_batch

    def as_json(self) -> dict[str, Any]:
        """Return the given keys as values of JSON, with absolute paths."""
        values = {name: getattr(self, name) for name in self.given}
        if "diameter_definition" in values:
            # The diameters have been converted.
            values["diameter_definition"] = "2 sigma"
        for name in ("mask", "histogram", "background", "seeding_image", "body_mask"):
            if values.get(name) is not None:
                values[name] = os.path.abspath(values[name])
        if "file_list" in values:
            values["file_list"] = [_absolute(path) for path in self.file_list]
        as_json: dict[str, Any] = json.loads(json.dumps(values))
        return as_json

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Return short values of all keys that define the stream, by group and key.

        Within a group the keys have the order of the table.
        """
        groups: dict[str, dict[str, str]] = {}
        for name, key in KEYS.items():
            if key.group is not None:
                groups.setdefault(key.group, {})[name] = self._short(name)
        return groups

    def neutral(self, name: str) -> str | None:
        """Return the fingerprint that a key has at its default; None if it must be given.

        Raises:
            KeyError: There is no such key.
        """
        key = KEYS[name]
        if self._unused(name):
            return short(None)
        default = key.default_for(include_images=self.include_images)
        return None if default is REQUIRED else short(default)

    def _short(self, name: str) -> str:
        if self._unused(name):
            return short(None)
        arrays = {
            "mask": self.mask_image,
            "histogram": self.histogram_counts,
            "background": self.background_levels,
            "seeding_image": self.seeding_shares,
            "body_mask": self.body_pixels,
        }
        return short(digest_array(arrays[name]) if name in arrays else getattr(self, name))

    def _unused(self, name: str) -> bool:
        """Tell whether this kind of pipeline does without the key."""
        key = KEYS[name]
        if key.group in ("kinematic", "analytic"):
            return not self.generated
        unused = self.include_images and key.filler is not REQUIRED
        return unused and self.given.get(name) is None


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)
