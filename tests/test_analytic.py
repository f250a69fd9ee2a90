"""Analytic flow fields: their closed forms at every label, the same at every time and place."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from kinds import base, seeded
from scipy.stats import kstest

from synthpix_torch import StateMismatchError, SynthPixDataset
from synthpix_torch.config.config import Config
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.analytic import FLOWS
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.kinematic import KinematicFields, KinematicSettings, kinematic_fields
from synthpix_torch.data.records import Records
from synthpix_torch.data.sources import open_source
from synthpix_torch.render.renderers import RENDERERS

Floats = npt.NDArray[np.floating[Any]]

D, G, A, R, L = 3.0, 0.04, math.radians(30), 9.0, 40.0
"""Displacement, gradient, angle, core radius and wavelength, in pixels and radians."""

FIXED: dict[str, Any] = {
    "displacement_range": (D, D),
    "gradient_range": (G, G),
    "angle_range": (30.0, 30.0),
    "core_radius_range": (R, R),
    "wavelength_range": (L, L),
    "centre_range": (0.25, 0.25),
    "filter_sigma_range": (8.0, 8.0),
    "scale_factor_range": (0.5, 0.5),
}
HEIGHT, WIDTH = 40, 56
CENTRE = HEIGHT / 4 - 0.5, WIDTH / 4 - 0.5

ENDS = (("min", -1), ("max", 1))


def configured(flow: str, *, resolution: float = 1.0, dt: float = 1.0, **changes: Any) -> Config:
    return read_config(given(flow, resolution=resolution, dt=dt, **changes))


def given(flow: str, *, resolution: float = 1.0, dt: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A geometry in which the first pixel lies 8 pixels within the field."""
    speed = 7.5 / (resolution * dt)
    return base(
        scheduler_class=flow,
        image_shape=(HEIGHT, WIDTH),
        flow_field_size=((HEIGHT + 16) / resolution, (WIDTH + 16) / resolution),
        img_offset=(8 / resolution, 8 / resolution),
        resolution=resolution,
        dt=dt,
        num_examples=400,
        **{f"{end}_speed_{axis}": sign * speed for end, sign in ENDS for axis in "xy"},
        **{**FIXED, **changes},
    )


def generator(config: Config) -> Generator:
    opened = open_source(config, exact=False)
    assert isinstance(opened, Generator)
    return opened


def made(config: Config, count: int = 1) -> Floats:
    """The first fields of a configuration, on the host or on the device."""
    opened = generator(config)
    if opened.generate is None:
        return np.stack([opened.records[i]["flow_fields"] for i in range(count)])
    return np.asarray(jax.jit(opened.generate)(seeded(config.seed, np.arange(count))))


