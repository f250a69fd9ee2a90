"""The effects that a configuration switches on."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from synthpix_torch.config.config import Config
from synthpix_torch.render.effects.background import gradient
from synthpix_torch.render.effects.light_sheet import LightSheet
from synthpix_torch.render.effects.sensor import Sensor


class Effects(NamedTuple):
    """All effects; None where one is off.

    Attributes:
        sheet: The light sheet and the out-of-plane motion.
        sensor: Shot noise, gain and bit depth of the camera.
        background: Light in grey levels, in pixels of the image.
        density: Share of the seeding density, in pixels of the image.
        body: True in the body, in pixels of the image.
    """

    sheet: LightSheet | None = None
    sensor: Sensor | None = None
    background: Float[np.ndarray, "height width"] | None = None
    density: Float[np.ndarray, "height width"] | None = None
    body: Bool[np.ndarray, "height width"] | None = None

    @property
    def slab_thicknesses(self) -> float:
        """Seeded depth in thicknesses of the sheet, 1 without a sheet."""
        return 1.0 if self.sheet is None else self.sheet.slab_thicknesses


NO_EFFECTS: Final = Effects()


def plan_effects(config: Config, *, components: int) -> Effects:
    """Build the effects of a configuration.

    Args:
        config: The configuration.
        components: Components of the flow fields, 2 or 3.

    Raises:
        ValueError: Bounds of the third component are given, but there is none.
    """
    background = config.background_levels
    down, right = map(float, config.background_gradient)
    if down or right:
        rise = gradient(config.image_shape, (down, right))
        background = rise if background is None else background + rise
    sensor = Sensor(float(config.electrons_per_grey_level), float(config.gain), config.bit_depth)
    return Effects(
        sheet=_plan_sheet(config, components=components),
        sensor=None if sensor == Sensor() else sensor,
        background=background,
        density=config.seeding_shares,
        body=config.body_pixels,
    )


def _plan_sheet(config: Config, *, components: int) -> LightSheet | None:
    if config.sheet_profile == "none":
        return None
    assert config.sheet_thickness is not None
    if components < 3 and (config.min_speed_z or config.max_speed_z):
        raise ValueError(
            f"min_speed_z={config.min_speed_z} and max_speed_z={config.max_speed_z} bound the "
            "third component of flow fields, but these have two: leave both out, or use "
            "out_of_plane_displacement."
        )
    constant = float(config.out_of_plane_displacement)
    return LightSheet(
        profile=config.sheet_profile,
        thickness=float(config.sheet_thickness),
        displacement=constant,
        slowest=constant + config.min_speed_z * config.dt,
        fastest=constant + config.max_speed_z * config.dt,
    )
