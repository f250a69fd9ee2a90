"""Whatever comes in, the outcome is success or a documented error with one clear sentence.

Random faults with a fixed seed: a few seconds here, many more with `make long`.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from kinds import KINDS, SMALL, fields

from synthpix_torch import SynthPixDataset
from synthpix_torch.config.keys import KEYS
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.formats.mat5 import read_variables
from synthpix_torch.data.records import Records

DOCUMENTED = (ValueError, TypeError, OSError)


def outcome(act: Callable[[], Any]) -> str:
    """Run what may fail; the message of its error, "" if it succeeds."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            act()
    except DOCUMENTED as error:
        message = str(error)
        assert 15 < len(message) < 4000, message
        assert message.isprintable(), repr(message)
        return message
    return ""


# Configurations --------------------------------------------------------------------------------


def _deep(depth: int) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


def _bomb() -> list[Any]:
    value: list[Any] = [1.0]
    for _ in range(60):
        value = [value, value]
    return value


class _Bytes(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"/tmp"


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NUMBERS: list[Any] = [
    *(
        0,
        1,
        -1,
        2,
        3.5,
        -0.0,
        1e-30,
        5e-324,
        1e30,
        1e39,
        1.7e308,
        1e12,
        10**12,
        2**31,
        2**62,
        2**63,
    ),
    *(10**30, 10**400, 10**5000, -(10**30), float("nan"), float("inf"), -float("inf"), True, 1j),
]
VALUES: list[Any] = [
    *NUMBERS,
    *("", "x", "1", "a" * 10**6, "\0", "\x1b[31m", "\ud800", "/", "/dev/zero", "/proc/self/mem"),
    *(
        b"x",
        _Bytes(),
        Path("/nonexistent"),
        None,
        [],
        (),
        {},
        {"a": 1},
        set(),
        object(),
        timedelta(1),
    ),
    *("hf://", "hf://x", "hf://../x", "hf://a/b@", "hf://a/b:../c", "hf://a/b:/c", "hf:///x@y:z"),
    *([1], [1, 2], [2, 1], [-1, 1], [0, 0], [1, 2, 3], ["a", "b"], [[1, 2]], [[2, 1]], [[0, 0]]),
    *([None, None], [1e30, 1e30], [[1e30, 1e31]], [1, 1e39], [10**9, 10**9], [[1, 2]] * 3, [[]]),
    *(np.zeros(2), np.array(1j), np.array([1, 2], "m8[s]"), np.zeros((2, 2, 2)), np.array(None)),
    *(_deep(20), _deep(5000), _bomb(), _endless(), range(10**9), "2 sigma", "pixels", ".npy"),
]


def faulty_configurations(
    kinds: list[dict[str, Any]], times: int, seed: int
) -> Iterator[tuple[dict[Any, Any], list[str]]]:
    """Configurations with one to three faults, and the names of the keys that were changed."""
    rng = random.Random(seed)
    for _ in range(times):
        config: dict[Any, Any] = dict(rng.choice(kinds))
        names = rng.sample([*KEYS], rng.choice([1, 1, 2, 3]))
        for name in names:
            config[name] = rng.choice(NUMBERS if rng.random() < 0.5 else VALUES)
            if rng.random() < 0.1:
                config[rng.choice([1, None, ("a",), "batchsize", "x" * 10**5, "\x1b"])] = 1
        yield config, names


def fuzz_configurations(data: Path, times: int, seed: int) -> list[str]:
    kinds = [kind(data) for kind in KINDS.values()]
    messages = []
    for config, names in faulty_configurations(kinds, times, seed):
        message = outcome(lambda config=config: read_config(config))  # type: ignore[misc]
        if message and len(names) == 1 and len(config) <= len(KEYS):
            known = set(re.findall(r"\w+", message))
            assert known & {*KEYS} or "key" in message or "'/" in message, message
        messages.append(message)
    return messages


def test_faulty_configurations_are_refused_with_the_key(data: Path) -> None:
    messages = fuzz_configurations(data, 2000, seed=0)
    assert 0.3 < sum(map(bool, messages)) / len(messages) < 0.98


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_faulty_configurations_are_refused_with_the_key(data: Path) -> None:
    fuzz_configurations(data, 100_000, seed=1)


def fuzz_batches(data: Path, times: int, seed: int) -> int:
    """Make a batch of each configuration with one odd number; count those that were made."""
    rng = random.Random(seed)
    sheet = {"sheet_profile": "gaussian", "sheet_thickness": 1.0}
    kinds = [KINDS[name](data) for name in ("kinematic", "npy, few, in order")]
    numeric = [name for name, key in KEYS.items() if key.rule.convert(0.5) is not None]
    numeric += ["num_examples", "batches_per_flow_batch", "buffer_size", "seed", "bit_depth"]
    ranged = [name for name, key in KEYS.items() if key.rule.convert((0.5, 0.5)) is not None]
    ranged += ["diameter_ranges", "intensity_ranges", "rho_ranges"]
    made = 0
    for _ in range(times):
        config = {**rng.choice(kinds), **rng.choice([{}, {"max_speed_x": 0.0}])}
        name = rng.choice(numeric + ranged)
        number = rng.choice([1e-12, 1e-9, 1e-4, 0.3, 7.0, 1e3, 1e6, 1e9, 1e12, 2**31 - 1, 0, -1e12])
        value: Any = number
        if name in ranged:
            value = rng.choice([(0.0, number), (number, number), (number / 2, number)])
            value = [value] if name.endswith("_ranges") else value
        config = {**config, **(sheet if "_z" in name or "out_of" in name else {}), name: value}

        def make(config: dict[str, Any] = config) -> None:
            nonlocal made
            with SynthPixDataset(config) as dataset:
                batch = dataset.batch_at(0)
                assert batch.images.isfinite().all(), config
                assert batch.flow_fields.isfinite().all(), config
                made += 1

        outcome(make)
    return made


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_batches_of_odd_configurations_hold_finite_numbers(data: Path) -> None:
    assert fuzz_batches(data, 100, seed=0) > 30


# YAML ------------------------------------------------------------------------------------------

LISTS = "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi"))
MERGES = "\n".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in pairwise("abcdefghi")
)
BOMBS = {
    "aliases": f"a: &a [1, 2, 3]\n{LISTS}\nrho_ranges: *i",
    "merges": f"a: &a {{x: 1, y: 2}}\n{MERGES}",
    "cycle": "rho_ranges: &a [*a, *a]",
    "flow": "rho_ranges: " + "[" * 100_000,
    "blocks": "- " * 100_000,
    "maps": "{a: " * 5000,
    "keys": "? " * 50_000,
    "integer": "batch_size: " + "9" * 5000,
    "sexagesimal": "%YAML 1.1\n---\nbatch_size: 1" + ":59" * 200_000,
    "bool": "randomize: !!bool perhaps",
    "float": "dt: !!float x",
    "timestamp": "dt: !!timestamp x",
    "object": "dt: !!python/object/apply:os.system ['true']",
    "version": "%YAML 9.9\n---\na: 1",
    "directive": "%TAG ! tag:x\n---\na: !x 1",
    "documents": "a: 1\n---\nb: 2",
    "nul": "a: \0",
    "large": "# " + "x" * 2**20,
    "values": "a: [" + "1," * 60_000 + "]",
    "anchor": "a: *b",
    "duplicate": "dt: 1\ndt: 2",
    "complex key": "? [1, 2]\n: 3",
    "binary": "mask: !!binary x",
    "set": "dt: !!set {a, b}",
    "tabs": "a:\n\t- b",
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_of_a_stranger_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BOMBS[name])
    assert outcome(lambda: read_config(path))


