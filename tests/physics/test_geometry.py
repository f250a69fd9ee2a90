"""Labels and particles follow analytic flows, whatever the grids and units are."""

import pytest

from . import measures
from .scenes import Scene


@pytest.mark.parametrize("scene", measures.GEOMETRIES.values(), ids=list(measures.GEOMETRIES))
def test_labels_and_particles_follow_the_analytic_flow(scene: Scene) -> None:
    label = measures.label_error(scene)
    tracked = measures.tracking_error(scene)
    assert label < 1e-3
    assert tracked.particles >= 50
    assert tracked.worst < 2e-3


@pytest.mark.long
@pytest.mark.parametrize("scene", measures.SWEEP.values(), ids=list(measures.SWEEP))
def test_labels_and_particles_follow_the_analytic_flow_in_every_geometry(scene: Scene) -> None:
    assert measures.label_error(scene) < 1e-3
    assert measures.tracking_error(scene).worst < 2e-3
