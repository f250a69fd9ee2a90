"""Collected rows survive kills and agree with the checkpoint that is restored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from synthpix_torch import Checkpointer, CheckpointError
from synthpix_torch.collecting import (
    Collector,
    CollectorError,
    dict_to_tree,
    register_node,
    segments,
    tree_keys,
    tree_to_dict,
)
from synthpix_torch.collecting import chain as chains


class Sample(NamedTuple):
    weight: Any
    bias: Any


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content


register_node(Box, lambda box: {"content": box.content}, lambda leaves: Box(leaves["content"]))


def tree(step: int) -> dict[str, Any]:
    """Return what step `step` collects: numbers, tensors of torch, arrays of JAX and NumPy."""
    return {
        "epe": float(step),
        "sample": Sample(torch.full((2, 3), float(step)), [jnp.arange(2) + step, np.int16(step)]),
    }


def rows(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def undisturbed(steps: int, every: int = 1) -> dict[str, np.ndarray]:
    taken = [tree_to_dict(tree(step)) for step in range(0, steps, every)]
    return {path: np.stack([np.asarray(leaves[path]) for leaves in taken]) for path in taken[0]}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for path in found:
        assert np.array_equal(found[path], expected[path]), path


def collected(folder: Path, steps: range, state: Any = None, **options: Any) -> Collector:
    found = Collector(folder, **options)
    if state is not None:
        found.load_state_dict(state)
    for step in steps:
        found.collect(tree(step))
    return found


# Trees -----------------------------------------------------------------------------------------


def test_a_tree_becomes_a_dict_of_paths_and_a_tree_again() -> None:
    whole = {"a/b": [1, (2, None)], "box": Box({"x": 3}), "sample": Sample(4, []), "~": 5}
    leaves = tree_to_dict(whole)
    assert leaves == {"a~1b/0": 1, "a~1b/1/0": 2, "box/content/x": 3, "sample/weight": 4, "~0": 5}
    assert tree_keys(whole) == list(leaves)
    again = dict_to_tree(leaves, whole)
    assert again["box"].content == {"x": 3}
    assert {**again, "box": 0} == {**whole, "box": 0}
    assert isinstance(again["sample"], Sample)
    assert tree_to_dict(7) == {"": 7}
    with pytest.raises(ValueError, match="The leaves lack '~0': both need the same structure"):
        dict_to_tree({path: leaf for path, leaf in leaves.items() if path != "~0"}, whole)
    with pytest.raises(ValueError, match="has no place for 'new'"):
        dict_to_tree({**leaves, "new": 1}, whole)
    with pytest.raises(ValueError, match="keys of a dict cannot be sorted"):
        tree_to_dict({1: 2, "b": 3})
    with pytest.raises(ValueError, match="Box has a rule already"):
        register_node(Box, lambda box: {}, Box)


# Collecting ------------------------------------------------------------------------------------


def test_memory_and_disk_hold_the_same_rows(tmp_path: Path) -> None:
    about = {"what": "samples", "chains": 2}
    disk = Collector(tmp_path / "a", every=3, about=about)
    memory = Collector(every=3)
    for step in range(8):
        for chain in ("0", "warm"):
            disk.collect(tree(step), chain=chain)
            memory.collect(tree(step), chain=chain)
    disk.finalize()
    paths, trees = disk.finished(), memory.finished()
    assert list(paths) == list(trees) == ["0", "warm"]
    for chain in paths:
        assert_equal(rows(paths[chain]), undisturbed(8, every=3))
        leaves = {path: leaf.numpy() for path, leaf in tree_to_dict(trees[chain]).items()}
        assert_equal(leaves, undisturbed(8, every=3))
    with h5py.File(paths["0"]) as file:
        assert dict(file.attrs) == {"what": "samples", "chains": "2"}
        assert list(file["sample"]) == ["bias", "weight"]


def test_every_dtype_keeps_its_values(tmp_path: Path) -> None:
    kinds = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
    kinds += ["float16", "float32", "float64"]
    leaves = {kind: np.array([0, 1, 3]).astype(kind) for kind in kinds}
    found = Collector(tmp_path)
    found.collect({**leaves, "brain": torch.tensor([1.5]).bfloat16(), "swapped": np.ones(2, ">f4")})
    found.finalize()
    stored = rows(found.finished()["0"])
    for kind in kinds:
        assert stored[kind].dtype == kind
        assert np.array_equal(stored[kind], leaves[kind][None])
    assert stored["brain"].tolist() == [[1.5]]
    assert stored["swapped"].tolist() == [[1, 1]]


def test_a_row_is_a_snapshot() -> None:
    found, weight = Collector(), torch.zeros(3)
    found.collect(weight)
    weight += 1
    found.collect(weight)
    assert found.finished()["0"].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
def test_rows_beyond_a_restored_checkpoint_are_replaced(
    block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "BLOCK_BYTES", block_bytes)
    first = collected(tmp_path, range(4))
    state = first.state_dict()
    for step in (100, 101, 102):
        first.collect(tree(step))
    first.state_dict()
    first.flush()
    del first
    restored = collected(tmp_path, range(4, 9), state)
    restored.finalize()
    assert_equal(rows(restored.finished()["0"]), undisturbed(9))
    memory = Collector()
    for step in range(4):
        memory.collect(tree(step))
    again = Collector()
    again.load_state_dict(memory.state_dict())
    memory.collect(tree(100))
    again.collect(tree(4))
    assert again.finished()["0"]["epe"].tolist() == [0, 1, 2, 3, 4]


def test_a_checkpointer_restores_rows_and_weights_together(tmp_path: Path) -> None:
    for stop in (5, 8):
        found, weight = Collector(tmp_path / "rows"), torch.nn.Linear(1, 1)
        with Checkpointer(tmp_path / "steps") as checkpoints:
            checkpoints.register(model=weight, rows=found)
            start = checkpoints.restore() or 0
            for step in range(start, stop):
                found.collect(tree(step))
                if step % 2:
                    checkpoints.save(step + 1)
        del found, checkpoints
    found = Collector(tmp_path / "rows")
    with Checkpointer(tmp_path / "steps", read_only=True) as checkpoints:
        checkpoints.register(model=weight, rows=found)
        assert checkpoints.restore() == 8
    found.finalize()
    assert_equal(rows(found.finished()["0"]), undisturbed(8))


def test_a_step_is_complete_after_its_rows_and_training_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, free, write = Collector(tmp_path / "rows"), threading.Event(), segments.write_segment

    def slow(*arguments: Any) -> None:
        assert free.wait(60)
        write(*arguments)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with Checkpointer(tmp_path / "steps") as checkpoints:
        checkpoints.register(rows=found)
        with monkeypatch.context() as patch:
            patch.setattr(segments, "write_segment", slow)
            found.collect(tree(0))
            checkpoints.save(1)
            found.collect(tree(1))
            assert checkpoints.steps() == []
            free.set()
            checkpoints.wait()
        assert checkpoints.steps() == [1]
        with monkeypatch.context() as patch:
            patch.setattr(segments, "write_segment", full)
            checkpoints.save(2)
            with pytest.raises(CheckpointError, match=r"Step 2 .* Rows 1 to 1 .* No space left"):
                checkpoints.wait()
        assert checkpoints.steps() == [1]
        checkpoints.save(3)
    found.finalize()
    assert_equal(rows(found.finished()["0"]), undisturbed(2))


def test_an_error_that_was_raised_before_does_not_make_a_state_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = collected(tmp_path, range(2))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "write_segment", full)
        state = found.state_dict()
        with pytest.raises(CollectorError, match="No space left"):
            found.finished()
    with pytest.raises(CollectorError, match=r"Rows 0 to 1 .* are not on disk.*save the state"):
        found.flush()
    assert found.state_dict() == state
    found.flush()
    assert [segment.stop for segment in segments.list_segments(tmp_path / "0")] == [2]


def test_rows_of_another_run_are_kept_aside(tmp_path: Path) -> None:
    first = collected(tmp_path, range(3))
    first.finalize()
    first.finished()
    del first
    second = collected(tmp_path, range(5))
    second.finalize()
    assert_equal(rows(second.finished()["0"]), undisturbed(5))
    assert len(list((tmp_path / "0.replaced-1").iterdir())) == 1


def test_two_processes_do_not_collect_in_one_folder(tmp_path: Path) -> None:
    first, second = collected(tmp_path, range(3)), collected(tmp_path, range(2))
    state = first.state_dict()
    first.flush()
    second.state_dict()
    with pytest.raises(CollectorError, match="another process collects in"):
        second.flush()
    assert first.state_dict() == state


def test_a_full_disk_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = collected(tmp_path, range(3))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        found.state_dict()
        with pytest.raises(CollectorError, match=r"Rows 0 to 2 .* No space left .* kept in memory"):
            found.flush()
    found.collect(tree(3))
    found.finalize()
    assert_equal(rows(found.finished()["0"]), undisturbed(4))


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.array([object()]), "has dtype object"),
        (np.zeros(2, np.longdouble), "has dtype"),
        (torch.zeros(2, dtype=torch.complex64), "is complex: collect its real and imaginary"),
        ("text", "is a str, a Collector stores numbers"),
    ],
)
def test_what_is_no_number_is_refused(leaf: Any, message: str) -> None:
    found = Collector()
    with pytest.raises(TypeError, match=message):
        found.collect({"x": leaf})
    assert found.rows() == 0


def test_a_changed_tree_is_refused_also_after_a_restore(tmp_path: Path) -> None:
    found = Collector(tmp_path)
    found.collect({"x": torch.zeros(2)})
    message = (
        r"Leaf 'x' of chain '0' was float32 of shape \(2,\) and is float32 of shape \(3,\) now"
    )
    with pytest.raises(ValueError, match=message):
        found.collect({"x": torch.zeros(3)})
    state = found.state_dict()
    found.flush()
    again = Collector(tmp_path)
    again.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        again.collect({"x": torch.zeros(3)})
    with pytest.raises(ValueError, match="'y' of chain '0' was absent and is float64"):
        found.collect({"x": torch.zeros(2), "y": 1.0})
    with pytest.raises(ValueError, match="saved with every=1, this Collector has every=2"):
        Collector(every=2).load_state_dict(state)
    with pytest.raises(CollectorError, match=r"counts 1 rows of chain '0', but .* holds 0"):
        Collector(tmp_path / "other").load_state_dict(state)
    with pytest.raises(ValueError, match=r"name of a chain .* not '../a'"):
        found.collect({}, chain="../a")


RUN = """
import sys, torch
from test_collector import tree
from synthpix_torch import Checkpointer
from synthpix_torch.collecting import Collector
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{sys.argv[4]}", rank=rank, world_size=world)
rows = Collector(folder + "/rows")
with Checkpointer(folder + "/steps", keep=2) as checkpoints:
    checkpoints.register(rows=rows)
    for step in range(checkpoints.restore() or 0, 1000):
        rows.collect(tree(step))
        if step % 5 == 4:
            checkpoints.save(step + 1)
            print(step, flush=True)
rows.finalize()
rows.finished()
"""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_kills_and_changes_of_ranks_change_no_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for kill in range(101):
        world = 1 + kill % 2
        arguments = [str(tmp_path), str(world), str(tmp_path / f"group-{kill}")]
        command = [sys.executable, "-c", RUN, arguments[0]]
        processes = [
            subprocess.Popen(
                [*command, str(rank), *arguments[1:]],
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            for rank in range(world)
        ]
        output = processes[0].stdout
        assert output is not None
        if kill < 100:
            for _ in range(int(rng.integers(0, 4))):
                output.readline()
            time.sleep(float(rng.uniform(0, 0.03)))
            for process in processes:
                os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.communicate(timeout=120)
            assert kill < 100 or process.returncode == 0
    assert_equal(rows(tmp_path / "rows" / "0.h5"), undisturbed(1000))
