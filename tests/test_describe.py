"""`dataset.describe()` and `synthpix-torch check`: what a dataset holds, and what is suspicious."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from kinds import CAMERA, base
from ruamel.yaml import YAML

from synthpix_torch import PhysicsWarning, SynthPixDataset, camera
from synthpix_torch.cli import main
from synthpix_torch.config.reading import read_config
from synthpix_torch.describe import Report
from synthpix_torch.describe.describe import lost_share, used_share
from synthpix_torch.describe.measures import measure_diameter
from synthpix_torch.describe.suspicions import suspicions


@pytest.fixture(scope="module")
def dataset() -> SynthPixDataset:
    return SynthPixDataset(camera(**CAMERA))


@pytest.fixture(scope="module")
def report(dataset: SynthPixDataset) -> Report:
    return dataset.describe()


def test_a_report_states_what_the_configuration_says(report: Report) -> None:
    assert report.source == "kinematic"
    assert report.image_shape == (80, 96)
    assert report.image_area == pytest.approx((8.0, 9.6))
    assert report.grid_shape == (100, 116)
    assert report.grid_spacing == pytest.approx((1.0, 1.0))
    assert report.density == pytest.approx(0.006)
    assert report.particles_per_window == pytest.approx(0.006 * 32**2)
    assert report.lost_pairs == pytest.approx(0.2)
    assert report.diameter == pytest.approx((2.5, 2.5))
    assert (report.records, report.used_in_a_pass, report.used_ever) == (72, 1.0, 1.0)


def test_a_report_measures_batches_over_a_whole_pass(
    report: Report, dataset: SynthPixDataset
) -> None:
    batches = [dataset.batch_at(number) for number in range(3)]
    labels = np.concatenate([batch.flow_fields.numpy() for batch in batches])
    size = np.hypot(labels[:, 0], labels[:, 1])
    images = np.concatenate([batch.images.numpy() for batch in batches])
    assert report.flow_fields == 72
    assert report.displacement_median == pytest.approx(np.median(size))
    assert report.displacement_99 == pytest.approx(np.percentile(size, 99))
    assert report.displacement_largest == pytest.approx(size.max())
    assert report.displacement_x == pytest.approx((labels[:, 0].min(), labels[:, 0].max()))
    assert report.displacement_y == pytest.approx((labels[:, 1].min(), labels[:, 1].max()))
    assert report.mean_level == pytest.approx(images.mean(), rel=1e-5)
    assert report.saturated == pytest.approx(np.mean(np.rint(images) == 255), abs=1e-4)
    assert report.dark == pytest.approx(np.mean(np.rint(images) == 0), abs=1e-4)
    assert report.diameter_measured == pytest.approx(2.5, rel=0.05)
    assert report.batch_bytes > batches[0].images.nbytes + batches[0].flow_fields.nbytes


def test_describing_changes_neither_the_position_nor_the_next_batch(
    dataset: SynthPixDataset,
) -> None:
    state, batches = dataset.state_dict(), iter(dataset)
    first = next(batches)
    dataset.describe(window=16)
    second = next(batches)
    dataset.load_state_dict(state)
    again = iter(dataset)
    assert (next(again).images == first.images).all()
    assert (next(again).images == second.images).all()


def test_a_report_is_a_table_that_fits_a_screen(report: Report) -> None:
    text = str(replace(report, suspicious=()))
    assert max(map(len, text.splitlines())) <= 100
    assert "80 x 96 px (height x width) = 8 x 9.6 length units at 10 px per unit" in text
    assert "100 x 116 nodes, 1 x 1 px apart (0.1 x 0.1 length units)" in text
    assert "0.006 per px, 6.14 in a window of 32 x 32 px" in text
    assert "2.5 px (e^-2), measured 2." in text
    assert text.endswith("Nothing is suspicious.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"displacement_99": 8.1}, "larger than 8.1 px, a quarter of a window of 32 px is 8 px"),
        ({"particles_per_window": 5.2}, "holds 4.2 pairs of particles, fewer than 5"),
        ({"saturated": 0.3}, r"30% of the pixels are saturated \(255\)"),
        ({"dark": 0.99}, "99.0% of the pixels are dark"),
        ({"used_ever": 0.5, "records_per_flow_batch": 4}, "Only 50% of the 72 records are ever"),
        (
            {"source": ".npy", "folded_fields": 0.5, "folded_area": 0.01},
            "50% of the flow fields fold, on 1.00% of their area",
        ),
        ({"recorded": True, "brightest_level": 4095.0}, "Grey levels reach 4095, not 255"),
        ({"recorded": True, "diameter_measured": 1.3}, "have an e.-2 diameter of 1.3 px: below 2"),
    ],
)
def test_a_suspicious_measure_is_named_with_its_number(
    report: Report, changes: dict[str, Any], message: str
) -> None:
    ordinary = replace(report, density=0.03, particles_per_window=30.7)
    assert list(suspicions(ordinary)) == []
    (found,) = suspicions(replace(ordinary, **changes))
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found)
    assert "  - " + found in str(replace(report, suspicious=(found,)))


@pytest.mark.parametrize(
    ("changes", "in_a_pass", "ever"),
    [
        # 24 records, 8 to a flow batch.
        ({"flow_fields_per_batch": 2, "randomize": False}, 0.25, 0.25),
        ({"flow_fields_per_batch": 2, "randomize": True}, 0.25, 1.0),
        # Each pass begins elsewhere: the second flow batch ends with records 0 to 2 and so on.
        ({"flow_fields_per_batch": 2, "num_examples": 13, "randomize": False}, 4 / 13, 1.0),
        ({"flow_fields_per_batch": 2, "num_examples": 12, "randomize": False}, 4 / 12, 0.5),
        ({"flow_fields_per_batch": 2, "loop": False, "num_examples": 9}, 3 / 9, 3 / 9),
    ],
)
def test_records_that_are_never_used_are_counted(
    changes: dict[str, Any], in_a_pass: float, ever: float
) -> None:
    config = read_config(base(**{"num_examples": 24, "batch_size": 8, **changes}))
    assert used_share(config.num_examples, config, ever=False) == pytest.approx(in_a_pass)
    assert used_share(config.num_examples, config, ever=True) == pytest.approx(ever)


def test_lost_pairs_are_those_hidden_and_those_that_leave_the_light_sheet() -> None:
    sheet: dict[str, Any] = {"sheet_profile": "top-hat", "sheet_thickness": 2.0}
    sheet["out_of_plane_displacement"] = 0.5
    with SynthPixDataset(camera(**CAMERA, **sheet)) as dataset:
        assert lost_share(dataset.stream, 0) == pytest.approx(1 - 0.8 * 0.75)
    field = np.zeros((100, 116, 3), np.float32)
    # 0.01 s: half of the particles stay, half move by 0.5 more.
    field[:50, :, 2] = 50.0
    config = camera(**CAMERA, **sheet, max_speed_z=50.0, scheduler_class=None, p_hide_img1=0.0)
    with SynthPixDataset(config, source=[field]) as dataset:
        hidden = 2 * 0.8 / 1.8
        assert lost_share(dataset.stream, 0) == pytest.approx(1 - hidden * 0.625, abs=0.01)


@pytest.mark.parametrize("diameter", [1.5, 5.0])
def test_the_autocorrelation_gives_the_diameter_despite_noise_and_background(
    diameter: float,
) -> None:
    rng = np.random.default_rng(0)
    sigma = np.sqrt((diameter / 4) ** 2 + 1 / 12)
    images = rng.normal(20, 4, (8, 96, 96)) + np.linspace(0, 30, 96)
    grid = np.arange(96)
    for image in images:
        for y, x in rng.uniform(-5, 100, (300, 2)):
            down, right = (np.exp(-0.5 * ((grid - at) / sigma) ** 2) for at in (y, x))
            image += 100 * down[:, None] * right
    assert measure_diameter(images) == pytest.approx(diameter, rel=0.06)
    # Noise alone, blank images, and images that are too small.
    assert measure_diameter(rng.normal(20, 4, (4, 64, 64))) is None
    assert measure_diameter(np.full((4, 64, 64), 20.0)) is None
    assert measure_diameter(images[:, :16]) is None


def written(path: Path, config: dict[str, Any]) -> str:
    with path.open("w") as file:
        YAML().dump(json.loads(json.dumps(config)), file)
    return str(path)


def test_the_command_names_metres_per_second_in_a_field_of_millimetres(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        # 1.6 m/s is 1600 mm/s; w is dropped.
        np.save(tmp_path / f"flow_{number}.npy", np.full((40, 40, 3), 1.6, np.float32))
    config = camera(
        output_units="measure units per second",
        file_list=[str(tmp_path)],
        image_shape=(32, 32),
        max_displacement=8,
        resolution=10.0,
        dt=5e-4,
        batch_size=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", PhysicsWarning)
        assert main(["check", written(tmp_path / "a.yaml", config), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["displacement_99"] == pytest.approx(0.008 * np.sqrt(2))
    assert len(found["suspicious"]) == 2
    assert "displacements up to 0.008 px, less than PIV can measure" in found["suspicious"][1]
    assert "has 3 components: only the first two move particles" in found["suspicious"][0]


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for number in range(3):
        pair = rng.integers(0, 4096, (2, 24, 32), dtype=np.uint16)
        flow = np.full((24, 32, 2), 1.5, np.float32)
        scipy.io.savemat(tmp_path / f"{number}.mat", {"V": flow, "I0": pair[0], "I1": pair[1]})
    return {
        "scheduler_class": ".mat",
        "file_list": [str(tmp_path)],
        "include_images": True,
        "batch_size": 2,
    }


def test_the_command_describes_recorded_images(
    recorded: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", written(tmp_path / "a.yaml", recorded)]) == 1
    out = capsys.readouterr().out
    assert "2 recorded pairs a batch from .mat, on cpu" in out
    assert "images        24 x 32 px (height x width)\n" in out
    assert "1.5 to 1.5 px to the right" in out
    assert "e^-2 not measurable" in out
    assert "particles  " not in out
    assert "Grey levels reach 409" in out


def test_scaled_images_in_the_layout_of_synthpix_give_the_same_report(
    recorded: dict[str, Any], tmp_path: Path
) -> None:
    for path in tmp_path.glob("*.mat"):
        file = scipy.io.loadmat(path)
        pair = {name: (file[name] // 16).astype(np.uint8) for name in ("I0", "I1")}
        scipy.io.savemat(path, {"V": file["V"], **pair})
    one = SynthPixDataset(recorded).describe()
    other = SynthPixDataset(recorded, layout="synthpix", scale_images=True).describe()
    assert one.displacement_x == other.displacement_x == (1.5, 1.5)
    assert one.mean_level == pytest.approx(other.mean_level, rel=1e-5)
    assert one.brightest_level == pytest.approx(other.brightest_level, rel=1e-5)


def test_the_command_ends_with_0_if_nothing_is_suspicious_and_2_for_a_bad_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.yaml", camera(**CAMERA))
    assert main(["check", path, "--window", "48"]) == 0
    assert "Nothing is suspicious." in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["check", path, "--window", "0"])
    assert ended.value.code == 2
    assert "window must be at least 1" in capsys.readouterr().err
