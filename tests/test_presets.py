"""Images of `camera` have the properties that its arguments name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from kinds import CAMERA
from scipy.ndimage import maximum_filter

from synthpix_torch import SynthPixDataset, camera
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.kinematic import KinematicSettings, measure_folding
from synthpix_torch.describe.measures import measure_diameter

DARK = 16.0
"""4 standard deviations of noise."""

SURE = DARK + 30
"""Particles of 100 grey levels peak at 58 above the dark level at least, over a pixel."""


class Seen(NamedTuple):
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Two batches: image pairs, and displacements (x, y) last."""
    with SynthPixDataset(camera(**CAMERA), ahead=0) as dataset:
        batches = [dataset.batch_at(number) for number in (0, 1)]
    return Seen(
        np.concatenate([batch.images1[:, 0].numpy() for batch in batches]),
        np.concatenate([batch.images2[:, 0].numpy() for batch in batches]),
        np.concatenate([batch.flow_fields.permute(0, 2, 3, 1).numpy() for batch in batches]),
    )


def peaks(images: np.ndarray) -> np.ndarray:
    """Return the places of particles in images (n, h, w), as rows (image, y, x)."""
    maxima = images == maximum_filter(images, size=(1, 3, 3))
    return np.argwhere(maxima & (images > SURE))


def centre(image: np.ndarray, y: int, x: int) -> np.ndarray:
    """The centre (x, y) of the light within 2 px."""
    light = image[y - 2 : y + 3, x - 2 : x + 3] - DARK
    at = np.arange(-2, 3)
    return np.array([x + light.sum(0) @ at / light.sum(), y + light.sum(1) @ at / light.sum()])


class Followed(NamedTuple):
    """Particles of the first images: whether the second shows them, their way and their label."""

    kept: np.ndarray
    moved: np.ndarray
    labels: np.ndarray


def follow(seen: Seen) -> Followed:
    kept, moved, labels = [], [], []
    border = 10
    for i, y, x in peaks(seen.first):
        if not (border <= y < 80 - border and border <= x < 96 - border):
            continue
        label = seen.labels[i, y, x]
        there = np.rint([y + label[1], x + label[0]]).astype(int)
        around = seen.second[i, there[0] - 1 : there[0] + 2, there[1] - 1 : there[1] + 2]
        kept.append(around.max() > SURE)
        labels.append(label)
        step = np.unravel_index(around.argmax(), (3, 3))
        to = centre(seen.second[i], *(int(a + b - 1) for a, b in zip(there, step, strict=True)))
        moved.append(to - centre(seen.first[i], int(y), int(x)))
    return Followed(np.array(kept), np.array(moved), np.array(labels))


def test_the_diameter_is_the_width_at_e_to_the_minus_2(seen: Seen) -> None:
    # `measure_diameter` is tested on Gaussians in tests/test_describe.py.
    assert measure_diameter(seen.first) == pytest.approx(2.5, rel=0.04)
    assert measure_diameter(seen.second) == pytest.approx(2.5, rel=0.04)


def test_particles_move_as_the_labels_say_and_at_most_the_largest_displacement(seen: Seen) -> None:
    found = follow(seen)
    error = (found.moved - found.labels)[found.kept]
    # The noise of 4 grey levels displaces a centre by 0.1 px.
    assert np.abs(np.median(error, axis=0)).max() < 0.03
    assert np.median(np.hypot(*error.T)) < 0.3
    moved, labels = (
        np.percentile(np.hypot(*values[found.kept].T), (50, 90))
        for values in (found.moved, found.labels)
    )
    assert moved == pytest.approx(labels, abs=0.1)
    largest = np.hypot(*np.moveaxis(seen.labels, 3, 0)).max(axis=(1, 2))
    # Peaks are equally frequent from 0 to 6 px.
    assert 2.2 < np.mean(largest) < 3.8
    assert 5 < largest.max() <= 6


def test_noise_has_the_standard_deviation_around_the_dark_level(seen: Seen) -> None:
    for images in (seen.first, seen.second):
        low, middle = np.percentile(images, (15.866, 50))
        # Particles cover 5 % of the pixels.
        assert middle - low == pytest.approx(4, rel=0.05)
        assert middle == pytest.approx(DARK, abs=0.4)
        assert np.mean(images == 0) < 1e-4


def test_each_image_shows_the_density_and_lacks_the_share_of_the_other(seen: Seen) -> None:
    for images in (seen.first, seen.second):
        # A few particles overlap.
        assert len(peaks(images)) / images.size == pytest.approx(0.006, rel=0.06)
    assert len(follow(seen).kept) > 500
    # A few lost particles have another in their place.
    assert 1 - follow(seen).kept.mean() == pytest.approx(0.2, abs=0.03)


def test_the_printed_yaml_is_the_same_configuration(tmp_path: Path) -> None:
    config = camera(dt=1e-5, resolution=23.7, file_list=[tmp_path / "flöw #1"], bit_depth=8)
    path = tmp_path / "camera.yaml"
    path.write_text(str(config), encoding="utf-8")
    assert read_config(path) == read_config(config)
    assert "# pixels per length unit" in path.read_text()


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
