"""Labels and particles follow analytic flows, whatever the grids and units are."""

import pytest

from . import measures
from .scenes import Scene, render

SCENES = [pytest.param(scene, id=name) for name, scene in measures.GEOMETRIES.items()] + [
    pytest.param(scene, id=name, marks=pytest.mark.long) for name, scene in measures.SWEEP.items()
]


@pytest.mark.parametrize("scene", SCENES)
def test_labels_fill_the_image(scene: Scene) -> None:
    assert render(scene).labels.shape[1:3] == scene.grids.label_shape


@pytest.mark.parametrize("scene", SCENES)
def test_labels_equal_the_analytic_flow(scene: Scene) -> None:
    assert measures.label_error(scene) < 1e-3


@pytest.mark.parametrize("scene", SCENES)
def test_particles_move_with_the_analytic_flow(scene: Scene) -> None:
    tracked = measures.tracking_error(scene)
    assert tracked.particles >= 40
    assert tracked.worst < 2e-3
