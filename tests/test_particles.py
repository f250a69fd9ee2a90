"""The default renderer: its random numbers, its particles and the sums of their light."""

import threading
from functools import partial
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import base

from synthpix_torch.config.reading import read_config
from synthpix_torch.draws import as_normal, as_uniform, normal, uniform, words
from synthpix_torch.render.histogram import match_histogram
from synthpix_torch.render.particles import ParticleRenderer
from synthpix_torch.render.splat import MAX_FRACTIONAL_BITS, Particles, splat
from synthpix_torch.render.turns import Turns

SHAPE = (40, 43)


def cloud(count: int, *, seed: int, images: int = 2, size: float = 40.0) -> Particles:
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> jax.Array:
        return jnp.asarray(rng.uniform(low, high, (images, count)), jnp.float32)

    return Particles(
        y=draw(-9, size + 9),
        x=draw(-9, size + 9),
        diameter_y=draw(0.3, 3.0),
        diameter_x=draw(0.3, 3.0),
        rho=draw(-0.9, 0.9),
        intensity=draw(0.0, 255.0),
    )


render_cloud = jax.jit(
    partial(splat, shape=SHAPE, radius=6, brightest=255.0),
    static_argnames=("block", "lanes", "correlated"),
)
whole = partial(render_cloud, block=10**6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_of_particles_changes_no_bit(seed: int) -> None:
    particles = cloud(500, seed=seed)
    order = np.random.default_rng(seed).permutation(500)
    shuffled = jax.tree.map(lambda v: v[:, order], particles)
    np.testing.assert_array_equal(whole(particles), whole(shuffled))


@pytest.mark.parametrize(("block", "lanes"), [(1, 1), (7, 8), (499, 1), (250, 16), (1000, 8)])
def test_blocks_of_particles_and_lanes_change_no_bit(block: int, lanes: int) -> None:
    particles = cloud(500, seed=1)
    expected = render_cloud(particles, block=500)
    np.testing.assert_array_equal(expected, render_cloud(particles, block=block, lanes=lanes))


def test_blocks_sum_the_windows_that_a_gpu_sums_at_once() -> None:
    # On a CPU, which may compile the same arithmetic to other last bits.
    particles = cloud(500, seed=1)
    odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, -1e30, 1e30, 2.0**31] * 8)
    particles = particles._replace(
        y=particles.y.at[0, :48].set(odd),
        x=particles.x.at[1, :48].set(odd),
        intensity=particles.intensity.at[:, 48:96].set(0),
    )
    np.testing.assert_allclose(
        whole(particles), render_cloud(particles, block=None), rtol=0, atol=1e-2
    )


def test_images_do_not_touch_each_other() -> None:
    particles = cloud(500, seed=2, images=3)
    alone = particles._replace(
        intensity=particles.intensity * jnp.asarray([[0.0], [1.0], [0.0]], jnp.float32)
    )
    together, middle = whole(particles), whole(alone)
    np.testing.assert_array_equal(together[1], middle[1])
    assert not middle[0].any()
    assert not middle[2].any()


def test_light_beyond_an_image_is_dropped() -> None:
    particles = cloud(500, seed=3)
    shift = 11
    wide = splat(
        particles._replace(y=particles.y + shift, x=particles.x + shift),
        shape=(SHAPE[0] + 2 * shift, SHAPE[1] + 2 * shift),
        radius=6,
        brightest=255.0,
        block=500,
    )
    np.testing.assert_allclose(whole(particles), wide[:, shift:-shift, shift:-shift], atol=2e-2)


