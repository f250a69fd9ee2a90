"""Camera: moments and distribution of shot noise, quantisation and saturation by closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from synthpix_torch.render.effects.poisson import EXPANSION_FROM, poisson
from synthpix_torch.render.effects.sensor import Sensor, expose, quantise

DRAWS = 2_000_000


def drawn(mean: float, *, seed: int = 0, count: int = DRAWS) -> np.ndarray:
    numbers = jax.jit(poisson)(jax.random.PRNGKey(seed), jnp.full(count, mean, jnp.float32))
    return np.asarray(numbers, np.float64)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 9.9, 10.0, 25.0, 400.0])
def test_the_distribution_of_poisson_numbers_is_right(mean: float) -> None:
    mean = float(np.float32(mean))
    numbers = drawn(mean).astype(int)
    share = np.bincount(numbers) / DRAWS
    exact = stats.poisson.pmf(np.arange(len(share)), mean)
    # Within the error of the expansion and five standard errors of the counts.
    error = 6e-4 * exact.max() * 2 if mean >= EXPANSION_FROM else 0.0
    np.testing.assert_array_less(
        np.abs(share - exact), error + 5 * np.sqrt(exact / DRAWS) + 5 / DRAWS
    )


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 9.9, 10.0, 25.0, 400.0, 1e5])
def test_poisson_numbers_have_mean_variance_and_skewness(mean: float) -> None:
    numbers = drawn(mean, seed=1)
    assert numbers.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / DRAWS) + 1e-5)
    spread = np.sqrt((2 + 1 / mean) / DRAWS)
    assert numbers.var() == pytest.approx(mean, rel=5 * spread + 1e-4)
    assert stats.skew(numbers) == pytest.approx(mean**-0.5, rel=0.05, abs=0.02)


def test_poisson_numbers_are_whole_and_never_negative() -> None:
    means = jnp.geomspace(1e-3, 1e6, 200_000, dtype=jnp.float32)
    numbers = np.asarray(poisson(jax.random.PRNGKey(2), means))
    np.testing.assert_array_equal(numbers, np.round(numbers))
    assert numbers.min() == 0


def test_no_light_gives_no_electrons() -> None:
    assert not drawn(0.0, count=1000).any()


@pytest.mark.parametrize(("light", "per_level", "gain"), [(40.0, 8.0, 1.0), (90.0, 0.5, 2.0)])
def test_photon_transfer_is_that_of_emva_1288(light: float, per_level: float, gain: float) -> None:
    """Mean g E, variance g^2 E / k: the slope of variance against mean is the system gain."""
    sensor = Sensor(electrons_per_grey_level=per_level, gain=gain)
    image = jnp.full((1000, 1000), light, jnp.float32)
    levels = np.asarray(expose(jax.random.PRNGKey(3), image, sensor=sensor), np.float64)
    assert levels.mean() == pytest.approx(gain * light, rel=2e-3)
    assert levels.var() == pytest.approx(gain**2 * light / per_level, rel=1e-2)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_quantisation_gives_the_levels_of_the_bit_depth(bits: int) -> None:
    ramp = jnp.linspace(-20.0, 300.0, 700_001)
    levels = np.asarray(quantise(ramp, sensor=Sensor(bit_depth=bits)))
    assert len(np.unique(levels)) == 2**bits
    assert (levels.min(), levels.max()) == (0.0, 255.0)
    step = 255.0 / (2**bits - 1)
    inside = (ramp >= 0) & (ramp <= 255)
    error = (levels - np.asarray(ramp))[inside]
    # 255 in float32 has a resolution of 1.5e-5.
    assert np.abs(error).max() <= step / 2 + 3e-5
    assert error.var() == pytest.approx(step**2 / 12, rel=0.02)


def test_8_bit_levels_are_whole_numbers() -> None:
    levels = np.asarray(quantise(jnp.linspace(0.0, 255.0, 10_001), sensor=Sensor(bit_depth=8)))
    np.testing.assert_array_equal(levels, np.round(levels))


def test_light_beyond_full_scale_saturates() -> None:
    """Of Gaussian levels around 250 with a deviation of 10, P(> 254.5) show full scale."""
    levels = 250.0 + 10.0 * jax.random.normal(jax.random.PRNGKey(4), (1000, 1000))
    quantised = np.asarray(quantise(levels, sensor=Sensor(bit_depth=8)))
    assert (quantised == 255.0).mean() == pytest.approx(stats.norm.sf(0.45), abs=2e-3)


def test_a_neutral_sensor_only_clips() -> None:
    levels = jnp.asarray([[-3.0, 0.5, 254.3, 300.0]])
    exposed = expose(jax.random.PRNGKey(0), levels, sensor=Sensor())
    np.testing.assert_array_equal(
        quantise(exposed, sensor=Sensor()), np.asarray([[0.0, 0.5, 254.3, 255.0]], np.float32)
    )
