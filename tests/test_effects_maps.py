"""Density image, body and background: what they do to positions, labels and light."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthpix_torch.render.effects.background import gradient
from synthpix_torch.render.effects.body import fluid_labels, outside
from synthpix_torch.render.effects.domains import Domain, effect_key
from synthpix_torch.render.effects.seeding import accept


def positions(count: int, *, low: float, high: float) -> tuple[jax.Array, jax.Array]:
    y, x = jax.random.uniform(jax.random.PRNGKey(1), (2, count), minval=low, maxval=high)
    return y, x


def test_particles_follow_the_density_image() -> None:
    """Counts in each pixel are binomial with the density of that pixel."""
    density = np.random.default_rng(0).uniform(0.0, 1.0, (8, 8)).astype(np.float32)
    density[0, 0], density[3, 4] = 0.0, 1.0
    count = 2_000_000
    y, x = positions(count, low=-0.5, high=7.5)
    kept = np.asarray(accept(jax.random.PRNGKey(2), y, x, density=jnp.asarray(density)))
    edges = np.arange(9) - 0.5
    seeded, _, _ = np.histogram2d(np.asarray(y), np.asarray(x), bins=(edges, edges))
    found, _, _ = np.histogram2d(np.asarray(y)[kept], np.asarray(x)[kept], bins=(edges, edges))
    deviation = np.sqrt(seeded * density * (1 - density))
    np.testing.assert_array_less(np.abs(found - seeded * density), 5 * deviation + 1e-9 + 2)


def test_the_density_image_continues_beyond_its_border() -> None:
    density = jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
    y, x = jnp.asarray([-9.0, -9.0, 9.0]), jnp.asarray([-9.0, 9.0, -9.0])
    kept = accept(jax.random.PRNGKey(0), y, x, density=density)
    np.testing.assert_array_equal(kept, [False, True, True])


def test_a_particle_belongs_to_the_pixel_that_it_lies_in() -> None:
    body = jnp.zeros((5, 5), bool).at[2, 3].set(True)
    y, x = jnp.asarray([1.51, 2.49, 2.0, 1.49, 2.0]), jnp.asarray([3.0, 3.0, 3.49, 3.0, 2.49])
    np.testing.assert_array_equal(outside(y, x, body=body), [False, False, False, True, True])


def test_a_body_at_the_border_continues_beyond_it() -> None:
    body = jnp.zeros((4, 4), bool).at[0].set(True)
    y, x = jnp.asarray([-7.0, 7.0]), jnp.asarray([1.0, 1.0])
    np.testing.assert_array_equal(outside(y, x, body=body), [False, True])


@pytest.mark.parametrize(("shape", "pixels"), [((6, 8), 1.0), ((3, 4), 2.0), ((12, 16), 0.5)])
def test_labels_in_the_body_are_those_of_its_pixels(shape: tuple[int, int], pixels: float) -> None:
    body = np.zeros((6, 8), bool)
    body[2:4, 5:] = True
    fluid = fluid_labels(body, label_shape=shape, pixels_per_label=pixels)
    assert fluid.shape == shape
    for (row, column), free in np.ndenumerate(fluid):
        y, x = min(round(row * pixels), 5), min(round(column * pixels), 7)
        assert free == (not body[y, x])


@pytest.mark.parametrize("rise", [(0.0, 0.0), (12.0, 0.0), (-12.0, 5.0), (3.0, -30.0)])
def test_a_background_gradient_rises_from_a_black_corner(rise: tuple[float, float]) -> None:
    light = gradient((11, 21), rise)
    assert light.min() == 0.0
    assert light[-1, 0] - light[0, 0] == pytest.approx(rise[0])
    assert light[0, -1] - light[0, 0] == pytest.approx(rise[1])
    np.testing.assert_allclose(np.diff(light, n=2, axis=0), 0, atol=1e-5)


def test_keys_of_effects_differ_from_each_other_and_from_those_of_particles() -> None:
    pair = jax.random.PRNGKey(7)
    keys = [effect_key(pair, domain, image) for domain in Domain for image in range(2)]
    keys += list(jax.random.split(pair, 64)) + [jax.random.fold_in(pair, i) for i in range(64, 128)]
    # Without a domain, split and fold_in with small numbers give the same keys.
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == len(keys)
