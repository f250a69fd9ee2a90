"""Images have as much light as their particles, as many of them as configured, evenly."""

import pytest

from . import measures
from .statistics import correlations


def test_mean_images_of_uniform_flows_are_flat_and_as_bright_as_the_density() -> None:
    found = measures.mean_images()
    assert max(found.worst) < 0.02
    # As configured: the light of the particles times their number.
    assert found.level == pytest.approx(1, abs=0.005)


def test_a_particle_has_the_light_of_its_gaussian() -> None:
    for found in measures.light((0.8, 1.25, 2.0)).values():
        assert found.particles >= 40
        assert found.least > 0.99
        assert found.most < 1.01


@pytest.mark.long
@pytest.mark.parametrize("diameter", [0.8, 1.0, 1.25, 1.6, 2.5, 3.5])
def test_a_particle_of_any_size_has_the_light_of_its_gaussian(diameter: float) -> None:
    found = measures.light((diameter,))[diameter]
    assert found.least > 0.99
    assert found.most < 1.01


def test_noise_has_the_configured_moments_and_no_memory() -> None:
    pairs = measures.noise()
    assert pairs.first.mean() == pytest.approx(50, abs=0.1)
    assert pairs.second.std() == pytest.approx(5, rel=0.02)
    # 64 x 64 pixels: one standard deviation is 0.016.
    assert abs(correlations(pairs.first, pairs.second)).max() < 0.09
    among = correlations(pairs.first, pairs.first)
    assert abs(among[among < 0.999]).max() < 0.09
