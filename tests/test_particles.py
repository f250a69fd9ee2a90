"""Our particle images against synthpix's own functions, and what must hold of them alone."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthpix.data_generate import generate_images_from_flow
from synthpix.generate import img_gen_from_data
from synthpix.types import ImageGenerationSpecification

from synthpix_torch.draws import normal, uniform
from synthpix_torch.render.particles import render_pairs
from synthpix_torch.render.splat import MAX_FRACTIONAL_BITS, Particles, splat

BOUND = 1e-3
"""Grey levels of 255 by which an image may differ from synthpix's."""


def specification(**changes: Any) -> ImageGenerationSpecification:
    values: dict[str, Any] = {
        "batch_size": 3,
        "image_shape": (48, 40),
        "img_offset": (8, 6),
        "seeding_density_range": (0.04, 0.06),
        "p_hide_img1": 0.05,
        "p_hide_img2": 0.1,
        "diameter_ranges": [(1.0, 2.0)],
        "diameter_var": 0.1,
        "intensity_ranges": [(100, 200)],
        "intensity_var": 10.0,
        "rho_ranges": [(-0.2, 0.2)],
        "rho_var": 0.01,
        "noise_uniform": 2.0,
        "noise_gaussian_std": 1.0,
    }
    return ImageGenerationSpecification(**{**values, **changes})


def flow(fields: int, height: int, width: int, *, speed: float) -> jax.Array:
    y, x = np.mgrid[:height, :width]
    phases = np.random.default_rng(5).uniform(0, 2 * np.pi, (fields, 4))
    return jnp.asarray(
        [
            speed
            * np.stack(
                [np.sin(x / 9 + a) * np.cos(y / 11 + b), np.cos(x / 8 + c) * np.sin(y / 7 + d)], -1
            )
            for a, b, c, d in phases
        ],
        jnp.float32,
    )


def both(
    spec: ImageGenerationSpecification,
    flow_fields: jax.Array,
    *,
    bounds: tuple[int, int] = (64, 56),
    res: tuple[float, float] = (1.0, 1.0),
    **options: Any,
) -> tuple[Any, Any]:
    """Render the same batch with synthpix and with ours; of several keys both use the first."""
    key = jax.random.split(jax.random.PRNGKey(0), 3)
    theirs = jax.jit(
        lambda k, f: generate_images_from_flow(
            k, f, spec, bounds, flow_field_res_x=res[0], flow_field_res_y=res[1], **options
        )
    )(key, flow_fields)
    ours = jax.jit(
        lambda k, f: render_pairs(
            k,
            f,
            specification=spec,
            position_bounds=bounds,
            flow_field_res_x=res[0],
            flow_field_res_y=res[1],
            **options,
        )
    )(key, flow_fields)
    return theirs, ours


def assert_same(theirs: Any, ours: Any, *, bound: float = BOUND) -> None:
    for expected, got in zip(theirs[:2], ours[:2], strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound)
    for expected, got in zip(jax.tree.leaves(theirs[2]), jax.tree.leaves(ours[2]), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


render = partial(render_pairs, position_bounds=(64, 56), flow_field_res_x=1.0, flow_field_res_y=1.0)


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "the smallest particles, mostly hidden in one image": {
        "diameter_ranges": [(0.1, 0.3)],
        "p_hide_img1": 0.0,
        "p_hide_img2": 0.9,
    },
    "several ranges of everything, another time step": {
        "diameter_ranges": [(3.0, 4.0), (0.1, 1.0), (0.1, 4.0)],
        "diameter_var": 1.0,
        "intensity_ranges": [(50, 100), (200, 255)],
        "rho_ranges": [(-0.9, 0.9), (0.0, 0.0), (-0.9, -0.8)],
        "rho_var": 1.0,
        "seeding_density_range": (0.001, 0.1),
        "batch_size": 12,
        "dt": 0.37,
    },
    "many large particles, no noise": {
        "seeding_density_range": (0.2, 0.2),
        "diameter_ranges": [(3.0, 4.0)],
        "intensity_ranges": [(20, 40)],
        "noise_uniform": 0.0,
        "noise_gaussian_std": 0.0,
        "batch_size": 1,
    },
}


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_images_and_parameters_are_synthpixs(changes: dict[str, Any]) -> None:
    assert_same(*both(specification(**changes), flow(2, 64, 56, speed=4.0)))


