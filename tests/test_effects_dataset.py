"""Effects in whole batches: off without a trace, on with the statistics of their closed forms."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import base

from synthpix_torch import SynthPixDataset

pytestmark = pytest.mark.filterwarnings("ignore::synthpix_torch.config.plausibility.PhysicsWarning")

SHAPE = (64, 64)
STILL = np.zeros((1, 80, 80, 2), np.float32)
NEUTRAL: dict[str, Any] = {
    "sheet_profile": "none",
    "out_of_plane_displacement": 0,
    "electrons_per_grey_level": 0.0,
    "gain": 1,
    "bit_depth": 0,
    "background_gradient": (0, 0),
}


def config(**changes: Any) -> dict[str, Any]:
    """Particles of one size and intensity, without noise, in fields of the user's own."""
    settings = base(
        batch_size=8,
        flow_fields_per_batch=1,
        image_shape=SHAPE,
        flow_field_size=(80.0, 80.0),
        img_offset=(8.0, 8.0),
        seeding_density_range=(0.05, 0.05),
        p_hide_img1=0.0,
        p_hide_img2=0.0,
        diameter_ranges=[(2.0, 2.0)],
        diameter_var=0.0,
        intensity_ranges=[(100, 100)],
        intensity_var=0.0,
        rho_ranges=[(0.0, 0.0)],
        rho_var=0.0,
        noise_uniform=0.0,
        noise_gaussian_std=0.0,
        randomize=False,
    )
    for key in ("scheduler_class", "num_examples", "filter_sigma_range", "scale_factor_range"):
        del settings[key]
    return {**settings, **changes}


def images(
    settings: dict[str, Any], *, fields: np.ndarray = STILL, batches: Iterable[int] = (0,)
) -> np.ndarray:
    """Images of the batches, (pairs, 2, height, width)."""
    with SynthPixDataset(settings, source=fields) as dataset:
        return np.concatenate([dataset.batch_at(n).images.numpy() for n in batches]).astype(float)


def flow(u: float, v: float, w: np.ndarray | float) -> np.ndarray:
    """A field of three components with uniform u and v."""
    return np.stack(np.broadcast_arrays(u, v, w, np.zeros((80, 80)))[:3], -1)[None].astype("f4")


def save(value: float | np.ndarray, folder: Path) -> str:
    """Save an image as large as those of the dataset."""
    np.save(folder / "image.npy", np.broadcast_to(np.asarray(value), SHAPE))
    return str(folder / "image.npy")


def correlation(pairs: np.ndarray) -> float:
    """Correlation at zero displacement relative to that of the first images with themselves."""
    first, second = (pairs[:, i] - pairs[:, i].mean() for i in range(2))
    return float((first * second).sum() / (first**2).sum())


def test_effects_that_are_off_change_no_bit() -> None:
    moving = flow(1.0, 0.5, 0.0)[..., :2]
    np.testing.assert_array_equal(
        images(config(), fields=moving), images(config(**NEUTRAL), fields=moving)
    )


def test_effects_that_are_off_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(*_: object, **__: object) -> None:
        raise AssertionError("traced")

    names = ("effect_key", "seed_depths", "illumination", "accept", "outside", "expose", "quantise")
    for name in names:
        monkeypatch.setattr(f"synthpix_torch.render.effects.stages.{name}", traced)
    images(config(noise_gaussian_std=1.0), fields=flow(1.0, 0.0, 2.0))


@pytest.mark.filterwarnings("ignore:Record 0 has 3 components")
def test_a_third_component_is_not_used_without_a_light_sheet() -> None:
    with_w = flow(1.0, 0.5, 3.0)
    np.testing.assert_array_equal(
        images(config(), fields=with_w), images(config(), fields=with_w[..., :2])
    )


def test_a_still_top_hat_changes_no_bit() -> None:
    """The sheet lights every particle, and its random depths disturb no other draw."""
    sheet = {"sheet_profile": "top-hat", "sheet_thickness": 1.0}
    np.testing.assert_array_equal(images(config()), images(config(**sheet)))


