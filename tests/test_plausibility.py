"""Odd settings and records give one warning each, with the number, in the thread of the user."""

import json
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from kinds import EXAMPLES, KINDS, base, fields, write_mat, write_npy

from synthpix_torch import PhysicsWarning, SynthPixDataset
from synthpix_torch.config.reading import read_config

ODD_KINDS = {"units, resolution and offsets", "particles larger than the margin"}


def files(folder: Path, **changes: Any) -> dict[str, Any]:
    changes = {"scheduler_class": ".npy", "file_list": [str(folder)], "randomize": False, **changes}
    return base(batch_size=1, flow_fields_per_batch=1, **changes)


def caught(config: dict[str, Any], *, batches: int = 0, **arguments: Any) -> list[str]:
    """The warnings while a dataset is built and makes its first batches."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", PhysicsWarning)
        with SynthPixDataset(config, **arguments) as dataset:
            for _, _ in zip(range(batches), dataset, strict=False):
                pass
    return [str(one.message) for one in found]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - ODD_KINDS))
def test_ordinary_configurations_give_no_warning(kind: str, data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SynthPixDataset(KINDS[kind](data)).close()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_give_no_warning(path: Path) -> None:
    read_config(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diameter_ranges": [(0.5, 1.0)]}, r"begin at 0\.5 px \(2 sigma\): below 1 px"),
        ({"diameter_ranges": [(2.0, 9.0)]}, r"reach 9 px \(2 sigma\).*set diameter_definition"),
        ({"diameter_var": 400.0}, r"diameter_var=400 is a standard deviation of 20 px"),
        ({"rho_var": 4.0}, "rho_var=4 scatters a correlation coefficient"),
        ({"seeding_density_range": (0.4, 0.5)}, r"reaches 0\.5 particles per pixel"),
        ({"seeding_density_range": (0.0, 0.0)}, "reaches 0 particles per pixel, 0 particles an im"),
        ({"seeding_density_range": (0.0, 1e-3)}, r"0\.256 particles an image"),
        ({"p_hide_img2": 1.0}, "p_hide_img2=1 hides more than half"),
        ({"intensity_ranges": [(2000, 4095)]}, r"intensity_ranges reach 4095.*Divide .* by 16"),
        ({"intensity_ranges": [(0.5, 1.0)], "intensity_var": 0.0}, "end at 1 of 255.*by 255"),
        ({"intensity_var": 1e6}, "intensity_var=1e.06 is a standard deviation of 1000 grey"),
        ({"noise_gaussian_mean": 255.0}, "Images have a mean of .* of 255 grey levels"),
        ({"noise_uniform": 255.0}, "Images have a mean of .*127.5 from noise"),
        (
            {"seeding_density_range": (0.2, 0.2), "diameter_ranges": [(3.0, 3.0)]},
            r"Images have a mean of 425\.1 of 255",
        ),
        ({"noise_gaussian_std": 120.0}, "Noise has a standard deviation of 120 grey levels"),
        ({"dt": 1e-3}, r"displacements up to 0\.002 px .*less than PIV can measure"),
        ({"max_speed_x": 9.0, "img_offset": (9.0, 9.0), "flow_field_size": (40.0, 40.0)}, "9 px"),
        ({"flow_field_size": (1000.0, 1000.0)}, r"16 length units of the 1000 .*, 1\.6 %"),
        ({"velocities_per_pixel": 8.0}, "velocities_per_pixel=8 makes labels of 8 times"),
    ],
)
def test_an_odd_setting_is_named_with_its_number(changes: dict[str, Any], message: str) -> None:
    assert any(re.search(message, one) for one in caught(base(**changes)))


def test_a_warning_points_at_the_line_of_the_user() -> None:
    with pytest.warns(PhysicsWarning) as found:
        SynthPixDataset(base(diameter_ranges=[(0.9, 1.0)])).close()
    assert [one.filename for one in found] == [__file__]


def test_the_warning_filter_makes_it_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PhysicsWarning)
        with pytest.raises(PhysicsWarning, match=r"begin at 0\.9 px"):
            SynthPixDataset(base(diameter_ranges=[(0.9, 1.0)]))


@pytest.mark.parametrize("kind", ["kinematic", "kinematic-device"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scale_factor_range": (0.0, 5.0)},
            r"up to 3 px: min_speed_x=-2 must reach -5, ",
        ),
        ({"max_speed_y": 0.5}, r"up to 1\.5 px: max_speed_y=0\.5 must reach 2\. Particles will"),
        # 2 px at 2 px a length unit and 0.5 s are 2 length units a second.
        ({"resolution": 2.0, "dt": 0.5, "max_speed_x": 1.0}, "max_speed_x=1 must reach 2"),
        # 5 standard deviations of 100 * 0.163 / sigma.
        ({"scale_mode": "linear", "scale_factor_range": (0.0, 100.0)}, r"must reach -40\.7"),
        ({"scale_factor_range": (0.0, 0.01)}, r"displacements up to 0\.01 px, less than PIV"),
    ],
)
def test_generated_fields_are_compared_at_construction(
    kind: str, changes: dict[str, Any], message: str
) -> None:
    config = base(scheduler_class=kind, **changes)
    assert any(re.search(message, one) for one in caught(config))


def test_the_scale_of_synthpix_is_a_velocity() -> None:
    config = base(resolution=2.0, dt=0.25, flow_field_size=(16.0, 16.0))
    assert caught(config, renderer="synthpix") == []
    assert "max_speed_x=2 must reach 4" in caught(config)[0]


def test_the_first_record_beyond_the_bounds_is_named_once_in_the_thread_of_the_user(
    tmp_path: Path,
) -> None:
    folder = write_npy(tmp_path, 6)
    for number in (3, 4):
        np.save(folder / f"flow_{number}.npy", fields(6)[number] * 2)
    dataset = SynthPixDataset(files(folder, num_threads=2, buffer_size=4))
    me, threads = threading.get_ident(), []
    show = warnings.showwarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", PhysicsWarning)
        messages = []

        def record(message: Any, *_: Any, **__: Any) -> None:
            threads.append(threading.get_ident())
            messages.append(str(message))

        warnings.showwarning = record
        try:
            batches = iter(dataset)
            numbers = []
            while not messages:
                numbers.append(next(batches).number)
            for _ in range(12):
                next(batches)
        finally:
            warnings.showwarning = show
            dataset.close()
    assert threads == [me]
    assert "Record 3 (" in messages[0]
    assert "flow_3.npy) leaves the speed bounds by up to 1.97 px: " in messages[0]


def test_an_error_by_the_warning_filter_is_raised_for_each_such_record(tmp_path: Path) -> None:
    folder = write_npy(tmp_path, 6)
    np.save(folder / "flow_3.npy", fields(6)[3] * 2)
    with warnings.catch_warnings(), SynthPixDataset(files(folder)) as dataset:
        warnings.simplefilter("error", PhysicsWarning)
        for _ in range(2):
            with pytest.raises(PhysicsWarning, match="Record 3"):
                dataset.batch_at(3)
        assert dataset.batch_at(4).number == 4


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (fields(1)[0] * 0.004, r"Record 0 has displacements up to 0\.00\d+ px, less than PIV"),
        (fields(1)[0] * 1000, r"Record 0 has displacements up to 19.. px in images of 16 px"),
        (np.concatenate([fields(1)[0]] * 2, axis=2)[..., :3], "Record 0 has 3 components: only"),
    ],
    ids=["small", "large", "third component"],
)
def test_a_record_in_another_unit_is_named_at_construction(record: Any, message: str) -> None:
    config = base(batch_size=1, flow_fields_per_batch=1)
    del config["scheduler_class"]
    assert any(re.search(message, one) for one in caught(config, source=[record]))


def test_resting_fluid_is_no_reason_to_warn() -> None:
    config = base(batch_size=1, flow_fields_per_batch=1)
    del config["scheduler_class"]
    assert caught(config, batches=2, source=[np.zeros((24, 24, 2))]) == []


def test_a_white_recorded_image_is_named(tmp_path: Path) -> None:
    write_mat(tmp_path, 4, (16, 16))
    saved = scipy.io.loadmat(tmp_path / "002.mat")
    white = np.full((16, 16), 255, np.uint8)
    scipy.io.savemat(tmp_path / "002.mat", {"V": saved["V"], "I0": white, "I1": white})
    config = KINDS["real"](tmp_path) | {"file_list": [str(tmp_path)]}
    found = caught(config, batches=3)
    assert len(found) == 1
    assert "Record 2 (" in found[0]
    assert "one grey level 255" in found[0]


def test_a_warning_is_shown_once_by_default(tmp_path: Path) -> None:
    folder = write_npy(tmp_path, 4)
    for number in range(4):
        np.save(folder / f"flow_{number}.npy", fields(4)[number] * 2)
    program = (
        "import sys, json; from synthpix_torch import SynthPixDataset\n"
        "with SynthPixDataset(json.loads(sys.argv[1])) as dataset:\n"
        "    for _, batch in zip(range(6), dataset): pass\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(files(folder))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr.count("PhysicsWarning") == 1
    assert "<string>:2: PhysicsWarning: Record 0" in run.stderr


def test_kinematic_fields_that_fold_are_reported_with_their_share() -> None:
    steep = {"filter_sigma_range": (1.0, 1.0), "scale_factor_range": (2.0, 2.0)}
    messages = [text for text in caught(base(**steep)) if "fold" in text]
    assert len(messages) == 1
    found = re.match(r"(\d+)% of the kinematic fields fold, on (\d+\.\d+)% of", messages[0])
    assert found is not None
    assert int(found[1]) > 75
    assert 0.3 < float(found[2]) < 10
    assert not [text for text in caught(base(**steep), renderer="synthpix") if "fold" in text]