def integrated(particle: dict[str, float]) -> npt.NDArray[np.float64]:
    """Mean of a particle over each pixel, by 20 x 20 nodes of Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    y = np.arange(SHAPE[0])[:, None] + nodes / 2 - particle["y"]
    x = np.arange(SHAPE[1])[:, None] + nodes / 2 - particle["x"]
    v = (y / (particle["diameter_y"] / 2))[:, :, None, None]
    u = (x / (particle["diameter_x"] / 2))[None, None]
    rho = particle["rho"]
    values = np.exp(-(u**2 + v**2 - 2 * rho * u * v) / (2 * (1 - rho**2)))
    image: npt.NDArray[np.float64] = np.einsum("iajb,a,b->ij", values, weights / 2, weights / 2)
    return image * particle["intensity"]


@pytest.mark.parametrize(
    ("rho", "smallest", "bound"), [(0.0, 0.4, 1e-4), (0.2, 0.8, 0.02), (-0.5, 0.8, 0.07)]
)
def test_pixels_hold_the_integral_of_a_particle(rho: float, smallest: float, bound: float) -> None:
    rng = np.random.default_rng(4)
    for diameter in (smallest, 1.0, 2.0, 3.0):
        y, x = 20 + rng.uniform(-0.5, 0.5, 2)
        dy, dx = diameter * rng.uniform(0.8, 1.0, 2)
        particle = {"y": y, "x": x, "diameter_y": dy, "diameter_x": dx, "rho": rho}
        particle["intensity"] = 200.0
        one = Particles(**{k: jnp.full((1, 1), v, jnp.float32) for k, v in particle.items()})
        image = np.asarray(whole(one, correlated=bool(rho))[0], float)
        expected = integrated(particle)
        np.testing.assert_allclose(image, expected, rtol=0, atol=bound * max(expected.max(), 1))
        light = 200 * np.pi / 2 * dy * dx * np.sqrt(1 - rho**2)
        assert image.sum() == pytest.approx(light, rel=0.01 if diameter >= 0.8 else 0.03)


@pytest.mark.parametrize("count", [100, 200, 5_000, 100_000])
@pytest.mark.parametrize("centre", [20.0, 20.499])
def test_sums_cannot_overflow_however_particles_gather(count: int, centre: float) -> None:
    everything = jnp.ones((1, count), jnp.float32)
    # Those around 20.5 have windows that start in up to four cells of the grid that bounds sums.
    particles = Particles(
        y=centre + 0.002 * (jnp.arange(count) % 2)[None],
        x=centre + 0.002 * (jnp.arange(count) // 2 % 2)[None],
        diameter_y=3 * everything,
        diameter_x=3 * everything,
        rho=0 * everything,
        intensity=255 * everything,
    )
    image = whole(particles)[0]
    light = 255 * np.pi / 2 * 9 * count
    # Half a unit of the coarsest resolution that is used, for each particle in each pixel.
    unit = max(2.0**-MAX_FRACTIONAL_BITS, 2.0 * 257 * count / 2**31)
    assert float(image.sum()) == pytest.approx(light, rel=2e-4, abs=0.5 * unit * count * 169)
    assert float(image.min()) > -unit * count


def test_a_crowd_in_one_image_leaves_the_others_exact() -> None:
    particles = cloud(20_000, seed=4)
    crowded = particles._replace(y=particles.y.at[0].set(20.0), x=particles.x.at[0].set(20.0))
    np.testing.assert_array_equal(whole(particles)[1], whole(crowded)[1])


def test_positions_that_are_not_finite_are_invisible() -> None:
    particles = cloud(50, seed=5)
    odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf] * 16 + [-1e30, 1e30])
    broken = particles._replace(y=particles.y.at[0].set(odd))
    image = whole(broken)
    np.testing.assert_array_equal(image[1], whole(particles)[1])
    assert not image[0].any()


def unmade(images: int, count: int) -> Particles:
    """Particles of which only the shape exists."""
    array: Any = jax.ShapeDtypeStruct((images, count), jnp.float32)
    return Particles(*[array] * 6)


def test_more_than_31_bits_are_refused() -> None:
    particles = unmade(1, 10**7)
    with pytest.raises(ValueError, match="31 bits hold"):
        jax.eval_shape(
            partial(splat, shape=(64, 64), radius=1, brightest=255.0, block=10), particles
        )


def test_more_pixels_than_an_index_counts_are_refused() -> None:
    particles = unmade(40, 10)
    with pytest.raises(ValueError, match="fewer images at once"):
        jax.eval_shape(
            partial(splat, shape=(8192, 8192), radius=1, brightest=1.0, block=10), particles
        )


def render(
    working_bytes: int | None = None,
    *,
    platform: str = "cpu",
    moving: jax.Array | None = None,
    **changes: Any,
) -> tuple[Any, ...]:
    """Render one batch of pairs on a CPU as for a platform, in a still fluid unless it moves."""
    shape = changes.pop("image_shape", (48, 40))
    size = (float(shape[0] + 8), float(shape[1] + 8))
    changes = {"batch_size": 5, "flow_fields_per_batch": 2, **changes}
    config = read_config(base(image_shape=shape, flow_field_size=size, **changes))
    device = Mock(jax.Device, platform=platform)
    renderer = ParticleRenderer(config, (9, 11, 2), device, working_bytes=working_bytes)
    keys = jax.random.split(jax.random.PRNGKey(2), config.batch_size)
    moving = jnp.zeros((2, 9, 11, 2)) if moving is None else moving
    made: tuple[Any, ...] = jax.jit(renderer.render)(keys, moving)
    return made


SPEEDS = jnp.asarray(np.random.default_rng(6).uniform(-3, 3, (2, 9, 11, 2)), jnp.float32)


@pytest.fixture(scope="module")
def on_cpu() -> tuple[Any, ...]:
    return render(moving=SPEEDS)


def test_memory_bound_changes_no_bit(on_cpu: tuple[Any, ...]) -> None:
    # Three chunks of two pairs, of which one is dropped, and several blocks of particles.
    chunks = render(20_000, moving=SPEEDS)
    for a, b in zip(jax.tree.leaves(on_cpu), jax.tree.leaves(chunks), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gpu_renders_what_a_cpu_renders(on_cpu: tuple[Any, ...]) -> None:
    on_gpu = render(platform="gpu", moving=SPEEDS)
    for a, b in zip(jax.tree.leaves(on_cpu), jax.tree.leaves(on_gpu), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-2)
    assert not np.allclose(on_gpu[0], on_gpu[1], rtol=0, atol=10)


SPARSE: dict[str, Any] = {
    "noise_uniform": 0.0,
    "noise_gaussian_std": 0.0,
    "p_hide_img1": 0.0,
    "p_hide_img2": 0.0,
    "seeding_density_range": (0.02, 0.02),
    "diameter_ranges": [(1.0, 2.0)],
    "intensity_ranges": [(100, 100)],
    "rho_ranges": [(0.0, 0.0)],
    "rho_var": 0.0,
}


def test_particles_that_change_nothing_and_do_not_move_look_the_same_in_both_images() -> None:
    first, second, _ = render(**SPARSE, diameter_var=0.0, intensity_var=0.0)
    np.testing.assert_array_equal(first, second)
    assert first.max() > 50


def test_hidden_particles_are_missing_in_one_image_alone() -> None:
    first, second, _ = render(**{**SPARSE, "p_hide_img2": 0.5}, diameter_var=0.0, intensity_var=0.0)
    assert (second <= first).all()
    # Of some 300 particles.
    assert float(second.sum() / first.sum()) == pytest.approx(0.5, abs=0.12)


def test_particles_can_be_kept_round() -> None:
    def asymmetry(ellipticity: float) -> float:
        first, _, _ = render(
            **{**SPARSE, "seeding_density_range": (0.003, 0.003)},
            ellipticity=ellipticity,
            image_shape=(64, 64),
            batch_size=16,
            diameter_var=0.0,
        )
        images = np.asarray(first, float)
        # Correlations with the next row and the next column tell the diameters along y and x.
        down = (images[:, 1:] * images[:, :-1]).sum((1, 2)) / (images**2).sum((1, 2))
        right = (images[:, :, 1:] * images[:, :, :-1]).sum((1, 2)) / (images**2).sum((1, 2))
        return float(np.std(down - right))

    assert asymmetry(0.0) < 0.5 * asymmetry(1.0)


def test_a_matched_image_has_the_mean_of_its_template() -> None:
    counts = np.zeros(256)
    counts[:50] = 64 * 64 / 50
    image = np.zeros((64, 64), np.float32)
    image[::5, ::3] = np.random.default_rng(0).uniform(1, 250, image[::5, ::3].shape)
    matched = np.asarray(match_histogram(jnp.asarray(image), jnp.asarray(counts)))
    assert matched.mean() == pytest.approx(24.5, abs=0.75)
    # Brighter pixels stay brighter.
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(matched.ravel()[order]) >= 0).all()


def test_words_are_two_independent_arrays_of_bits() -> None:
    first, second = words(jax.random.PRNGKey(3), shape=(40_000,))
    for values in (as_uniform(first), as_uniform(second)):
        assert abs(float(values.mean()) - 0.5) < 0.01
        assert 0 <= float(values.min()) < float(values.max()) < 1
    assert abs(np.corrcoef(as_uniform(first), as_uniform(second))[0, 1]) < 0.02
    bits = np.unpackbits(np.asarray(first ^ second).view(np.uint8)).mean()
    assert bits == pytest.approx(0.5, abs=0.005)


def test_normal_numbers_are_the_quantiles_of_the_normal_distribution() -> None:
    from scipy.special import ndtri

    word = jnp.asarray(np.linspace(0, 2**32 - 1, 10_001), jnp.uint32)
    middle = ((np.asarray(word) >> 9) + 0.5) * 2.0**-23
    np.testing.assert_allclose(as_normal(word), ndtri(middle), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 4)])
def test_draws_are_those_of_jax(shape: tuple[int, ...]) -> None:
    key = jax.random.PRNGKey(11)
    np.testing.assert_array_equal(uniform(key, shape=shape), jax.random.uniform(key, shape))
    np.testing.assert_array_equal(
        uniform(key, shape=shape, minval=-1.0, maxval=3.0),
        jax.random.uniform(key, shape, minval=-1.0, maxval=3.0),
    )
    np.testing.assert_array_equal(normal(key, shape=shape), jax.random.normal(key, shape))


@pytest.mark.parametrize(
    "flag", ["jax_threefry_partitionable", "jax_enable_x64", "jax_default_prng_impl"]
)
def test_draws_follow_the_flags_of_jax(flag: str) -> None:
    changed: Any = {"jax_threefry_partitionable": False, "jax_enable_x64": True}.get(flag, "rbg")
    flags: Any = jax.config
    before = getattr(flags, flag)
    flags.update(flag, changed)
    try:
        key = jax.random.PRNGKey(11)
        drawn: list[npt.NDArray[Any]] = [np.asarray(uniform(key, shape=(9,)))]
        drawn.append(np.asarray(normal(key, shape=(9,))))
        expected = [jax.random.uniform(key, (9,)), jax.random.normal(key, (9,))]
        for got, want in zip(drawn, expected, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
    finally:
        flags.update(flag, before)


def test_two_threads_call_programs_by_turns() -> None:
    turns, threads = Turns(jax.devices("cpu")[0]), []
    for _ in range(4):
        threads.append(turns.call(threading.current_thread))
        turns.end()
    assert threads[0] is threads[2] is threading.current_thread()
    assert threads[1] is threads[3] is not threading.current_thread()


def test_a_thread_with_random_flags_of_its_own_calls_all_programs() -> None:
    turns = Turns(jax.devices("cpu")[0])
    turns.end()
    with jax.threefry_partitionable(False):
        assert turns.call(threading.current_thread) is threading.current_thread()
    assert turns.call(threading.current_thread) is not threading.current_thread()