def test_aliases_and_merges_of_usual_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {dt: 1.0}\nb: &b [1.0, 2.0]\n<<: *a\nrho_ranges: [*b, *b]")
    with pytest.raises(ValueError, match="unknown key 'a'"):
        read_config(path)


def fuzz_yaml(path: Path, times: int, seed: int) -> None:
    rng = random.Random(seed)
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in SMALL.items())
    pieces = [
        "&a ",
        "*a",
        "<<: *a",
        "!!int ",
        "!!bool ",
        "- ",
        "? ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "|\n",
    ]
    pieces += [
        ">",
        "%",
        "@",
        "`",
        '"',
        "'",
        "#",
        "\t",
        "\x00",
        "\x85",
        "\ufeff",
        "---",
        "...",
        "0x",
    ]
    for _ in range(times):
        spoiled = text
        for _ in range(rng.choice([1, 2, 5])):
            at = rng.randrange(len(spoiled))
            gap = rng.choice([0, 0, 1, 10])
            spoiled = spoiled[:at] + rng.choice(pieces) + spoiled[at + gap :]
        path.write_bytes(spoiled.encode()[: rng.choice([None, None, rng.randrange(len(spoiled))])])
        outcome(lambda: read_config(path))


def test_spoiled_yaml_is_refused(tmp_path: Path) -> None:
    fuzz_yaml(tmp_path / "config.yaml", 60, seed=0)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_much_spoiled_yaml_is_refused(tmp_path: Path) -> None:
    fuzz_yaml(tmp_path / "config.yaml", 10_000, seed=1)