@pytest.mark.parametrize("profile", ["top-hat", "gaussian"])
@pytest.mark.parametrize("displacement", [0.25, -0.5])
def test_images_lose_the_correlation_of_keane_and_adrian(profile: str, displacement: float) -> None:
    sheet = {
        "sheet_profile": profile,
        "sheet_thickness": 2.0,
        "out_of_plane_displacement": 2.0 * displacement,
    }
    pairs = images(config(**sheet), batches=range(6))
    expected = {"top-hat": 1 - abs(displacement), "gaussian": np.exp(-4 * displacement**2)}
    assert correlation(pairs) == pytest.approx(expected[profile], abs=0.03)
    assert pairs[:, 1].mean() == pytest.approx(pairs[:, 0].mean(), rel=0.03)


def test_a_top_hat_shows_the_configured_density_whatever_the_displacement() -> None:
    plain = images(config(), batches=range(4))
    sheet = {"sheet_profile": "top-hat", "sheet_thickness": 1.0, "out_of_plane_displacement": 0.7}
    lit = images(config(**sheet), batches=range(4))
    assert lit.mean() == pytest.approx(plain.mean(), rel=0.03)


def test_the_third_component_moves_particles_out_of_the_sheet_where_it_blows() -> None:
    """w = 0 on the left and half a thickness per dt on the right."""
    w = np.where(np.arange(80) < 40, 0.0, 1.0)[None]
    settings = config(sheet_profile="top-hat", sheet_thickness=1.0, max_speed_z=1.0, dt=0.5, seed=5)
    pairs = images(settings, fields=flow(0.0, 0.0, w), batches=range(6))
    assert correlation(pairs[..., :28]) == pytest.approx(1.0, abs=1e-3)
    assert correlation(pairs[..., 36:]) == pytest.approx(0.5, abs=0.04)


def test_the_third_component_is_interpolated_between_nodes() -> None:
    """Loss grows linearly with x: its mean over the image is that in the middle."""
    w = np.linspace(0.0, 1.0, 80)[None]
    settings = config(sheet_profile="top-hat", sheet_thickness=1.0, max_speed_z=1.0)
    pairs = images(settings, fields=flow(0.0, 0.0, w), batches=range(8))
    columns = slice(24, 40)
    middle = np.interp(np.arange(8, 72)[columns], np.arange(80), w[0]).mean()
    assert correlation(pairs[..., columns]) == pytest.approx(1 - middle, abs=0.05)


@pytest.mark.filterwarnings("ignore:seeding_density_range reaches 0 particles")
def test_light_of_the_background_has_shot_noise(tmp_path: Path) -> None:
    settings = config(
        seeding_density_range=(0.0, 0.0),
        background=save(60.0, tmp_path),
        electrons_per_grey_level=4.0,
        gain=1.5,
        noise_gaussian_mean=10.0,
        noise_gaussian_std=2.0,
    )
    pairs = images(settings, batches=range(4))
    assert pairs.mean() == pytest.approx(1.5 * 60 + 10, abs=0.1)
    assert pairs.var() == pytest.approx(1.5**2 * 60 / 4 + 2.0**2, rel=0.02)
    # The two images of a pair are exposed independently.
    first, second = pairs[:, 0].ravel(), pairs[:, 1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_shot_noise_moves_no_particle() -> None:
    plain, noisy = images(config()), images(config(electrons_per_grey_level=500.0))
    assert 0 < np.abs(noisy - plain).max() < 8 * np.sqrt(255 / 500)


@pytest.mark.parametrize("bits", [8, 12])
def test_images_have_the_levels_of_the_bit_depth(bits: int) -> None:
    plain, levels = images(config()), images(config(bit_depth=bits))
    numbers = levels * (2**bits - 1) / 255
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-3)
    assert np.abs(levels - plain).max() <= 0.5 * 255 / (2**bits - 1) + 1e-4


@pytest.mark.filterwarnings("ignore:seeding_density_range reaches 0 particles")
def test_a_background_gradient_is_added_to_both_images() -> None:
    pairs = images(config(seeding_density_range=(0.0, 0.0), background_gradient=(0.0, 63.0)))
    np.testing.assert_allclose(pairs[3, 0, 5], np.arange(64.0), atol=1e-4)
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])


