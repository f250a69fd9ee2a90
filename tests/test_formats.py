"""Formats of flow fields and image pairs: right values, or a refusal that says why."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from kinds import KINDS, fields
from PIL import Image
from synthpix.data_sources import MATDataSource

from synthpix_torch import StateMismatchError, SynthPixDataset
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.analytic import FLOWS
from synthpix_torch.data.files import FORMATS
from synthpix_torch.data.records import Record, Records

H, W = 24, 20
FIELD = fields(1, (H, W))[0]
PAIR = np.random.default_rng(0).integers(0, 256, (2, H, W)).astype(np.uint8)


def flo_bytes(field: np.ndarray, *, order: str = "<") -> bytes:
    height, width = field.shape[:2]
    header = struct.pack(f"{order}fii", 202021.25, width, height)
    return header + field.astype(f"{order}f4").tobytes()


def write_hdf5(path: Path, variables: dict[str, np.ndarray], *, matlab: bool = False) -> None:
    """Write as h5py does, or as MATLAB 7.3: dimensions reversed, with its attribute and header."""
    with h5py.File(path, "w", userblock_size=512 if matlab else 0) as file:
        for name, array in variables.items():
            file[name] = array.T if matlab else array
            if matlab:
                file[name].attrs["MATLAB_class"] = np.bytes_(b"double")
    if matlab:
        with open(path, "r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_pair(folder: Path, name: str = "a") -> None:
    (folder / f"{name}_flow.flo").write_bytes(flo_bytes(FIELD))
    for i, image in enumerate(PAIR, start=1):
        Image.fromarray(image).save(folder / f"{name}_img{i}.tif")


def configured(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    """A configuration of one recorded pair a batch, at its own size, or of rendered pairs."""
    if changes.get("include_images", False):
        config = KINDS["real"](folder) | {"batch_size": 1, "image_shape": None}
    else:
        config = KINDS["npy, few, in order"](folder) | {"image_shape": (16, 12)}
        config |= {"flow_field_size": (H, W), "flow_fields_per_batch": 1, "batch_size": 1}
    config |= {"file_list": [str(folder)], "scheduler_class": kind, **changes}
    return {key: value for key, value in config.items() if value is not None}


def below(folder: Path) -> Path:
    (folder / "b").mkdir()
    return folder / "b" / "a.flo"


def first(folder: Path, kind: str, **changes: Any) -> Record:
    return Records(read_config(configured(folder, kind, **changes))).read(0)


U, V = FIELD[..., 0], FIELD[..., 1]
WRITERS: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any]]] = {
    "flo": (".flo", lambda d: (d / "a.flo").write_bytes(flo_bytes(FIELD)), {}),
    "flo in a folder below": (
        ".flo",
        lambda d: below(d).write_bytes(flo_bytes(FIELD)),
        {},
    ),
    "h5, one dataset": (".h5", lambda d: write_hdf5(d / "a.h5", {"a": FIELD, "b": U}), {}),
    "h5, u and v": (".h5", lambda d: write_hdf5(d / "a.h5", {"p": U, "u": U, "v": V}), {}),
    "h5, one named": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"a": U, "deep/flow": FIELD}),
        {"flow_variables": "deep/flow"},
    ),
    "h5, two named": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"a": FIELD * 2, "vx": U, "vy": V}),
        {"flow_variables": ["vx", "vy"]},
    ),
    "h5, components first": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"flow": np.moveaxis(FIELD, 2, 0)}),
        {},
    ),
    "mat": (".mat", lambda d: scipy.io.savemat(d / "a.mat", {"V": FIELD}), {}),
    "mat, components first": (
        ".mat",
        lambda d: scipy.io.savemat(d / "a.mat", {"V": np.moveaxis(FIELD, 2, 0)}),
        {},
    ),
    "mat, two named": (
        ".mat",
        lambda d: scipy.io.savemat(d / "a.mat", {"V": FIELD * 2, "vx": U, "vy": V}),
        {"flow_variables": ["vx", "vy"]},
    ),
    "mat 7.3": (".mat", lambda d: write_hdf5(d / "a.mat", {"V": FIELD}, matlab=True), {}),
    "mat 7.3, components first": (
        ".mat",
        lambda d: write_hdf5(d / "a.mat", {"V": np.moveaxis(FIELD, 2, 0)}, matlab=True),
        {},
    ),
    "mat 7.3, two named": (
        ".mat",
        lambda d: write_hdf5(d / "a.mat", {"data/u": U, "data/v": V}, matlab=True),
        {"flow_variables": ["data/u", "data/v"]},
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_flow_field_has_the_values_of_its_file(name: str, tmp_path: Path) -> None:
    kind, write, changes = WRITERS[name]
    write(tmp_path)
    read = first(tmp_path, kind, **changes).flow_field
    assert read is not None
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, FIELD)


def test_fields_of_matlab_7_3_keep_their_axes_which_synthpix_swaps(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.mat", {"V": FIELD}, matlab=True)
    theirs = MATDataSource([str(tmp_path)], output_shape=(W, H))[0]["flow_fields"]
    np.testing.assert_array_equal(theirs, np.swapaxes(FIELD, 0, 1))
    np.testing.assert_array_equal(np.asarray(first(tmp_path, ".mat").flow_field), FIELD)


IMAGES = dict(zip(("I0", "I1"), PAIR, strict=True))
OTHERS = dict(zip(("first", "second"), PAIR, strict=True))
PAIRS: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any]]] = {
    "flo and tif": (".flo", write_pair, {}),
    "h5, u and v": (".h5", lambda d: write_hdf5(d / "a.h5", {"u": U, "v": V, **IMAGES}), {}),
    "h5, one": (".h5", lambda d: write_hdf5(d / "a.h5", {"flow": FIELD, **IMAGES}), {}),
    "mat": (".mat", lambda d: scipy.io.savemat(d / "a.mat", {"V": FIELD, **IMAGES}), {}),
    "mat 7.3": (".mat", lambda d: write_hdf5(d / "a.mat", {"V": FIELD, **IMAGES}, matlab=True), {}),
    "mat, named": (
        ".mat",
        lambda d: scipy.io.savemat(d / "a.mat", {"V": FIELD, **OTHERS}),
        {"image_variables": ["first", "second"]},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_recorded_pairs_come_at_their_own_size_with_their_displacements(
    name: str, tmp_path: Path
) -> None:
    kind, write, changes = PAIRS[name]
    write(tmp_path)
    record = first(tmp_path, kind, include_images=True, **changes)
    assert record.images is not None
    np.testing.assert_array_equal(np.stack(record.images), PAIR)
    np.testing.assert_array_equal(np.asarray(record.flow_field), FIELD)


def test_image_pairs_beside_flo_files_reach_the_batch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    with SynthPixDataset(configured(tmp_path, ".flo", include_images=True)) as dataset:
        batch = dataset.batch_at(1)
    np.testing.assert_array_equal(batch.images[0], PAIR)
    np.testing.assert_array_equal(batch.flow_fields[0], np.moveaxis(FIELD, 2, 0))
    assert batch.files == (str(tmp_path / "b_flow.flo"),)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tif_images_keep_their_grey_levels(dtype: Any, tmp_path: Path) -> None:
    write_pair(tmp_path)
    deep = PAIR[0].astype(dtype) * 16
    Image.fromarray(deep).save(tmp_path / "a_img1.tif")
    record = first(tmp_path, ".flo", include_images=True)
    assert record.images is not None
    assert record.images[0].dtype == dtype
    np.testing.assert_array_equal(record.images[0], deep)


def _unknown(field: np.ndarray) -> np.ndarray:
    spoiled = field.copy()
    spoiled[3, 4:6] = 1e9
    return spoiled


GOOD = flo_bytes(FIELD)
SPOILED = {
    "other magic": (b"PIEG" + GOOD[4:], r"a\.flo is not a \.flo file.*202021\.25"),
    "empty": (b"", r"a\.flo is not a \.flo file"),
    "header alone": (GOOD[:10], r"a\.flo is not a \.flo file"),
    "big-endian": (flo_bytes(FIELD, order=">"), r"a\.flo is a big-endian"),
    "cut": (GOOD[:-5], r"a\.flo is corrupt: 20 x 24 vectors need 3852 bytes, it has 3847"),
    "too long": (GOOD + b"\0", r"a\.flo is corrupt: .* need 3852 bytes, it has 3853"),
    "huge": (GOOD[:4] + b"\xff\xff\xff\x7f" * 2 + GOOD[12:], r"a\.flo is corrupt: 2147483647 x"),
    "negative": (GOOD[:4] + struct.pack("<ii", -20, -24) + GOOD[12:], r"corrupt: -20 x -24"),
    "unknown": (flo_bytes(_unknown(FIELD)), r"a\.flo has 2 unknown vectors .*: fill them"),
    "NaN": (flo_bytes(FIELD * np.nan), r"a\.flo.* holds NaN"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_flo_file_that_is_corrupt_or_unknown_is_refused(name: str, tmp_path: Path) -> None:
    content, message = SPOILED[name]
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        first(tmp_path, ".flo")


def _save(image: Image.Image, **options: Any) -> Callable[[Path], Any]:
    return lambda folder: image.save(folder / "a_img2.tif", **options)


GREY = Image.fromarray(PAIR[1])
BAD_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda d: (d / "a_img2.tif").unlink(), r"a_flow\.flo has no image 2: put a_img2\."),
    "other name": (
        lambda d: (d / "a_flow.flo").rename(d / "a.flo"),
        r"a\.flo has no images: .* named \*_flow\.flo",
    ),
    "colour": (_save(GREY.convert("RGB")), r"a_img2\.tif cannot .* 1 pages of mode RGB"),
    "palette": (_save(GREY.convert("P")), r"a_img2\.tif cannot .* mode P"),
    "two pages": (_save(GREY, save_all=True, append_images=[GREY]), "2 pages of mode L"),
    "no image": (lambda d: (d / "a_img2.tif").write_bytes(b"abc"), r"a_img2\.tif cannot be read"),
    "cut": (
        lambda d: (d / "a_img2.tif").write_bytes((d / "a_img2.tif").read_bytes()[:-60]),
        r"a_img2\.tif cannot be read as an image",
    ),
    "other size": (
        _save(GREY.crop((0, 0, 8, 8))),
        r"a_flow\.flo\) holds an image of shape \(8, 8\), not of shape \(24, 20\)",
    ),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_pair_without_two_grey_images_is_refused(name: str, tmp_path: Path) -> None:
    spoil, message = BAD_IMAGES[name]
    write_pair(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        first(tmp_path, ".flo", include_images=True)


BAD_VARIABLES: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any], str]] = {
    "h5 without the variable": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"a": FIELD, "b": U}),
        {"flow_variables": "flow"},
        r"a\.h5 holds no variable 'flow', but 'a', 'b': set flow_variables",
    ),
    "h5 without images": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"a": FIELD}),
        {"include_images": True},
        r"a\.h5 holds no variable 'I0', but 'a': set image_variables",
    ),
    "h5 with u alone": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"u": U}),
        {},
        r"a\.h5\) must hold numbers of shape \(H, W, 2\), not float32 of shape \(24, 20\)",
    ),
    "h5 with components of two shapes": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"u": U, "v": V.T}),
        {},
        r"a\.h5 holds 'u' of shape \(24, 20\) and 'v' of shape \(20, 24\): both components",
    ),
    "h5 with a group": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {"a/b": FIELD}),
        {},
        r"a\.h5 cannot be read as an HDF5 file: a must be a dataset of numbers",
    ),
    "empty h5": (
        ".h5",
        lambda d: write_hdf5(d / "a.h5", {}),
        {},
        r"a\.h5 cannot .*: it holds no variable",
    ),
    "no h5": (".h5", lambda d: (d / "a.h5").write_bytes(b"abc"), {}, r"a\.h5 cannot be read as"),
    "mat without V": (
        ".mat",
        lambda d: scipy.io.savemat(d / "a.mat", {"u": U, "v": V}),
        {},
        r"a\.mat holds no variable 'V', but 'u', 'v': set flow_variables",
    ),
    "mat 7.3 without V": (
        ".mat",
        lambda d: write_hdf5(d / "a.mat", {"u": U, "v": V}, matlab=True),
        {},
        r"a\.mat holds no variable 'V', but 'u', 'v': set flow_variables",
    ),
    "mat with text": (
        ".mat",
        lambda d: scipy.io.savemat(d / "a.mat", {"V": "abc"}),
        {},
        r"a\.mat cannot be read as a MATLAB file: its variable V is no array of real numbers",
    ),
    "no mat": (".mat", lambda d: (d / "a.mat").write_bytes(b"abc"), {}, r"a\.mat cannot be read"),
}


@pytest.mark.parametrize("name", BAD_VARIABLES)
def test_a_file_without_the_flow_field_is_refused(name: str, tmp_path: Path) -> None:
    kind, write, changes, message = BAD_VARIABLES[name]
    write(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        first(tmp_path, kind, **changes)


def test_names_of_variables_are_part_of_the_state(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", {"one": FIELD, "two": FIELD / 2})
    with (
        SynthPixDataset(configured(tmp_path, ".h5", flow_variables="one")) as one,
        SynthPixDataset(configured(tmp_path, ".h5", flow_variables="two")) as two,
        pytest.raises(StateMismatchError, match=r"flow_variables \(saved \[one\], here \[two\]\)"),
    ):
        two.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (".flo", {"flow_variables": "u"}, "flow_variables names variables .*'.h5', '.mat'"),
        ("kinematic", {"image_variables": ["a", "b"]}, "image_variables names variables of files"),
        (".flo", {"include_images": True}, r"synthpix reads no recorded images from \.flo files"),
    ],
)
def test_keys_that_a_format_or_synthpix_cannot_use_are_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        SynthPixDataset(configured(tmp_path, kind, **changes), renderer="synthpix")


def test_the_page_on_own_data_has_every_format_and_flow() -> None:
    page = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text()
    assert [name for name in (*FORMATS, *FLOWS) if f"{name}`" not in page] == []
