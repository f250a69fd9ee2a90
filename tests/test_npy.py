"""Flow fields from .npy files are what np.load makes of them, and nothing is parsed for it."""

import ast
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import base

from synthpix_torch import SynthPixDataset
from synthpix_torch.data.formats.npy import NumpyFields

SOME = np.random.default_rng(0).normal(size=(6, 5, 2))


def load(source: NumpyFields, path: Path) -> Any:
    return source.load_file(str(path))["flow_fields"]


@pytest.mark.parametrize(
    "array",
    [
        SOME.astype(np.float32),
        SOME,
        SOME.astype(">f4"),
        np.asfortranarray(SOME),
        (SOME * 100).astype(np.int16),
        SOME[:0],
        SOME[0, 0, 0],
    ],
    ids=["float32", "float64", "big-endian", "by column", "int16", "empty", "scalar"],
)
def test_an_array_is_what_numpy_makes_of_the_file(array: np.ndarray, tmp_path: Path) -> None:
    for number in range(2):
        np.save(tmp_path / f"flow_{number}.npy", array + number)
    source = NumpyFields(str(tmp_path))
    for number in (0, 1, 0):
        expected = np.load(tmp_path / f"flow_{number}.npy")
        read = load(source, tmp_path / f"flow_{number}.npy")
        assert (read.dtype, read.shape, read.strides) == (
            expected.dtype,
            expected.shape,
            expected.strides,
        )
        assert read.flags.writeable
        np.testing.assert_array_equal(read, expected)


def test_files_with_other_headers_are_read_as_they_are(tmp_path: Path) -> None:
    as_many_bytes: list[np.ndarray] = [
        SOME.reshape(5, 6, 2),
        np.asfortranarray(SOME),
        (SOME * 100).astype(np.int64),
        np.concatenate([SOME, SOME]).astype(np.float32),
    ]
    arrays: list[np.ndarray] = [SOME, *as_many_bytes, SOME.astype(np.float32), SOME[:3], SOME + 1]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"flow_{number}.npy", array)
    with (tmp_path / f"flow_{len(arrays)}.npy").open("wb") as file:
        np.lib.format.write_array(file, SOME, version=(2, 0))
    source = NumpyFields(str(tmp_path))
    for number, array in enumerate([*arrays, SOME]):
        read = load(source, tmp_path / f"flow_{number}.npy")
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: raw[:-5], "is not complete: it has .* bytes, an array of float64"),
        (lambda raw: raw[:100], "is not a .npy file: its header is corrupt"),
        (lambda raw: b"text", "is not a .npy file: it begins with b'text'"),
        (lambda raw: b"PK\3\4", "is not a .npy file"),
        (
            lambda raw: raw.replace(b"(6, 5, 2), } ", b"(6, -5, 2), }"),
            "must hold an array of numbers",
        ),
        (lambda raw: raw.replace(b"(6, 5, 2)", b"(6, 5e9)"), "is not a .npy file: its header"),
        (lambda raw: raw.replace(b"5, 2), }  ", b"5, 10**9)}"), "is not a .npy file: its header"),
        (lambda raw: raw.replace(b"5, 2), }    ", b"5, 20000), }"), "is not complete"),
        (lambda raw: raw.replace(b"<f8", b"|O8"), "is not a .npy file: its header|of numbers"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_and_named(
    known: bool, spoil: Any, message: str, tmp_path: Path
) -> None:
    whole, spoiled = tmp_path / "flow_0.npy", tmp_path / "flow_1.npy"
    np.save(whole, SOME)
    raw = whole.read_bytes()
    assert spoil(raw) != raw
    spoiled.write_bytes(spoil(raw))
    source = NumpyFields(str(tmp_path))
    if known:
        load(source, whole)
    with pytest.raises(ValueError, match=rf"flow_1\.npy {message}"):
        load(source, spoiled)


def test_a_pipe_among_the_files_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "flow_0.npy")
    with pytest.raises(ValueError, match=r"flow_0\.npy is not a regular file"):
        load(NumpyFields(str(tmp_path)), tmp_path / "flow_0.npy")


def test_nothing_is_parsed_once_the_first_record_was_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Any] = []
    parse = ast.parse

    def count(*args: Any, **options: Any) -> Any:
        parsed.append(args)
        return parse(*args, **options)

    monkeypatch.setattr(ast, "parse", count)
    config = base(scheduler_class=".npy", file_list=[str(data / "npy")])
    with SynthPixDataset(config) as dataset:
        assert parsed
        parsed.clear()
        read = {file for batch in itertools.islice(dataset, 4) for file in batch.files}
    assert len(read) > 4
    assert parsed == []
