"""Recorded pairs are served as they are, and their fields in pixels of their images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from kinds import KINDS, write_mat

from synthpix_torch import SynthPixDataset


def real(folder: Path, **changes: Any) -> dict[str, Any]:
    config = KINDS["real"](folder) | {"file_list": [str(folder)], "batch_size": 1, **changes}
    return {key: value for key, value in config.items() if value is not None}


def shifted_pairs(folder: Path, *, grid: tuple[int, int], size: tuple[int, int]) -> None:
    """Pairs whose second image is the first, moved by 3 px to the right and 2 px down."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        first = rng.integers(0, 255, size, np.uint8)
        second = np.roll(first, (2, 3), axis=(0, 1))
        field = np.broadcast_to(np.array([3.0, 2.0], np.float32), (*grid, 2))
        scipy.io.savemat(folder / f"{number:03}.mat", {"V": field, "I0": first, "I1": second})


def test_images_are_served_in_their_own_shape_by_default(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    saved = scipy.io.loadmat(tmp_path / "000.mat")
    with SynthPixDataset(real(tmp_path, image_shape=None)) as dataset:
        batch = dataset.batch_at(0)
    np.testing.assert_array_equal(batch.images[0], np.stack([saved["I0"], saved["I1"]]))
    np.testing.assert_array_equal(batch.flow_fields[0], np.moveaxis(saved["V"], 2, 0))


def test_a_state_knows_the_shape_whether_it_was_given_or_not(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    with (
        SynthPixDataset(real(tmp_path, image_shape=None)) as one,
        SynthPixDataset(real(tmp_path, image_shape=(20, 16))) as other,
    ):
        assert one.state_dict() == other.state_dict()


def test_another_shape_is_refused_with_both(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    with pytest.raises(
        ValueError,
        match=r"images of shape \(20, 16\), but image_shape is \(16, 16\).*or set crop",
    ):
        SynthPixDataset(real(tmp_path))


def test_a_crop_is_cut_from_images_and_labels(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    saved = scipy.io.loadmat(tmp_path / "000.mat")
    config = real(tmp_path, image_shape=(8, 6), crop=(11, 10))
    with SynthPixDataset(config) as dataset:
        batch = dataset.batch_at(0)
    assert np.array_equal(batch.images[0, 1], saved["I1"][11:19, 10:16])
    assert np.array_equal(batch.flow_fields[0, 0], saved["V"][11:19, 10:16, 0])


@pytest.mark.parametrize("crop", [(13, 0), (0, 11)])
def test_a_crop_that_does_not_fit_is_refused(crop: tuple[int, int], tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    with pytest.raises(ValueError, match=r"crop of shape \(8, 6\) at .* does not fit .*\(20, 16\)"):
        SynthPixDataset(real(tmp_path, image_shape=(8, 6), crop=crop))


def test_the_renderer_of_synthpix_resizes_and_crops_not(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    with SynthPixDataset(real(tmp_path), renderer="synthpix") as dataset:
        assert dataset.batch_at(0).images.shape == (1, 2, 16, 16)
    with pytest.raises(ValueError, match="resizes recorded images to image_shape: leave out crop"):
        SynthPixDataset(real(tmp_path, crop=(0, 0)), renderer="synthpix")


def test_images_of_several_shapes_are_refused(tmp_path: Path) -> None:
    write_mat(tmp_path, 2, (20, 16))
    write_mat(tmp_path / "other", 1, (20, 18))
    (tmp_path / "other" / "000.mat").rename(tmp_path / "001.mat")
    with (
        SynthPixDataset(real(tmp_path, image_shape=None)) as dataset,
        pytest.raises(ValueError, match=r"Record 1 .*of shape \(20, 18\), not of shape \(20, 16\)"),
    ):
        dataset.batch_at(1)


@pytest.mark.parametrize("grid", [(16, 16), (64, 64), (5, 128)])
def test_labels_are_what_the_image_moves_whatever_the_grid(
    grid: tuple[int, int], tmp_path: Path
) -> None:
    shifted_pairs(tmp_path, grid=grid, size=(64, 64))
    with SynthPixDataset(real(tmp_path, image_shape=None)) as dataset:
        batch = dataset.batch_at(0)
    right, down = (int(batch.flow_fields[0, channel, 30, 40]) for channel in (0, 1))
    first, second = batch.images[0].numpy()
    assert np.array_equal(np.roll(first, (down, right), axis=(0, 1)), second)
    assert (batch.flow_fields[0, 0] == 3).all()
    assert (batch.flow_fields[0, 1] == 2).all()


@pytest.mark.parametrize("crop", [None, (7, 3)])
@pytest.mark.parametrize("grid", [(16, 24), (60, 24), (13, 17), (120, 96)])
def test_a_linear_field_on_any_grid_gives_its_values_at_the_pixels(
    grid: tuple[int, int], crop: tuple[int, int] | None, tmp_path: Path
) -> None:
    size = (60, 48)
    sample_y, sample_x = (np.arange(n) * whole / n for n, whole in zip(grid, size, strict=True))

    def flow(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = np.meshgrid(y, x, indexing="ij")
        return np.stack([0.03 * x - 0.02 * y + 1, 0.01 * x + 0.025 * y - 1], axis=-1)

    image = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    scipy.io.savemat(
        tmp_path / "000.mat", {"V": flow(sample_y, sample_x), "I0": image, "I1": image}
    )
    shape = None if crop is None else (20, 30)
    with SynthPixDataset(real(tmp_path, image_shape=shape, crop=crop)) as dataset:
        labels = dataset.batch_at(0).flow_fields[0].numpy()
    first_y, first_x = crop or (0, 0)
    y = np.arange(first_y, first_y + labels.shape[1])
    x = np.arange(first_x, first_x + labels.shape[2])
    # Beyond the last sample the field is constant.
    expected = flow(np.minimum(y, sample_y[-1]), np.minimum(x, sample_x[-1]))
    np.testing.assert_allclose(np.moveaxis(labels, 0, 2), expected, atol=1e-5)
