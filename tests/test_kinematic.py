"""Kinematic flow fields: homogeneous, with the configured spectrum, the same on host and device."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from kinds import base, seeded
from scipy.ndimage import gaussian_filter1d
from scipy.stats import chisquare, ks_2samp, kstest
from synthpix.data_sources.kinematic import KinematicDataSource

from synthpix_torch.config.reading import read_config
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.kinematic import (
    KinematicFields,
    KinematicSettings,
    folded_share,
    kinematic_fields,
    measure_folding,
)
from synthpix_torch.data.kinematic import device as on_device_module
from synthpix_torch.data.kinematic.device import fields_by_products, fields_by_sums, gain
from synthpix_torch.data.kinematic.device import smoothing as smoothing_on_device
from synthpix_torch.data.kinematic.host import smoothing as smoothing_on_host
from synthpix_torch.data.records import Records
from synthpix_torch.data.sources import open_source

Floats = npt.NDArray[np.floating[Any]]
Generate = Callable[[KinematicSettings, int], Floats]


def on_host(settings: KinematicSettings, count: int) -> Floats:
    source = KinematicFields(count, settings)
    return np.stack([source[i]["flow_fields"] for i in range(count)])


def on_device(settings: KinematicSettings, count: int) -> Floats:
    return of_device(settings, np.arange(count))


def of_device(settings: KinematicSettings, records: Any) -> Floats:
    program = jax.jit(partial(kinematic_fields, settings=settings))
    return np.asarray(program(seeded(settings.seed, records)))


SIDES = pytest.mark.parametrize("generate", [on_host, on_device])


def one_width(sigma: float, **changes: Any) -> KinematicSettings:
    """Settings whose fields have one sigma and a scale of 1."""
    return KinematicSettings(
        **{
            "extent": (48.0, 40.0),
            "filter_sigma_range": (sigma, sigma),
            "scale_factor_range": (1.0, 1.0),
            "scale_mode": "linear",
            **changes,
        }
    )


def covariance(size: int, *, step: float, sigma: float, device: bool) -> Floats:
    """Return the covariance of the samples of an axis, for noise of unit variance per pixel."""
    matrix, factor = smoothing_on_host(size, step=step, sigma=sigma)
    weights, nodes = matrix.toarray().astype(np.float64), matrix.shape[1]
    if device:
        on_device = smoothing_on_device(size, nodes, step=step, sigma=jnp.float32(sigma))
        weights = np.asarray(on_device, np.float64)
        factor = float(gain(step=step, sigma=jnp.float32(sigma)))
    return np.asarray(factor**2 * weights @ weights.T)


def check_covariance(size: int, step: float, sigma: float, *, device: bool) -> None:
    distance = np.subtract.outer(np.arange(size), np.arange(size)) * step
    exact = np.exp(-((distance / (2 * sigma)) ** 2))
    variance = 1 / (2 * math.sqrt(math.pi) * sigma)
    got = covariance(size, step=step, sigma=sigma, device=device)
    np.testing.assert_allclose(got / variance, exact, rtol=0, atol=2e-4)


@examples(max_examples=100, deadline=None)
@given(st.integers(1, 90), st.floats(0.9, 1.0), st.floats(1.0, 200.0))
def test_covariance_is_the_filters_to_two_ten_thousandths(
    size: int, step: float, sigma: float
) -> None:
    check_covariance(size, step, sigma, device=False)


@pytest.mark.parametrize("sigma", [1.0, 1.7, 5.0, 100.0])
def test_covariance_on_the_device_is_the_filters(sigma: float) -> None:
    check_covariance(60, 0.97, sigma, device=True)


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.7, 1.0])
def test_filters_narrower_than_a_pixel_are_scipys(sigma: float, device: bool) -> None:
    kernel = gaussian_filter1d(np.eye(41), max(sigma, 0.01), mode="constant", radius=5)[10:31]
    got = covariance(21, step=1.0, sigma=sigma, device=device)
    np.testing.assert_allclose(got, kernel @ kernel.T, rtol=0, atol=1e-6)


def rms(fields: Floats, axis: Any = None) -> Any:
    return np.sqrt(np.mean(np.square(fields, dtype=np.float64), axis=axis))


@SIDES
@pytest.mark.parametrize(
    ("mode", "sigma"), [("linear", 0.6), ("linear", 1.4), ("linear", 4.0), ("peak", 4.0)]
)
def test_rms_is_flat_up_to_borders_and_corners(generate: Generate, mode: str, sigma: float) -> None:
    fields = generate(one_width(sigma, extent=(32.0, 28.0), scale_mode=mode), 6000)
    everywhere = rms(fields)
    np.testing.assert_allclose(rms(fields, (0, 2, 3)) / everywhere, 1, atol=0.015)
    np.testing.assert_allclose(rms(fields, (0, 1, 3)) / everywhere, 1, atol=0.015)
    corners = fields[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(rms(corners, (0, 2)) / everywhere, 1, atol=0.03)


@SIDES
@pytest.mark.parametrize(("sigma", "extent"), [(3.0, (48.0, 40.0)), (4.0, (40.45, 55.3))])
def test_correlation_is_the_filters_in_pixels(
    generate: Generate, sigma: float, extent: tuple[float, float]
) -> None:
    settings = one_width(sigma, extent=extent)
    fields = generate(settings, 4000).astype(np.float64)
    step_y, step_x = settings.spacing
    variance = np.mean(fields**2)
    for lag in (1, 4, 8, 12):
        # From the border and from the middle, along both axes and along the diagonal.
        for y, x in ((0, 0), (20, 20)):
            for down, right in ((lag, 0), (0, lag), (lag, lag)):
                products = fields[:, y, x] * fields[:, y + down, x + right]
                squared = (down * step_y) ** 2 + (right * step_x) ** 2
                expected = math.exp(-squared / (4 * sigma**2))
                assert np.mean(products) / variance == pytest.approx(expected, abs=0.05)
        along = np.mean(fields[:, :, lag:] * fields[:, :, :-lag]) / variance
        expected = math.exp(-((lag * step_x) ** 2) / (4 * sigma**2))
        assert along == pytest.approx(expected, abs=0.012)


@SIDES
def test_components_are_independent(generate: Generate) -> None:
    fields = generate(one_width(3.0), 2000).astype(np.float64)
    assert abs(np.mean(fields[..., 0] * fields[..., 1])) < 0.01 * np.mean(fields**2)


@SIDES
@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.8, 3.0])
def test_linear_scale_multiplies_smoothed_noise_of_one_sample_per_pixel(
    generate: Generate, sigma: float
) -> None:
    distance = np.arange(-30, 31)
    kernel = np.exp(-0.5 * (distance / max(sigma, 1e-3)) ** 2)
    kernel /= kernel.sum()
    fields = generate(one_width(sigma, scale_factor_range=(2.0, 2.0)), 800)
    assert rms(fields) == pytest.approx(2 / math.sqrt(3) * np.sum(kernel**2), rel=0.01)
    neighbours = np.mean(fields[:, 1:] * fields[:, :-1], dtype=np.float64)
    expected = np.sum(kernel[1:] * kernel[:-1]) / np.sum(kernel**2)
    assert neighbours / rms(fields) ** 2 == pytest.approx(expected, abs=0.01)


@SIDES
def test_peak_lies_anywhere_in_the_field(generate: Generate) -> None:
    """Off the outermost samples its place is uniform.

    On them lie as many peaks as the homogeneous field has maxima there: with the densities of the
    Euler characteristic above a level (Adler & Taylor, Random Fields and Geometry, 2007, 11.7) a
    few times 2 (a + b) sigma / (a b).
    """
    settings = one_width(1.5, extent=(64.0, 64.0), scale_mode="peak")
    fields = generate(settings, 3000)
    places = np.argmax(np.sum(fields**2, axis=-1).reshape(3000, -1), axis=1)
    y, x = np.divmod(places, 64)
    border = np.minimum.reduce([y, x, 63 - y, 63 - x])
    assert np.mean(border == 0) < 0.12
    inside = border >= 2
    counts, *_ = np.histogram2d(y[inside], x[inside], bins=[4, 4], range=[[1.5, 61.5]] * 2)
    assert chisquare(counts.ravel()).pvalue > 0.01
    rings = np.histogram(border[inside], bins=[2, 6, 12, 20, 32])[0]
    areas = np.array([60**2 - 52**2, 52**2 - 40**2, 40**2 - 24**2, 24**2])
    assert chisquare(rings, areas / areas.sum() * rings.sum()).pvalue > 0.01


RANGES = KinematicSettings(
    extent=(48.0, 40.0), filter_sigma_range=(2.0, 6.0), scale_factor_range=(1.0, 8.0), seed=1
)


@pytest.fixture(scope="module")
def device() -> Floats:
    return on_device(RANGES, 500)


@pytest.fixture(scope="module")
def host() -> Floats:
    return on_host(RANGES, 500)


def peaks(fields: Floats) -> Floats:
    return np.asarray(np.sqrt(np.max(np.sum(fields**2, axis=-1), axis=(1, 2))))


def correlation_lengths(fields: Floats) -> Floats:
    """Root mean square over root mean square gradient along x, per field: sigma * sqrt(2)."""
    return np.asarray(rms(fields, (1, 2, 3)) / rms(np.diff(fields, axis=2), (1, 2, 3)))


def mean_over_peak(fields: Floats) -> Floats:
    return np.asarray(rms(fields, (1, 2, 3)) / peaks(fields))


@pytest.mark.parametrize("statistic", [peaks, correlation_lengths, mean_over_peak])
def test_device_fields_are_distributed_as_the_hosts(
    statistic: Any, device: Floats, host: Floats
) -> None:
    assert ks_2samp(statistic(device), statistic(host)).pvalue > 0.01


def test_largest_displacements_are_uniform_over_the_range(device: Floats, host: Floats) -> None:
    for fields in (device, host):
        assert kstest((peaks(fields) - 1) / 7, "uniform").pvalue > 0.01


@SIDES
def test_records_and_seeds_are_uncorrelated(generate: Generate) -> None:
    settings = [one_width(1.0, seed=seed) for seed in (0, 1, 8, 2**31, 2**32 - 1)]
    fields = np.concatenate([generate(each, 4).reshape(4, -1) for each in settings])
    correlations = np.corrcoef(fields.astype(np.float64)) - np.eye(len(fields))
    # Some 600 independent values in each field.
    assert np.abs(correlations).max() < 0.16


@SIDES
def test_a_field_depends_on_seed_and_record_alone(generate: Generate) -> None:
    few, many = generate(RANGES, 3), generate(RANGES, 9)
    tolerance = 0.0 if generate is on_host else 1e-5
    np.testing.assert_allclose(few, many[:3], rtol=0, atol=tolerance)


DIGESTS = """
import hashlib
from test_kinematic import RANGES, on_device, on_host
for generate in (on_host, on_device):
    print(hashlib.sha256(generate(RANGES, 5).tobytes()).hexdigest())
