"""Images of `camera` have the properties that its arguments name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from synthpix_torch import SynthPixDataset, camera
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.kinematic import KinematicSettings, measure_folding

from .tracking import cut, isolated, track

SHAPE = (96, 96)
AREA = SHAPE[0] * SHAPE[1]
MOVING = camera(
    image_shape=SHAPE,
    density=0.006,
    diameter=2.5,
    intensity=100,
    max_displacement=6,
    batch_size=24,
    bit_depth=16,
)
STILL = MOVING | camera(
    image_shape=SHAPE,
    density=0.006,
    diameter=2.5,
    intensity=100,
    max_displacement=0,
    noise=4,
    lost_pairs=0.2,
    batch_size=24,
)


class Seen(NamedTuple):
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray


def seen(config: dict[str, Any]) -> Seen:
    with SynthPixDataset(config, ahead=0) as dataset:
        batch = dataset.batch_at(0)
    return Seen(
        batch.images1[:, 0].numpy(),
        batch.images2[:, 0].numpy(),
        batch.flow_fields.permute(0, 2, 3, 1).numpy(),
    )


@pytest.fixture(scope="module")
def moving() -> Seen:
    return seen(MOVING)


@pytest.fixture(scope="module")
def still() -> Seen:
    return seen(STILL)


def test_the_diameter_is_the_width_at_e_to_the_minus_2(moving: Seen) -> None:
    windows = np.concatenate(
        [cut(one, isolated(one, distance=12.0, border=6), radius=4) for one in moving.first]
    ).astype(float)
    weight = windows / windows.sum(axis=(1, 2), keepdims=True)
    at = np.arange(-4, 5)
    variances = []
    for share in (weight.sum(axis=1), weight.sum(axis=2)):
        centre = (share * at).sum(axis=1, keepdims=True)
        variances.append((share * (at - centre) ** 2).sum(axis=1))
    # The integration over a pixel adds the variance 1 / 12. Two particles in one place are wider.
    diameter = 4 * np.sqrt(np.median(variances) - 1 / 12)
    assert len(windows) > 50
    assert diameter == pytest.approx(2.5, rel=0.01)


def test_particles_move_as_the_labels_say_and_at_most_the_largest_displacement(
    moving: Seen,
) -> None:
    found, expected = [], []
    for first, second, labels in zip(*moving, strict=True):
        tracks = track(first, second, labels, distance=8.0, border=8, radius=3)
        a, b = tracks.first, tracks.second
        found.append(np.hypot(b.x - a.x, b.y - a.y))
        at = np.rint([a.y, a.x]).astype(int)
        expected.append(np.hypot(*labels[at[0], at[1]].T))
    distances, truth = np.concatenate(found), np.concatenate(expected)
    percentiles = np.percentile(distances, (10, 50, 90, 99))
    assert len(distances) > 150
    assert percentiles == pytest.approx(np.percentile(truth, (10, 50, 90, 99)), abs=0.1)
    assert 4.5 < distances.max() < 6.05
    peaks = np.hypot(*np.moveaxis(moving.labels, 3, 0)).max(axis=(1, 2))
    # Peaks are equally frequent from 0 to 6 px.
    assert 2 < np.mean(peaks) < 4
    assert peaks.max() <= 6


def test_noise_has_the_standard_deviation_around_the_dark_level(still: Seen) -> None:
    low, middle, high = np.percentile(still.first - still.second, (15.866, 50, 84.134))
    # Particles that one image lacks widen it a little.
    assert (high - low) / 2 / np.sqrt(2) == pytest.approx(4, rel=0.03)
    assert abs(middle) < 0.05
    assert np.median(still.first) == pytest.approx(16, abs=0.4)
    assert np.mean(still.first == 0) < 1e-4


def test_each_image_shows_the_density_and_lacks_the_share_of_the_other(still: Seen) -> None:
    # Particles of 100 grey levels peak at 66 at least, integrated over the pixel.
    sure = 16 + 30
    counts, lost = [], []
    for one, other in ((still.first, still.second), (still.second, still.first)):
        middle = one[:, 1:-1, 1:-1]
        neighbours = [
            one[:, 1 + y : one.shape[1] - 1 + y, 1 + x : one.shape[2] - 1 + x]
            for y, x in itertools.product((-1, 0, 1), repeat=2)
            if y or x
        ]
        peak = (middle > sure) & (middle > np.maximum.reduce(neighbours))
        counts.append(peak.sum() / middle.size)
        lost.append(1 - np.mean(other[:, 1:-1, 1:-1][peak] > sure))
    # A few particles overlap others.
    assert np.mean(counts) == pytest.approx(0.006, rel=0.06)
    assert np.mean(lost) == pytest.approx(0.2, abs=0.02)


def test_the_printed_yaml_is_the_same_configuration(tmp_path: Path) -> None:
    config = camera(dt=1e-5, resolution=23.7, file_list=[tmp_path / "flöw #1"], bit_depth=8)
    path = tmp_path / "camera.yaml"
    path.write_text(str(config), encoding="utf-8")
    assert read_config(path) == read_config(config)
    assert "# pixels per length unit" in path.read_text()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"noise": 10, "lost_pairs": 0.3, "density": 0.1, "image_shape": (128, 96)},
        {"max_displacement": 20, "diameter": (2, 6), "resolution": 0.3, "dt": 3e-4},
    ],
)
def test_a_camera_gives_no_warning(facts: dict[str, Any]) -> None:
    SynthPixDataset(camera(**facts)).close()


@pytest.mark.parametrize("side", [64, 300])
@pytest.mark.parametrize("largest", [2, 20])
def test_kinematic_fields_of_a_camera_rarely_fold(side: int, largest: float) -> None:
    config = read_config(camera(image_shape=(side, side), max_displacement=largest))
    assert measure_folding(KinematicSettings.from_config(config)).fields < 0.1


@pytest.mark.filterwarnings("error")
def test_flow_fields_come_from_files_or_a_source_too(tmp_path: Path) -> None:
    field = np.full((50, 50, 2), 30.0, np.float32)
    np.save(tmp_path / "flow_0.npy", field)
    units: dict[str, Any] = {
        "resolution": 10.0,
        "dt": 0.01,
        "image_shape": (32, 48),
        "max_displacement": 3,
    }
    with SynthPixDataset(camera(file_list=tmp_path, **units)) as dataset:
        assert dataset.stream.config.scheduler_class == ".npy"
    with SynthPixDataset(camera(scheduler_class=None, **units), source=[field]) as dataset:
        assert dataset.stream.config.max_speed_x == pytest.approx(30)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"noize": 4}, TypeError, "no argument 'noize'.* did you mean 'noise'"),
        ({"lost_pairs": 1.0}, ValueError, "lost_pairs must be a share from 0 to below 1, not 1.0"),
        ({"density": (0.2, 0.1)}, ValueError, "density must be a positive number or"),
        ({"diameter": 0}, ValueError, "diameter must be a positive number or"),
        ({"max_displacement": -1}, ValueError, "max_displacement must be a number of at least 0"),
        ({"image_shape": 64}, ValueError, "image_shape must be two positive integers"),
        ({"dt": 0}, ValueError, "dt must be a positive number, not 0"),
    ],
)
def test_an_impossible_fact_is_named(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        camera(**arguments)
