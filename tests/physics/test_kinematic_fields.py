"""Kinematic flow fields are the same everywhere, and as wide as configured."""

import pytest

from . import ideal, measures


@pytest.mark.parametrize("scheduler", ["kinematic", "kinematic-device"])
def test_kinematic_fields_are_homogeneous_and_as_wide_as_configured(scheduler: str) -> None:
    found = measures.homogeneity(measures.kinematic_fields(4.0, fields=1024, scheduler=scheduler))
    best = measures.homogeneity(
        ideal.random_fields(4.0, fields=1024, shape=(64, 64), peak=3.0, seed=0)
    )
    assert found.rms == pytest.approx(1, abs=0.03)
    assert found.corners == pytest.approx(1, abs=0.03)
    assert found.correlation_length == pytest.approx(4, rel=0.03)
    # The largest value of a smooth field lies at the border more often than anywhere inside.
    assert found.edge == pytest.approx(best.edge, abs=0.7)
