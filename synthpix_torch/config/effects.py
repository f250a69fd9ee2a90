"""Checks of the keys of imaging effects."""

from __future__ import annotations

from synthpix_torch.config.config import Config
from synthpix_torch.config.keys import KEYS

_SHEET_KEYS = ("sheet_thickness", "out_of_plane_displacement", "min_speed_z", "max_speed_z")
_SENSOR_KEYS = ("electrons_per_grey_level", "gain", "bit_depth")


def active_effects(config: Config) -> list[str]:
    """Return the keys of effects that differ from their neutral defaults."""
    return [
        name
        for name, key in KEYS.items()
        if key.group == "effects" and getattr(config, name) != key.default
    ]


def check_effects(config: Config) -> None:
    """Raise if keys of effects do not fit each other or the kind of images.

    Raises:
        ValueError: The message names the keys and what to change.
    """
    active = active_effects(config)
    if config.include_images and active:
        raise ValueError(f"Real images are served as they are: leave out {', '.join(active)}.")
    without_sheet = [name for name in _SHEET_KEYS if name in active]
    if config.sheet_profile == "none" and without_sheet:
        raise ValueError(
            f"{', '.join(without_sheet)} need a light sheet: set sheet_profile to 'top-hat' or "
            "'gaussian', or leave them out."
        )
    if config.sheet_profile != "none" and config.sheet_thickness is None:
        raise ValueError(
            f"sheet_profile {config.sheet_profile!r} needs sheet_thickness, in length units."
        )
    if config.max_speed_z < config.min_speed_z:
        raise ValueError(
            f"max_speed_z={config.max_speed_z} must not be less than "
            f"min_speed_z={config.min_speed_z}."
        )
    sensor = [name for name in _SENSOR_KEYS if name in active]
    if config.histogram is not None and sensor:
        raise ValueError(
            f"histogram replaces the grey levels of the camera: leave out histogram or "
            f"{', '.join(sensor)}."
        )
