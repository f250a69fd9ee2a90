"""Sizes and brightness of particles are distributed as configured."""

import numpy as np
import pytest

from . import measures


@pytest.fixture(scope="module")
def shapes() -> measures.Shapes:
    """Particles of 1.6 to 3 px and 100 grey levels that change by 0.1 px and 5 levels."""
    return measures.shapes((1.6, 3.0), diameter_var=0.01, intensity_var=25.0)


def test_diameters_along_x_and_y_have_the_same_distribution(shapes: measures.Shapes) -> None:
    y, x = shapes.along_y[0], shapes.along_x[0]
    assert len(y) > 300
    assert y.std() == pytest.approx(x.std(), rel=0.08)
    assert y.mean() == pytest.approx(x.mean(), rel=0.02)
    for diameters in (y, x):
        ends = (diameters < 1.65) | (diameters > 2.95)
        # A uniform distribution has 7 % there.
        assert ends.mean() < 0.15


def test_changes_from_image_to_image_have_the_configured_variance(shapes: measures.Shapes) -> None:
    for values, deviation in ((shapes.along_y, 0.1), (shapes.along_x, 0.1), (shapes.peak, 5.0)):
        change = values[1] - values[0]
        assert change.std() == pytest.approx(deviation, rel=0.1)
        assert abs(change.mean()) < 4 * deviation / np.sqrt(len(change))


@pytest.mark.long
def test_ellipticity_of_0_makes_round_particles() -> None:
    found = measures.shapes((1.6, 3.0), ellipticity=0.0)
    # Some particles overlap with another.
    assert np.quantile(abs(found.along_y - found.along_x), 0.9) < 1e-3