# States ----------------------------------------------------------------------------------------


def fuzz_states(dataset: SynthPixDataset, times: int, seed: int) -> int:
    rng = random.Random(seed)
    dataset.seek(4)
    refused = 0
    for _ in range(times):
        state: Any = copy.deepcopy(dataset.state_dict())
        for _ in range(rng.choice([1, 1, 2])):
            place = (
                state
                if rng.random() < 0.4
                else state[rng.choice(["sampler", "grain", "made_with"])]
            )
            if not isinstance(place, dict) or not place:
                continue
            key = rng.choice([*place])
            if isinstance(place[key], str) and rng.random() < 0.7:
                at = rng.randrange(len(place[key]) + 1)
                place[key] = place[key][:at] + rng.choice(["|", "=", "\x1b", "x=1|", "\ud800"])
            else:
                place[key] = rng.choice(VALUES)
        if rng.random() < 0.02:
            state = rng.choice(VALUES)
        message = outcome(lambda state=state: dataset.load_state_dict(state))  # type: ignore[misc]
        if message:
            assert dataset.position == 4, message
            refused += 1
        dataset.seek(4)
    return refused


@pytest.fixture(scope="module")
def dataset(data: Path) -> Iterator[SynthPixDataset]:
    with SynthPixDataset(KINDS["npy, repeated"](data)) as made:
        yield made


def test_spoiled_states_are_refused_and_nothing_changes(dataset: SynthPixDataset) -> None:
    assert fuzz_states(dataset, 1000, seed=0) > 500


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_spoiled_states_are_refused_and_nothing_changes(dataset: SynthPixDataset) -> None:
    fuzz_states(dataset, 50_000, seed=1)


# Data files ------------------------------------------------------------------------------------


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, fields(1, (6, 5))[0])
    return file.getvalue()