def test_flow_fields_may_have_another_resolution_and_particles_may_leave() -> None:
    spec = specification(img_offset=(0, 0), image_shape=(64, 56), diameter_ranges=[(0.5, 2.0)])
    fields = flow(2, 37, 91, speed=25.0)
    # So many particles gather at the border that the float32 sums of synthpix differ more.
    assert_same(*both(spec, fields, res=(1.7, 0.6)), bound=2 * BOUND)


def test_images_may_be_as_small_as_a_particle_and_noisy() -> None:
    spec = specification(
        image_shape=(16, 16),
        img_offset=(0, 0),
        diameter_ranges=[(2.0, 4.0)],
        batch_size=40,
        seeding_density_range=(0.004, 0.06),
        noise_uniform=50.0,
        noise_gaussian_mean=10.0,
        noise_gaussian_std=20.0,
    )
    assert_same(*both(spec, flow(1, 16, 16, speed=2.0), bounds=(16, 16)))


def test_images_may_be_empty_of_particles() -> None:
    spec = specification(
        seeding_density_range=(0.0, 0.0), noise_uniform=0.0, noise_gaussian_std=0.0
    )
    images = jax.jit(partial(render, specification=spec))(
        jax.random.PRNGKey(0), flow(1, 64, 56, speed=2.0)
    )
    assert not images[0].any()
    assert not images[1].any()


def test_mask_is_applied_and_histogram_is_matched() -> None:
    histogram = np.zeros(256)
    histogram[10:74] = 48 * 40 / 64
    mask = np.random.default_rng(0).integers(0, 2, (48, 40))
    theirs, ours = both(
        specification(),
        flow(1, 64, 56, speed=2.0),
        histogram=jnp.asarray(histogram),
        mask=jnp.asarray(mask),
    )
    for expected, got in zip(theirs[:2], ours[:2], strict=True):
        # Matching turns the last bit of a pixel on the edge of a bin into a whole grey level.
        assert np.mean(np.abs(np.asarray(got - expected)) > BOUND) < 1e-3


def test_memory_bound_changes_no_bit() -> None:
    draw = partial(render, specification=specification(batch_size=5))
    key, fields = jax.random.PRNGKey(2), flow(2, 64, 56, speed=4.0)
    expected = jax.jit(draw)(key, fields)
    # Three chunks of two pairs, of which one is dropped, and several blocks of particles.
    got = jax.jit(partial(draw, working_bytes=20_000))(key, fields)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_array_equal(a, b)


def cloud(count: int, *, seed: int, images: int = 2, size: float = 40.0) -> Particles:
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> jax.Array:
        return jnp.asarray(rng.uniform(low, high, (images, count)), jnp.float32)

    return Particles(
        y=draw(-5, size + 5),
        x=draw(-5, size + 5),
        diameter_y=draw(0.3, 3.0),
        diameter_x=draw(0.3, 3.0),
        rho=draw(-0.9, 0.9),
        intensity=draw(0.0, 255.0),
    )


render_cloud = jax.jit(
    partial(splat, bounds=(40, 43), radius=4, brightest=255.0), static_argnames="block"
)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_of_particles_changes_no_bit(seed: int) -> None:
    particles = cloud(500, seed=seed)
    order = np.random.default_rng(seed).permutation(500)
    shuffled = jax.tree.map(lambda v: v[:, order], particles)
    np.testing.assert_array_equal(render_cloud(particles), render_cloud(shuffled))


@pytest.mark.parametrize("block", [1, 7, 499, 500, 1000])
def test_blocks_of_particles_change_no_bit(block: int) -> None:
    particles = cloud(500, seed=1)
    np.testing.assert_array_equal(render_cloud(particles), render_cloud(particles, block=block))


def test_images_do_not_touch_each_other() -> None:
    particles = cloud(500, seed=2, images=3)
    alone = particles._replace(
        intensity=particles.intensity * jnp.asarray([[0.0], [1.0], [0.0]], jnp.float32)
    )
    together, middle = render_cloud(particles), render_cloud(alone)
    np.testing.assert_array_equal(together[1], middle[1])
    assert not middle[0].any()
    assert not middle[2].any()


