"""Independent measurements of the images agree with the labels."""

import pytest

from . import measures


def test_registration_at_a_diameter_of_2_px_has_a_bias_below_5_thousandths() -> None:
    found = measures.registration_bias(2.0)
    assert found.error.max() < 2e-3
    assert abs(found.mean).max() < 5e-3


@pytest.mark.parametrize(
    "diameter",
    [
        0.8,
        pytest.param(1.25, marks=pytest.mark.long),
        pytest.param(1.0, marks=pytest.mark.long),
        pytest.param(1.6, marks=pytest.mark.long),
        pytest.param(2.5, marks=pytest.mark.long),
    ],
)
def test_registration_is_no_more_biased_than_with_an_ideal_camera(diameter: float) -> None:
    found, best = (
        measures.registration_bias(diameter, batches=2),
        measures.ideal_bias(diameter, pairs=6),
    )
    chance = 4 * (found.error**2 + best.error**2) ** 0.5
    assert (abs(found.mean - best.mean) < 5e-3 + chance).all()


def test_openpiv_has_outliers_at_the_border_as_rarely_as_inside() -> None:
    found = measures.border_outliers()
    assert found.inside_windows > 500
    assert found.excess < 3