def tangential(speed: Callable[[Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """A vortex that turns from x to y, with a speed at each radius."""

    def field(x: Floats, y: Floats) -> Floats:
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        return np.stack([-np.sin(angle), np.cos(angle)], -1) * speed(radius)[..., None]

    return field


def along(x: Floats, y: Floats, component: Floats, across: Floats) -> Floats:
    """A vector with a component along the angle A and one across it."""
    cosine, sine = math.cos(A), math.sin(A)
    return np.stack(
        [component * cosine - across * sine, component * sine + across * cosine], axis=-1
    )


def stagnation(x: Floats, y: Floats) -> Floats:
    cosine, sine = math.cos(A), math.sin(A)
    return along(x, y, G * (x * cosine + y * sine), -G * (y * cosine - x * sine))


def lamb_oseen(radius: Floats) -> Floats:
    """The textbook form Gamma / (2 pi r) (1 - exp(-r^2 / c^2)), scaled to D at its maximum."""
    core = R / math.sqrt(1.2564312086261697)
    circulation = D * 2 * math.pi * R / (1 - math.exp(-((R / core) ** 2)))
    speed = circulation / (2 * math.pi * radius) * (1 - np.exp(-((radius / core) ** 2)))
    return np.asarray(speed)


def taylor_green(x: Floats, y: Floats) -> Floats:
    x, y = 2 * math.pi * x / L, 2 * math.pi * y / L
    return D * np.stack([-np.cos(x) * np.sin(y), np.sin(x) * np.cos(y)], axis=-1)


CLOSED: dict[str, Callable[[Floats, Floats], Floats]] = {
    "uniform": lambda x, y: along(x, y, D + 0 * x, 0 * x),
    "shear": lambda x, y: along(x, y, G * (y * math.cos(A) - x * math.sin(A)), 0 * x),
    "rotation": lambda x, y: G * np.stack([-y, x], axis=-1),
    "stagnation": stagnation,
    "rankine": tangential(lambda r: np.where(r < R, D * r / R, D * R / r)),
    "lamb-oseen": tangential(lamb_oseen),
    "taylor-green": taylor_green,
}
VORTICITY: dict[str, Callable[[Floats, Floats], Floats]] = {
    "uniform": lambda x, y: 0 * x,
    "shear": lambda x, y: 0 * x - G,
    "rotation": lambda x, y: 0 * x + 2 * G,
    "stagnation": lambda x, y: 0 * x,
    "rankine": lambda x, y: np.where(np.hypot(x, y) < R, 2 * D / R, 0),
    "lamb-oseen": lambda x, y: (
        D / R * (1 + 2 * 1.25643121) * np.exp(-1.25643121 * (x**2 + y**2) / R**2)
    ),
    "taylor-green": lambda x, y: (
        4 * math.pi / L * D * np.cos(2 * math.pi * x / L) * np.cos(2 * math.pi * y / L)
    ),
}

GEOMETRIES: dict[str, dict[str, Any]] = {
    "pixels": {},
    "SI units": {"resolution": 20000.0, "dt": 1e-3},
    "labels of every other pixel": {"resolution": 4.0, "dt": 0.5, "velocities_per_pixel": 0.5},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("side", ["", "-device"])
@pytest.mark.parametrize("flow", CLOSED)
def test_labels_are_the_closed_form(flow: str, side: str, geometry: str) -> None:
    if side and geometry != "SI units":
        pytest.skip("the host has the other geometries")
    config = configured(flow + side, **GEOMETRIES[geometry])
    fields = made(config)
    renderer = RENDERERS["particles"](config, fields.shape[1:], jax.devices("cpu")[0])
    labels = np.asarray(renderer.adapt(jnp.asarray(fields))[0])[0]
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] / config.velocities_per_pixel
    expected = CLOSED[flow](x - CENTRE[1], y - CENTRE[0])
    np.testing.assert_allclose(labels, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("flow", CLOSED)
def test_divergence_vanishes_and_vorticity_is_the_closed_forms(flow: str) -> None:
    """Central differences are off by a sixth of the third derivative, at most 2 % of a gradient."""
    [field] = made(configured(flow)).astype(np.float64)
    y, x = np.mgrid[: field.shape[0], : field.shape[1]] - 8.0
    x, y = x - CENTRE[1], y - CENTRE[0]
    (u_y, u_x), (v_y, v_x) = (np.gradient(field[..., i]) for i in range(2))
    inside = np.s_[1:-1, 1:-1]
    # The gradient of Rankine's vortex jumps.
    smooth = (abs(np.hypot(x, y) - R) > 2)[inside] if flow == "rankine" else np.s_[:]
    steepest = max(abs(one).max() for one in (u_x, u_y, v_x, v_y))
    tolerance = 0.02 * steepest + 1e-6
    assert abs((u_x + v_y)[inside][smooth]).max() < tolerance
    difference = (v_x - u_y - VORTICITY[flow](x, y))[inside][smooth]
    assert abs(difference).max() < 2 * tolerance


def test_noise_is_a_kinematic_field_on_top_of_the_rotation() -> None:
    for side, noise in (("", _kinematic_on_host), ("-device", _kinematic_on_device)):
        config = configured("rotation-noise" + side)
        both, alone = made(config, 2), made(configured("rotation" + side), 2)
        np.testing.assert_allclose(both - alone, noise(config), rtol=0, atol=1e-5)


def _kinematic_on_host(config: Config) -> Floats:
    source = KinematicFields(2, KinematicSettings.from_config(config))
    return np.stack([source[i]["flow_fields"] for i in range(2)])


def _kinematic_on_device(config: Config) -> Floats:
    settings = KinematicSettings.from_config(config)
    program = jax.jit(partial(kinematic_fields, settings=settings))
    return np.asarray(program(seeded(settings.seed, np.arange(2))))


WIDE: dict[str, Any] = {
    "displacement_range": (-6.0, 4.0),
    "gradient_range": (-0.03, 0.06),
    "angle_range": (-20.0, 250.0),
    "core_radius_range": (5.0, 20.0),
    "wavelength_range": (20.0, 50.0),
    "centre_range": (-0.1, 1.2),
}


@pytest.mark.parametrize("side", ["", "-device"])
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("angles", [(-20.0, 250.0), (0.0, 0.0), (80.0, 95.0), (0.0, 720.0)])
def test_all_fields_lie_within_their_bounds(
    flow: str, side: str, angles: tuple[float, float]
) -> None:
    if side and angles[0] != -20:
        pytest.skip("the host has the other angles")
    config = configured(flow + side, **{**WIDE, "angle_range": angles})
    opened, fields = generator(config), made(config, 50)
    lowest, highest = fields.min(axis=(0, 1, 2)), fields.max(axis=(0, 1, 2))
    assert (lowest >= np.array(opened.slowest) - 1e-4).all()
    assert (highest <= np.array(opened.fastest) + 1e-4).all()
    # Not much wider than what occurs.
    reach = np.array(opened.fastest) - opened.slowest
    assert (highest - lowest > 0.2 * reach - 1e-4).all()


def test_a_flow_to_the_right_needs_no_other_speed_bounds() -> None:
    config = given("uniform", angle_range=(0.0, 0.0), displacement_range=(1.0, 6.0))
    bounds = {"min_speed_x": 0.0, "max_speed_x": 6.0, "min_speed_y": 0.0, "max_speed_y": 0.0}
    # A warning would be an error.
    SynthPixDataset(config | bounds).close()


@pytest.mark.parametrize("flow", ["rankine", "rotation-noise"])
def test_a_field_depends_on_seed_and_record_alone(flow: str) -> None:
    config = configured(flow, **WIDE)
    few, many = made(config, 3), made(config, 6)
    np.testing.assert_array_equal(few, many[:3])
    records = generator(config).records
    with ThreadPoolExecutor(4) as threads:
        fields = list(threads.map(lambda i: records[i % 6]["flow_fields"], range(24)))
    np.testing.assert_array_equal(np.stack(fields[6:12]), many)
    other = made(configured(flow, seed=4, **WIDE), 6)
    assert all((one != two).any() for one in many for two in other)


def test_drawn_parameters_keep_their_values() -> None:
    """The first bits of a stream must not change with versions."""
    [first, second] = made(configured("uniform", **WIDE), 2)[:, 0, 0]
    np.testing.assert_allclose(first, PINNED[0], rtol=1e-6)
    np.testing.assert_allclose(second, PINNED[1], rtol=1e-6)


PINNED = ((0.584808350, 1.473490596), (-3.649577141, 1.090814114))


@pytest.mark.parametrize("side", ["", "-device"])
def test_parameters_are_uniform_in_their_ranges(side: str) -> None:
    config = configured("uniform" + side, angle_range=(0.0, 0.0), displacement_range=(-6.0, 4.0))
    drawn = made(config, 400)[:, 0, 0, 0]
    assert kstest((drawn + 6) / 10, "uniform").pvalue > 0.01


def test_records_beyond_the_last_are_refused() -> None:
    records = generator(configured("shear")).records
    with pytest.raises(IndexError, match="400 analytic fields, not 401"):
        records[400]


@pytest.mark.parametrize("flow", ["lamb-oseen", "rotation-noise-device"])
def test_a_resumed_run_continues_as_one_that_was_never_interrupted(flow: str) -> None:
    config = base(
        scheduler_class=flow,
        flow_fields_per_batch=2,
        batches_per_flow_batch=3,
        displacement_range=(-2.0, 2.0),
        gradient_range=(-0.02, 0.02),
        filter_sigma_range=(8.0, 8.0),
        scale_factor_range=(0.0, 0.1),
    )
    with SynthPixDataset(config) as dataset:
        before = list(islice(dataset, 4))
        state = dataset.state_dict()
        uninterrupted = list(islice(dataset, 5))
    assert before[-1].number == 3
    with SynthPixDataset(config) as dataset:
        dataset.load_state_dict(state)
        resumed = list(islice(dataset, 5))
    for one, other in zip(uninterrupted, resumed, strict=True):
        assert one.number == other.number
        assert one.images.equal(other.images)
        assert one.flow_fields.equal(other.flow_fields)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("displacement_range", (-2.0, 1.0)),
        ("gradient_range", (0.0, 0.01)),
        ("angle_range", (0.0, 90.0)),
        ("core_radius_range", (4.0, 5.0)),
        ("wavelength_range", (20.0, 30.0)),
        ("centre_range", (0.5, 0.5)),
    ],
)
def test_a_state_with_other_parameters_is_refused(
    key: str, value: Any, state: dict[str, Any]
) -> None:
    with (
        SynthPixDataset(given("uniform", **{key: value})) as dataset,
        pytest.raises(StateMismatchError, match=key),
    ):
        dataset.load_state_dict(state)


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    with SynthPixDataset(given("uniform")) as dataset:
        return dataset.state_dict()


def test_files_and_names_say_the_flow() -> None:
    assert Records(configured("taylor-green")).read(3).file == "taylor-green://3"
    assert Records(configured("taylor-green-device")).read(3).file == "taylor-green-device://3"


def test_synthpixs_renderer_makes_no_fields_on_the_device() -> None:
    with pytest.raises(ValueError, match="use scheduler_class 'rankine', or renderer='particles'"):
        SynthPixDataset(given("rankine-device"), renderer="synthpix")