def _mat(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    images = {name: np.arange(30, dtype=np.uint8).reshape(6, 5) for name in ("I0", "I1")}
    cell = np.array([np.zeros(2), "text"], object)
    content = {"cell": cell, "V": fields(1, (6, 5))[0], **images, "s": {"a": 1.0, "b": "x"}}
    scipy.io.savemat(file, content, do_compression=compressed)
    return file.getvalue()


def _hdf5(*, images: bool) -> bytes:
    file = io.BytesIO()
    options: dict[str, Any] = {} if images else {"compression": "gzip", "shuffle": True}
    with h5py.File(file, "w") as opened:
        opened.create_dataset("V", data=fields(1, (6, 5))[0], **options)
        for name in ("I0", "I1") if images else ():
            opened[name] = np.arange(30, dtype=np.uint8).reshape(6, 5)
    return file.getvalue()


def _flo() -> bytes:
    vectors: bytes = fields(1, (6, 5))[0].astype("<f4").tobytes()
    return struct.pack("<fii", 202021.25, 5, 6) + vectors


FILES: dict[str, tuple[str, bytes]] = {
    "npy": (".npy", _npy()),
    "flo": (".flo", _flo()),
    "mat of version 6": (".mat", _mat(compressed=False)),
    "mat of version 7": (".mat", _mat(compressed=True)),
    "mat of version 7.3": (".mat", _hdf5(images=True)),
    "h5": (".h5", _hdf5(images=False)),
}


def spoiled_files(raw: bytes, times: int, seed: int) -> Iterator[bytes]:
    """Copies of a file with wrong bytes, cut or lengthened, above all near its headers."""
    rng = random.Random(seed)
    for _ in range(times):
        spoiled = bytearray(raw)
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            at = rng.randrange(min(len(raw), rng.choice([len(raw), 400])))
            spoiled[at] = rng.choice([0, 1, 7, 127, 128, 255, rng.randrange(256)])
        if rng.random() < 0.2:
            spoiled = spoiled[: rng.randrange(len(raw))]
        if rng.random() < 0.1:
            at = rng.randrange(len(spoiled) + 1)
            spoiled[at:at] = rng.randbytes(rng.choice([1, 4, 8, 100]))
        yield bytes(spoiled)


def read_file(path: Path, kind: str) -> None:
    """Read a file as the only record of a dataset."""
    config = {**SMALL, "scheduler_class": kind, "file_list": [str(path)]}
    shape = {"image_shape": [6, 5], "flow_field_size": [20.0, 20.0]}
    if kind == ".mat":
        config = {"batch_size": 1, "include_images": True, "image_shape": [6, 5], **config, **shape}
    Records(read_config(config | shape))


def fuzz_files(folder: Path, name: str, times: int, seed: int) -> int:
    kind, raw = FILES[name]
    path = folder / f"flow_0{kind}"
    refused = 0
    for spoiled in spoiled_files(raw, times, seed):
        path.write_bytes(spoiled)
        message = outcome(lambda: read_file(path, kind))
        refused += bool(message)
        assert not message or "flow_0" in message, message
    return refused


@pytest.mark.parametrize("name", FILES)
def test_spoiled_data_files_are_refused_and_named(name: str, tmp_path: Path) -> None:
    kind, raw = FILES[name]
    path = tmp_path / f"flow_0{kind}"
    path.write_bytes(raw)
    assert outcome(lambda: read_file(path, kind)) == ""
    assert fuzz_files(tmp_path, name, 100, seed=0) > 20


def _with_type(kind: int) -> bytes:
    """Change the type tag of V in a file of version 6."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"V": fields(1, (6, 5))[0]})
    raw = bytearray(file.getvalue())
    # Behind the header, the tag of the variable, its flags, its three dimensions and its name.
    at = 128 + 8 + 16 + 24 + 8
    assert struct.unpack_from("<II", raw, at) == (7, 240)
    raw[at] = kind
    return bytes(raw)


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 19, 20, 200, 255])
def test_a_wrong_type_tag_is_refused_and_named(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "flow_0.mat"
    path.write_bytes(_with_type(kind))
    with pytest.raises(ValueError, match=rf"flow_0\.mat .* V has data of the unknown type {kind}"):
        read_variables(str(path), ["V"])


def test_a_wrong_type_tag_ends_the_process_in_scipy() -> None:
    code = "import io, sys, scipy.io; scipy.io.loadmat(io.BytesIO(sys.stdin.buffer.read()))"
    done = subprocess.run([sys.executable, "-c", code], input=_with_type(200), capture_output=True)
    assert done.returncode != 0


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FILES)
def test_many_spoiled_data_files_end_no_process(name: str, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, test_fuzz as t; t.fuzz_files(pathlib.Path(sys.argv[1]), *t.given())"
    )
    for seed in (1, 2):
        command = [sys.executable, "-c", code, str(tmp_path), name, "20000", str(seed)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def given() -> tuple[str, int, int]:
    """The arguments of this process for `fuzz_files`."""
    return sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
