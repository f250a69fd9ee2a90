"""Keys of imaging effects: neutral by default, and refused where they cannot be meant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import base

from synthpix_torch.config.reading import read_config
from synthpix_torch.data.plausibility import remarks_on_flow_field
from synthpix_torch.render.effects.light_sheet import LightSheet
from synthpix_torch.render.effects.plan import NO_EFFECTS, plan_effects
from synthpix_torch.render.effects.sensor import Sensor

SHEET = {"sheet_profile": "gaussian", "sheet_thickness": 2.0}


def test_effects_are_off_by_default() -> None:
    assert plan_effects(read_config(base()), components=3) == NO_EFFECTS


def test_a_light_sheet_reaches_as_far_as_particles_move_in_dt() -> None:
    config = read_config(
        base(**SHEET, dt=0.5, min_speed_z=-1, max_speed_z=3, out_of_plane_displacement=0.25)
    )
    sheet = plan_effects(config, components=3).sheet
    assert sheet == LightSheet("gaussian", 2.0, 0.25, slowest=-0.25, fastest=1.75)


def test_a_camera_is_built_of_its_keys() -> None:
    config = read_config(base(electrons_per_grey_level=40, gain=2.0, bit_depth=12))
    assert plan_effects(config, components=2).sensor == Sensor(40, 2.0, 12)


def test_background_image_and_gradient_add(tmp_path: Path) -> None:
    np.save(tmp_path / "light.npy", np.full((16, 16), 7, np.uint8))
    config = read_config(
        base(background=str(tmp_path / "light.npy"), background_gradient=(0, -15.0))
    )
    background = plan_effects(config, components=2).background
    assert background is not None
    np.testing.assert_allclose(background[3], 22.0 - np.arange(16))


def test_an_effect_changes_the_fingerprint_by_its_value_only() -> None:
    plain = read_config(base()).fingerprint()["effects"]
    changed = read_config(base(bit_depth=12)).fingerprint()["effects"]
    assert {key for key in plain if plain[key] != changed[key]} == {"bit_depth"}


def test_the_fingerprint_holds_the_contents_of_images(tmp_path: Path) -> None:
    values = []
    for share in (0.0, 1.0):
        np.save(tmp_path / "image.npy", np.full((16, 16), share))
        config = read_config(base(seeding_image=str(tmp_path / "image.npy")))
        values.append(config.fingerprint()["effects"]["seeding_image"])
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sheet_profile": "gaussian"}, "'gaussian' needs sheet_thickness"),
        ({"sheet_thickness": 1.0}, "sheet_thickness need a light sheet: set sheet_profile"),
        ({"max_speed_z": 1.0}, "max_speed_z need a light sheet"),
        ({"out_of_plane_displacement": 0.1}, "out_of_plane_displacement need a light sheet"),
        ({**SHEET, "min_speed_z": 1.0}, "max_speed_z=0.0 must not be less than min_speed_z=1.0"),
        ({**SHEET, "sheet_thickness": 0}, "sheet_thickness must be a positive number, not 0"),
        ({"sheet_profile": "square"}, "sheet_profile must be one of 'none', 'top-hat'"),
        ({"bit_depth": 9}, "bit_depth must be 0, 8, 10, 12, 14 or 16, not 9"),
        ({"gain": 0}, "gain must be a positive number"),
        ({"electrons_per_grey_level": -1}, "electrons_per_grey_level must be a number of at least"),
    ],
)
def test_senseless_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(base(**changes))


def test_a_histogram_excludes_the_camera(data: Path) -> None:
    with pytest.raises(ValueError, match="leave out histogram or gain, bit_depth"):
        read_config(base(histogram=str(data / "histogram.npy"), bit_depth=8, gain=2.0))


def test_recorded_images_take_no_effects(data: Path) -> None:
    real = {"scheduler_class": ".mat", "include_images": True, "batch_size": 4}
    with pytest.raises(ValueError, match="Real images are served as they are: leave out bit_depth"):
        read_config({**real, "file_list": [str(data / "real")], "bit_depth": 8})


def test_bounds_of_w_need_a_third_component() -> None:
    config = read_config(base(**SHEET, max_speed_z=1.0))
    with pytest.raises(ValueError, match="third component of flow fields, but these have two"):
        plan_effects(config, components=2)


@pytest.mark.parametrize(
    ("key", "image", "message"),
    [
        ("background", np.full((16, 16), -1.0), "background .* must hold grey levels"),
        ("background", np.full((16, 16), np.nan), "background .* must hold grey levels"),
        ("background", np.zeros((8, 16)), "in the image_shape \\(16, 16\\); its shape is \\(8, 16"),
        ("background", np.zeros((16, 16), complex), "not of complex128"),
        ("seeding_image", np.full((16, 16), 1.1), "seeding_image .* must hold values from 0 to 1"),
        ("body_mask", np.full((16, 16), 2), "body_mask .* must hold 1 in the body"),
        ("body_mask", np.ones((16, 16)), "body_mask .* and 0 in the fluid"),
        ("body_mask", np.zeros((16, 15)), "its shape is \\(16, 15\\)"),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    key: str, image: np.ndarray, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image)
    with pytest.raises(ValueError, match=message):
        read_config(base(**{key: str(tmp_path / "image.npy")}))


@pytest.mark.parametrize("key", ["background", "seeding_image", "body_mask"])
def test_missing_images_are_named(key: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"The {key} file 'no.npy' does not exist"):
        read_config(base(**{key: "no.npy"}))


def remarks(w: float, **changes: Any) -> list[str]:
    field = np.zeros((4, 4, 3), np.float32)
    field[2, 2] = 0.5, 0.5, w
    config = read_config(base(**changes))
    return [remark.message for remark in remarks_on_flow_field(config, field, where="Record 3")]


@pytest.mark.parametrize(("w", "needed"), [(1.5, "max_speed_z=1 1.5"), (-3.0, "must reach -3")])
def test_a_record_that_leaves_the_bounds_of_w_is_named_with_the_number(
    w: float, needed: str
) -> None:
    bounds = {**SHEET, "min_speed_z": -2.0, "max_speed_z": 1.0}
    (message,) = remarks(w, **bounds)
    assert message.startswith("Record 3 leaves the bounds of w by up to")
    assert needed in message
    assert not remarks(w / 3, **bounds)


def test_a_third_component_without_a_light_sheet_is_remarked_on() -> None:
    (message,) = remarks(1.0)
    assert "the third needs a light sheet (sheet_profile)" in message