def test_images_are_as_bright_as_the_density_image(tmp_path: Path) -> None:
    shares = np.where(np.arange(64) < 32, 0.2, 0.9)[None]
    plain = images(config(), batches=range(6))
    thinned = images(config(seeding_image=save(shares, tmp_path)), batches=range(6))
    for columns, share in ((slice(0, 28), 0.2), (slice(36, 64), 0.9)):
        ratio = thinned[..., columns].mean() / plain[..., columns].mean()
        assert ratio == pytest.approx(share, rel=0.06)
    # Those that remain are the particles of the homogeneous seeding.
    assert (thinned <= plain + 1e-3).all()


def body(folder: Path) -> tuple[np.ndarray, str]:
    y, x = np.mgrid[:64, :64]
    disc = (y - 30) ** 2 + (x - 36) ** 2 < 14**2
    return disc, save(disc, folder)


@pytest.mark.parametrize("u", [0.0, 2.0])
def test_a_body_holds_no_particle_in_either_image(u: float, tmp_path: Path) -> None:
    """Light reaches at most a particle's radius over the edge, and is untouched elsewhere."""
    _, path = body(tmp_path)
    field = flow(u, 0.0, 0.0)[..., :2]
    # A window reaches 2 px to each side of the pixel of its particle.
    small = config(diameter_ranges=[(1.0, 1.0)])
    pairs = images({**small, "body_mask": path}, fields=field, batches=range(3))
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(y - 30, x - 36)
    assert pairs[..., distance < 10.5].max() == 0.0
    plain = images(small, fields=field, batches=range(3))
    np.testing.assert_array_equal(pairs[..., distance > 20], plain[..., distance > 20])


@pytest.mark.parametrize("layout", ["torch", "synthpix"])
def test_labels_in_a_body_are_zero_and_marked(layout: Any, tmp_path: Path) -> None:
    disc, path = body(tmp_path)
    with SynthPixDataset(
        config(body_mask=path), source=flow(2.0, 1.0, 0.0)[..., :2], layout=layout
    ) as dataset:
        batch = dataset.batch_at(0)
    valid = batch.valid_flow_mask
    assert valid is not None
    np.testing.assert_array_equal(valid.numpy(), np.broadcast_to(~disc, (8, 64, 64)))
    labels = np.moveaxis(batch.flow_fields.numpy(), 1 if layout == "torch" else 3, 0)
    assert not labels[:, :, disc].any()
    assert labels[0][:, ~disc] == pytest.approx(2.0)


def test_without_a_body_no_label_is_marked() -> None:
    with SynthPixDataset(config(), source=STILL) as dataset:
        assert dataset.batch_at(0).valid_flow_mask is None


def test_all_effects_together_give_the_same_batch_twice(tmp_path: Path) -> None:
    _, path = body(tmp_path)
    settings = config(
        sheet_profile="gaussian",
        sheet_thickness=1.0,
        max_speed_z=1.0,
        electrons_per_grey_level=20.0,
        bit_depth=12,
        background_gradient=(5.0, 5.0),
        body_mask=path,
    )
    field = flow(1.0, 1.0, 0.5)
    np.testing.assert_array_equal(
        images(settings, fields=field, batches=(3,)), images(settings, fields=field, batches=(3,))
    )


def test_the_renderer_synthpix_refuses_effects() -> None:
    for key, value in (("bit_depth", 8), ("ellipticity", 0.5)):
        with pytest.raises(ValueError, match=f"renderer='synthpix' has no {key}"):
            SynthPixDataset(config(**{key: value}), source=STILL, renderer="synthpix")


def test_bounds_of_w_are_refused_for_fields_of_two_components() -> None:
    settings = config(sheet_profile="gaussian", sheet_thickness=1.0, max_speed_z=1.0)
    with pytest.raises(ValueError, match="third component of flow fields"):
        SynthPixDataset(settings, source=STILL)
