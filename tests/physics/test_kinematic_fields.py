"""Kinematic flow fields are the same everywhere, and as wide as configured."""

import pytest

from . import ideal, measures


@pytest.mark.parametrize("scheduler", ["kinematic", "kinematic-device"])
def test_kinematic_fields_are_homogeneous_and_as_wide_as_configured(scheduler: str) -> None:
    found = measures.homogeneity(measures.kinematic_fields(4.0, fields=1024, scheduler=scheduler))
    whole = ideal.random_fields(4.0, fields=1024, shape=(72, 72), peak=3.0, seed=0)
    # Images see the middle of a field.
    best = measures.homogeneity(whole[:, 4:-4, 4:-4])
    assert found.rms == pytest.approx(1, abs=0.03)
    assert found.corners == pytest.approx(1, abs=0.03)
    assert found.correlation_length == pytest.approx(4, rel=0.03)
    # The largest value of a smooth field lies at the border more often than anywhere inside.
    assert found.edge == pytest.approx(best.edge, abs=0.7)


@pytest.mark.parametrize("scheduler", ["kinematic", "kinematic-device"])
@pytest.mark.parametrize("step", [1, 8])
def test_kinematic_fields_of_seeds_that_are_near_are_uncorrelated(
    step: int, scheduler: str
) -> None:
    # Some 50 independent values in a field: one standard deviation is 0.15.
    assert measures.field_correlation(step, scheduler=scheduler) < 0.8
