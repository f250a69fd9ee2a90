"""The judges measure an ideal camera rightly, and see the errors of synthpix."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from . import ideal, measures
from .flows import Linear
from .registration import register
from .tracking import track


@pytest.mark.parametrize("sigma", [0.4, 0.625, 1.0, 1.5])
def test_tracking_finds_the_shift_width_and_peak_of_an_ideal_camera(sigma: float) -> None:
    first, second = ideal.shifted_pair(
        (0.3, -1.2), shape=(128, 128), density=0.001, sigma=sigma, seed=1
    )
    guess = np.broadcast_to([-1.0, 0.5], (128, 128, 2))
    a, b = track(first, second, guess, distance=12.0, border=10)
    assert len(a.y) >= 4
    assert abs(b.y - a.y - 0.3).max() < 1e-6
    assert abs(b.x - a.x + 1.2).max() < 1e-6
    assert abs(a.sigma_y - sigma).max() < 1e-6
    assert abs(b.sigma_x - sigma).max() < 1e-6
    assert abs(a.peak - 200).max() < 1e-3


def test_registration_finds_the_shift_of_an_ideal_camera() -> None:
    pair = ideal.shifted_pair((0.4, -1.7), shape=(64, 64), density=0.05, sigma=1.5, seed=0)
    assert register(*pair, start=(0.6, -1.5)) == pytest.approx((0.4, -1.7), abs=1e-3)


def test_ideal_random_fields_are_homogeneous() -> None:
    fields = ideal.random_fields(4.0, fields=512, shape=(64, 64), peak=3.0, seed=0)
    found = measures.homogeneity(fields)
    assert found.rms == pytest.approx(1, abs=0.015)
    assert found.corners == pytest.approx(1, abs=0.025)
    assert found.correlation_length == pytest.approx(4, rel=0.02)


def _labels(_: Path) -> float:
    geometry = measures.GEOMETRIES["8 x 10 px, fractional offset, wide images"]
    return measures.label_error(geometry, renderer="synthpix")


def _tracks(_: Path) -> float:
    geometry = measures.GEOMETRIES["8 x 10 px, fractional offset, wide images"]
    return measures.tracking_error(geometry, renderer="synthpix").median


def _light(_: Path) -> float:
    return 1 - measures.light((1.25,), renderer="synthpix")[1.25].mean


def _seeds(_: Path) -> float:
    return measures.seed_correlation(8, renderer="synthpix")


def _levels(folder: Path) -> float:
    return abs(measures.matched_mean(folder, renderer="synthpix") - 24.5)


def _recorded(folder: Path) -> float:
    flow = Linear((1.0, 3.0))
    found = measures.recorded(
        folder, flow, field_steps=4, renderer="synthpix", image_shape=(64, 96)
    )
    return float(abs(found.labels - (3.0, 1.0)).max())


def _homogeneous(_: Path) -> float:
    fields = measures.kinematic_fields(8.0, fields=128, renderer="synthpix")
    return measures.homogeneity(fields).rms - 1


@pytest.mark.parametrize(
    ("error", "bound"),
    [
        (_labels, 0.1),
        (_tracks, 0.1),
        pytest.param(_light, 0.08, marks=pytest.mark.long),
        (_seeds, 0.99),
        pytest.param(_levels, 10.0, marks=pytest.mark.long),
        (_recorded, 8.9),
        pytest.param(_homogeneous, 0.2, marks=pytest.mark.long),
    ],
)
def test_the_judges_see_the_errors_of_synthpix(
    error: Callable[[Path], float], bound: float, tmp_path: Path
) -> None:
    assert error(tmp_path) > bound