"""


def test_fields_are_the_same_bits_in_every_process_and_thread() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIGESTS]
    there = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
        check=True,
    )
    expected = [generate(RANGES, 5).tobytes() for generate in (on_host, on_device)]
    assert there.stdout.split() == [hashlib.sha256(bits).hexdigest() for bits in expected]
    source = KinematicFields(5, RANGES)
    with ThreadPoolExecutor(4) as threads:
        fields = list(threads.map(lambda i: source[i % 5]["flow_fields"], range(40)))
    for start in range(0, 40, 5):
        assert np.stack(fields[start : start + 5]).tobytes() == expected[0]


def test_device_records_may_come_in_any_order(device: Floats) -> None:
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(of_device(RANGES, order), device[order])


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("settings", [RANGES, one_width(0.0, extent=(31.4, 40.0), seed=2)])
def test_a_gpus_sums_make_the_fields_of_a_cpus_products(
    settings: KinematicSettings, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = seeded(settings.seed, np.arange(3))
    if at_once == 1:
        monkeypatch.setattr(on_device_module, "GPU_BYTES", 1)
    sums = jax.jit(partial(fields_by_sums, settings=settings))(numbers)
    products = jax.jit(partial(fields_by_products, settings=settings))(numbers)
    np.testing.assert_allclose(sums, products, rtol=0, atol=2e-5 * np.abs(products).max())


def test_the_programs_of_a_gpu_have_no_matrix_products() -> None:
    jitted = jax.jit(partial(kinematic_fields, settings=RANGES))
    program = jitted.trace(seeded(0, np.arange(3)))
    products = {
        platform: "dot_general" in program.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert products == {"cpu": True, "cuda": False}


def test_records_beyond_the_last_are_refused() -> None:
    with pytest.raises(IndexError, match="2 kinematic fields"):
        KinematicFields(2, RANGES)[2]
    assert len(list(KinematicFields(2, RANGES))) == 2  # type: ignore[call-overload]


ENDS = (("min", -1), ("max", 1))


@pytest.mark.parametrize("dt", [0.5, 2.0])
def test_largest_displacement_is_in_pixels_whatever_resolution_and_dt(dt: float) -> None:
    fastest = 1.5 / (4.0 * dt)
    config = base(
        scale_factor_range=(1.5, 1.5),
        resolution=4.0,
        dt=dt,
        flow_field_size=(7.1, 6.0),
        img_offset=(1.5, 1.0),
        **{f"{end}_speed_{axis}": sign * fastest for end, sign in ENDS for axis in "xy"},
    )
    records = Records(read_config(config))
    velocities = records.read(3).flow_field
    assert velocities is not None
    assert peaks(velocities[None] * 4.0 * dt) == pytest.approx(1.5)
    # 28.4 rows of pixels.
    assert records.shape == velocities.shape == (29, 24, 2)


def test_synthpixs_renderer_has_synthpixs_fields() -> None:
    config = read_config(base())
    generator = open_source(config, exact=True)
    assert isinstance(generator, Generator)
    assert type(generator.records) is KinematicDataSource
    assert Records(config, exact=True).shape == generator.records[0]["flow_fields"].shape


def test_folded_share_is_that_of_analytic_flows() -> None:
    y, x = np.mgrid[:200, :400] * 0.5
    flat = np.zeros_like(x)
    shear, squeeze = np.stack([3 * y, flat], -1), np.stack([-1.5 * x, flat], -1)
    both = np.stack([-1.5 * x, -1.5 * y], -1)
    # 1 + 2 cos(k x) is not positive in a third of each period.
    number = 2 * np.pi / 40
    wave = np.stack([2 / number * np.sin(number * x), flat], -1)
    shares = folded_share(np.stack([shear, squeeze, both, wave]), spacing=(0.5, 0.5))
    np.testing.assert_allclose(shares, [0, 1, 0, 1 / 3], atol=0.01)


@pytest.mark.parametrize("gradient", [0.3, 0.5, 1.0])
def test_folding_of_kinematic_fields_is_that_of_their_gradients(gradient: float) -> None:
    """For independent normal gradients of standard deviation s it is exp(-1 / (2 s^2)) / 2.

    The determinant is half of the difference of two sums of two squares, of which one has
    a mean, and the other is exponential.
    """
    sigma = 6.0
    scale = gradient * math.sqrt(2) * sigma * math.sqrt(3) * 2 * math.sqrt(math.pi) * sigma
    settings = one_width(
        sigma, extent=(128.0, 128.0), scale_factor_range=(scale, scale), pixel_velocity=0.1
    )
    measured = measure_folding(settings, fields=100)
    assert measured.area == pytest.approx(math.exp(-0.5 / gradient**2) / 2, abs=0.008)
    assert measured.fields >= measured.area


def test_gentle_fields_do_not_fold() -> None:
    gentle = KinematicSettings(extent=(64.0, 64.0), scale_factor_range=(0.0, 2.0))
    assert measure_folding(gentle) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extent": (0.0, 4.0)}, "extent must be two positive"),
        ({"filter_sigma_range": (2.0, 1.0)}, "filter_sigma_range must satisfy"),
        ({"scale_factor_range": (-1.0, 1.0)}, "scale_factor_range must satisfy"),
        ({"scale_mode": "square"}, "scale_mode must be"),
        ({"seed": 2**32}, "seed must be between"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KinematicSettings(**{"extent": (8.0, 8.0), **changes})