@pytest.mark.parametrize(
    ("bounds", "diameter"),
    [((40, 43), 3.0), ((33, 9), 3.0), ((8, 5), 3.0), ((3, 2), 3.0), ((40, 20), 0.5)],
)
def test_borders_are_treated_as_synthpix_does(bounds: tuple[int, int], diameter: float) -> None:
    """Clipped centres, windows that overhang by rounding, and windows larger than the image."""
    particles = cloud(200, seed=3, images=1, size=float(max(bounds)))
    particles = particles._replace(
        diameter_y=jnp.minimum(particles.diameter_y, diameter),
        diameter_x=jnp.minimum(particles.diameter_x, diameter),
    )
    theirs = jax.jit(partial(reference, bounds=bounds, diameter=diameter))(particles)
    ours = jax.jit(partial(splat, bounds=bounds, radius=int(3 * diameter / 2), brightest=255.0))(
        particles
    )[0]
    scale = max(1.0, float(jnp.max(theirs)) / 255.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND * scale)


def reference(particles: Particles, *, bounds: tuple[int, int], diameter: float) -> jax.Array:
    p = jax.tree.map(lambda v: v[0], particles)
    image: jax.Array = img_gen_from_data(
        particle_positions=jnp.stack([p.y, p.x], axis=-1),
        image_shape=bounds,
        max_diameter=diameter,
        diameters_x=p.diameter_x,
        diameters_y=p.diameter_y,
        intensities=p.intensity,
        rho=p.rho,
        clip=False,
    )
    return image


@pytest.mark.parametrize("count", [100, 200, 5_000, 100_000])
@pytest.mark.parametrize("centre", [20.0, 22.0])
def test_sums_cannot_overflow_however_particles_gather(count: int, centre: float) -> None:
    everything = jnp.ones((1, count), jnp.float32)
    # The windows of those around 22 start in four cells of the grid that bounds the sums.
    particles = Particles(
        y=centre - 0.001 * (jnp.arange(count) % 2)[None],
        x=centre - 0.001 * (jnp.arange(count) // 2 % 2)[None],
        diameter_y=2 * everything,
        diameter_x=2 * everything,
        rho=0 * everything,
        intensity=255 * everything,
    )
    middle = render_cloud(particles)[0, int(centre), int(centre)]
    # Half a unit of the coarsest resolution that is used, for each of the particles.
    unit = max(2.0**-MAX_FRACTIONAL_BITS, 2.0 * 257 * count / 2**31)
    assert float(middle) == pytest.approx(255.0 * count, rel=2e-6, abs=0.5 * unit * count)


def test_a_crowd_in_one_image_leaves_the_others_exact() -> None:
    particles = cloud(20_000, seed=4)
    crowded = particles._replace(y=particles.y.at[0].set(20.0), x=particles.x.at[0].set(20.0))
    np.testing.assert_array_equal(render_cloud(particles)[1], render_cloud(crowded)[1])


def test_positions_that_are_not_finite_harm_no_other_image() -> None:
    particles = cloud(50, seed=5)
    odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf] * 16 + [0.0, 0.0])
    broken = particles._replace(y=particles.y.at[0].set(odd))
    image = render_cloud(broken)
    np.testing.assert_array_equal(image[1], render_cloud(particles)[1])
    assert np.isfinite(image).all()


def unmade(images: int, count: int) -> Particles:
    """Particles of which only the shape exists."""
    array: Any = jax.ShapeDtypeStruct((images, count), jnp.float32)
    return Particles(*[array] * 6)


def test_more_than_31_bits_are_refused() -> None:
    particles = unmade(1, 10**7)
    with pytest.raises(ValueError, match="31 bits hold"):
        jax.eval_shape(partial(splat, bounds=(64, 64), radius=1, brightest=255.0), particles)


def test_more_pixels_than_an_index_counts_are_refused() -> None:
    particles = unmade(40, 10)
    with pytest.raises(ValueError, match="fewer images at once"):
        jax.eval_shape(partial(splat, bounds=(8192, 8192), radius=1, brightest=1.0), particles)


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
