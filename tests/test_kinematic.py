"""Kinematic flow fields: the host's against synthpix and scipy, the device's against the host's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp, kstest
from synthpix.data_sources.kinematic import KinematicDataSource

from synthpix_torch.data.kinematic import KinematicFields, kinematic_fields, smooth

FloatArray = npt.NDArray[np.floating[Any]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.one_of(st.sampled_from([0.0, 1e-16, 1e-9, 0.124, 0.125, 0.126]), st.floats(0.01, 120.0)),
)
def test_filter_is_scipys_in_double_precision(height: int, width: int, sigma: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, height, width))
    expected = gaussian_filter(noise, sigma=(0.0, sigma, sigma))
    np.testing.assert_allclose(smooth(noise.copy(), sigma=sigma), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", ["peak", "linear"])
@pytest.mark.parametrize("sigmas", [(0.0, 0.0), (0.05, 2.0), (5.0, 100.0)])
def test_host_records_are_synthpixs_to_float32_rounding(
    mode: str, sigmas: tuple[float, float]
) -> None:
    arguments: dict[str, Any] = {
        "num_examples": 9,
        "image_shape": (30, 47),
        "filter_sigma_range": sigmas,
        "scale_mode": mode,
        "seed": 3,
    }
    theirs, ours = KinematicDataSource(**arguments), KinematicFields(**arguments)
    for i in range(9):
        expected, got = theirs[i], ours[i]
        assert got["file"] == expected["file"]
        assert got["flow_fields"].dtype == np.float32
        largest = np.abs(expected["flow_fields"]).max()
        np.testing.assert_allclose(
            got["flow_fields"], expected["flow_fields"], rtol=1.2e-7, atol=1e-7 * largest
        )


def test_host_fields_do_not_pass_for_synthpixs() -> None:
    assert repr(KinematicFields(seed=4)).startswith("KinematicFields(num_examples=18278, ")


def test_a_constant_field_is_scaled_to_zero_peak_without_warning() -> None:
    source = KinematicFields(image_shape=(4, 4), scale_factor_range=(0.0, 0.0))
    assert not source[0]["flow_fields"].any()


SHAPE, SIGMAS, FACTORS, COUNT = (48, 40), (2.0, 6.0), (1.0, 8.0), 400
device_fields = jax.jit(
    partial(
        kinematic_fields,
        shape=SHAPE,
        filter_sigma_range=SIGMAS,
        scale_factor_range=FACTORS,
        scale_mode="peak",
    ),
)
device_gains = jax.jit(
    partial(
        kinematic_fields,
        shape=SHAPE,
        filter_sigma_range=SIGMAS,
        scale_factor_range=FACTORS,
        scale_mode="linear",
    ),
)


@pytest.fixture(scope="module")
def device() -> FloatArray:
    return np.asarray(device_fields(jnp.arange(COUNT), seed=1))


@pytest.fixture(scope="module")
def host() -> FloatArray:
    source = KinematicFields(COUNT, SHAPE, SIGMAS, FACTORS, "peak", 1)
    return np.stack([source[i]["flow_fields"] for i in range(COUNT)])


def peaks(fields: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.max(np.sum(fields**2, axis=-1), axis=(1, 2))))


def correlation_lengths(fields: FloatArray) -> FloatArray:
    """Root mean square over root mean square gradient along x, per field: sigma * sqrt(2)."""
    gradient = np.diff(fields, axis=2)
    return np.asarray(
        np.sqrt(np.mean(fields**2, axis=(1, 2, 3)) / np.mean(gradient**2, axis=(1, 2, 3)))
    )


def skewed_to_peak(fields: FloatArray) -> FloatArray:
    """Root mean square displacement over the peak, per field: the shape of the distribution."""
    return np.asarray(np.sqrt(np.mean(np.sum(fields**2, axis=-1), axis=(1, 2))) / peaks(fields))


@pytest.mark.parametrize("statistic", [peaks, correlation_lengths, skewed_to_peak])
def test_device_fields_are_distributed_as_the_hosts(
    statistic: Any, device: FloatArray, host: FloatArray
) -> None:
    assert ks_2samp(statistic(device), statistic(host)).pvalue > 0.01


def test_peak_displacements_are_uniform_over_the_range(device: FloatArray) -> None:
    low, high = FACTORS
    assert kstest((peaks(device) - low) / (high - low), "uniform").pvalue > 0.01


def test_device_fields_have_no_preferred_direction(device: FloatArray, host: FloatArray) -> None:
    for fields in (device, host):
        means = np.mean(fields, axis=(1, 2))
        error = np.std(means, axis=0) / np.sqrt(COUNT)
        assert np.all(np.abs(np.mean(means, axis=0)) < 4 * error)
    spread = np.std(device, axis=(0, 1, 2)) / np.std(host, axis=(0, 1, 2))
    np.testing.assert_allclose(spread, 1.0, atol=0.08)


def test_borders_vary_as_on_the_host(device: FloatArray, host: FloatArray) -> None:
    """The reflected border doubles the variance of a smoothed field there."""
    ratio = [np.mean(f[:, 0] ** 2) / np.mean(f[:, 20:28, 16:24] ** 2) for f in (device, host)]
    assert ratio[0] == pytest.approx(ratio[1], rel=0.2)
    assert ratio[0] > 1.5


def test_noise_of_device_fields_is_uniform() -> None:
    fields = kinematic_fields(
        jnp.arange(2),
        seed=0,
        shape=(64, 64),
        filter_sigma_range=(0.0, 0.0),
        scale_factor_range=(1.0, 1.0),
        scale_mode="linear",
    )
    assert kstest((np.asarray(fields).ravel() + 1) / 2, "uniform").pvalue > 0.01


def test_device_filter_is_scipys() -> None:
    """With one width for all, smoothing the unsmoothed field on the host gives the device's."""
    make = partial(
        kinematic_fields,
        jnp.arange(3),
        seed=0,
        shape=(40, 23),
        scale_factor_range=(1.0, 1.0),
        scale_mode="linear",
    )
    noise = np.asarray(make(filter_sigma_range=(0.0, 0.0)), np.float64)
    for sigma in (0.3, 1.7, 30.0):
        expected = gaussian_filter(noise, sigma=(0.0, sigma, sigma, 0.0))
        got = make(filter_sigma_range=(sigma, sigma))
        np.testing.assert_allclose(got, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_a_device_field_depends_on_seed_and_record_alone(device: FloatArray) -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    np.testing.assert_array_equal(device_fields(jnp.asarray(order), seed=1), device[order])
    few = np.asarray(device_fields(jnp.asarray([7, 399]), seed=1))
    # Another number of fields may choose another matrix product.
    np.testing.assert_allclose(few, device[[7, 399]], rtol=0, atol=1e-5)
    other = np.asarray(device_fields(jnp.asarray([7, 399]), seed=2))
    assert np.abs(other - few).max() > 0.1


def test_linear_scale_is_the_scale_of_the_smoothed_noise(device: FloatArray) -> None:
    """Both modes draw the same noise and scale, so they differ by one factor per field."""
    gains = np.asarray(device_gains(jnp.arange(5), seed=1))
    for i in range(5):
        factor = np.sum(gains[i] * device[i]) / np.sum(device[i] ** 2)
        np.testing.assert_allclose(gains[i], factor * device[i], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filter_sigma_range": (2.0, 1.0)}, "filter_sigma_range must satisfy"),
        ({"scale_factor_range": (-1.0, 1.0)}, "scale_factor_range must satisfy"),
        ({"scale_mode": "square"}, "scale_mode must be"),
    ],
)
def test_what_synthpix_refuses_is_refused(changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {
        "seed": 0,
        "shape": (8, 8),
        "filter_sigma_range": (1.0, 2.0),
        "scale_factor_range": (0.0, 1.0),
        "scale_mode": "peak",
    }
    with pytest.raises(ValueError, match=words):
        kinematic_fields(jnp.arange(2), **{**arguments, **changes})
