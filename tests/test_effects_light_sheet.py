"""Light sheet: the loss and gain of particles against closed forms of the literature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthpix_torch.render.effects.light_sheet import (
    LightSheet,
    Profile,
    correlation_factor,
    illumination,
    seed_depths,
)

PROFILES: tuple[Profile, ...] = ("top-hat", "gaussian")


def lit(
    sheet: LightSheet, displacement: jax.Array | float, *, count: int = 400_000
) -> tuple[np.ndarray, np.ndarray]:
    """Light of the same particles in the first and in the second image."""
    z = seed_depths(jax.random.PRNGKey(5), sheet=sheet, count=count)
    first, second = (illumination(depth, sheet=sheet) for depth in (z, z + displacement))
    return np.asarray(first, np.float64), np.asarray(second, np.float64)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("displacement", [0.0, 0.2, -0.5, 0.9, 1.5])
def test_out_of_plane_motion_leaves_the_correlation_of_keane_and_adrian(
    profile: Profile, displacement: float
) -> None:
    thickness = 0.7
    moved = displacement * thickness
    sheet = LightSheet(profile, thickness, moved, moved, moved)
    first, second = lit(sheet, moved)
    measured = (first * second).mean() / (first**2).mean()
    expected = {
        "top-hat": max(0.0, 1.0 - abs(displacement)),
        "gaussian": np.exp(-4.0 * displacement**2),
    }[profile]
    assert measured == pytest.approx(expected, abs=0.01)
    assert correlation_factor(moved, sheet=sheet) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("profile", PROFILES)
def test_both_images_are_equally_bright_in_flow_of_both_signs(profile: Profile) -> None:
    """Gain equals loss when the slab covers the slowest and the fastest particle."""
    sheet = LightSheet(profile, 2.0, 0.0, -1.5, 1.0)
    displacement = jnp.linspace(-1.5, 1.0, 400_000)
    first, second = lit(sheet, displacement)
    assert second.mean() == pytest.approx(first.mean(), rel=0.02)
    early, late = np.split(second, 2)
    assert early.mean() == pytest.approx(late.mean(), rel=0.02)


@pytest.mark.parametrize("displacement", [0.0, 0.3, -0.8])
def test_a_top_hat_lights_the_configured_number_of_particles(displacement: float) -> None:
    sheet = LightSheet("top-hat", 1.0, displacement, displacement, displacement)
    seeded = round(100_000 * sheet.slab_thicknesses)
    for image in lit(sheet, displacement, count=seeded):
        assert image.sum() == pytest.approx(100_000, rel=0.01)


def test_a_gaussian_sheet_scatters_its_integral() -> None:
    sheet = LightSheet("gaussian", 1.0)
    first, _ = lit(sheet, 0.0)
    # Per particle of the nominal thickness: sqrt(pi / 8).
    assert first.mean() * sheet.slab_thicknesses == pytest.approx(np.sqrt(np.pi / 8), rel=0.01)


def test_a_gaussian_sheet_is_thick_at_exp_minus_2() -> None:
    edge = illumination(jnp.asarray([-0.35, 0.35]), sheet=LightSheet("gaussian", 0.7))
    np.testing.assert_allclose(edge, np.exp(-2.0), rtol=1e-6)


def test_a_sheet_without_motion_seeds_no_deeper_than_its_top_hat() -> None:
    sheet = LightSheet("top-hat", 0.4)
    assert sheet.slab_thicknesses == pytest.approx(1.0)
    first, second = lit(sheet, 0.0, count=10_000)
    assert first.min() == second.min() == 1.0
