"""The dataset among other items of a user's own Orbax, and checkpoints that synthpix wrote."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import grain.python as grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
import synthpix
from grain.checkpoint import CheckpointRestore
from kinds import KINDS, base, few
from oracle import differing, digest, ours, sampler, theirs
from orbax.checkpoint.experimental import v1

from synthpix_torch import (
    Checkpointer,
    OrbaxStateful,
    StateMismatchError,
    SynthPixDataset,
    checkpoint_args,
    restored_state,
    save_checkpoint,
)
from synthpix_torch.cli import main


def at(position: int, **changes: Any) -> SynthPixDataset:
    dataset = SynthPixDataset(base(**few, **changes))
    dataset.seek(position)
    return dataset


# A user's own Orbax ----------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_manager_of_the_users_own_saves_and_restores_the_dataset(
    tmp_path: Path, asynchronous: bool
) -> None:
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=asynchronous)
    weights = np.arange(3)
    dataset = at(7)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        model = ocp.args.StandardSave({"weights": weights})
        manager.save(1, args=ocp.args.Composite(model=model, **checkpoint_args(dataset)))
        # What happens afterwards is not saved.
        dataset.seek(9)
        manager.save(2, args=ocp.args.Composite(model=model, **checkpoint_args(dataset)))
    with ocp.CheckpointManager(tmp_path) as manager:
        arguments = ocp.args.Composite(
            model=ocp.args.StandardRestore({"weights": weights}),
            **checkpoint_args(at(0), restore=True),
        )
        for step, position in ((1, 7), (2, 9)):
            restored = manager.restore(step, args=arguments)
            dataset = at(0)
            dataset.load_state_dict(restored_state(restored))
            assert dataset.position == position
            assert np.array_equal(restored["model"]["weights"], weights)


def test_state_and_composite_are_two_forms_of_one_state(tmp_path: Path) -> None:
    dataset = at(7)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=checkpoint_args(dataset))
    with ocp.CheckpointManager(tmp_path) as manager:
        restored = manager.restore(7, args=checkpoint_args(at(0), restore=True))
    assert restored_state(restored) == dataset.state_dict()
    again = at(0)
    again.load_state_dict(restored_state(restored))
    assert digest(next(iter(again))) == digest(dataset.batch_at(7))
    # Written by hand in a step of a Checkpointer, the files are the same.
    save_checkpoint(tmp_path / "ours", dataset, 7)
    for item, file in (("sampler", "metadata"), ("grain", "process_0-of-1.json")):
        theirs, ours = (step / item / file for step in (tmp_path / "7", tmp_path / "ours" / "7"))
        assert json.loads(ours.read_bytes()) == json.loads(theirs.read_bytes())


def test_what_orbax_writes_later_is_what_was_given(tmp_path: Path) -> None:
    class Mutable:
        state = at(0).state_dict()

        def state_dict(self) -> dict[str, Any]:
            return self.state

    dataset: Any = Mutable()
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=checkpoint_args(dataset))
        dataset.state["sampler"]["position"] = 5
        dataset.state["made_with"].clear()
        manager.wait_until_finished()
        restored = manager.restore(0, args=checkpoint_args(dataset, restore=True))
    assert restored_state(restored) == at(0).state_dict()


@pytest.mark.parametrize("writer", ["Orbax", "Checkpointer"])
def test_grain_restores_its_item_by_itself(tmp_path: Path, writer: str) -> None:
    dataset = at(7)
    if writer == "Orbax":
        with ocp.CheckpointManager(tmp_path) as manager:
            manager.save(7, args=checkpoint_args(dataset))
    else:
        save_checkpoint(tmp_path, dataset, 7)
    flows = dataset.stream.flows
    records = iter(flows.canonical().to_iter_dataset(grain.ReadOptions(2, 4)))
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.restore(7, args=ocp.args.Composite(grain=CheckpointRestore(records)))
    element = next(records)
    records.close()
    assert element.record.file == dataset.batch_at(7).files[0]
    assert element.flow_batch == 2


def test_a_composite_without_an_item_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the items grain"):
        restored_state({"sampler": {}, "grain": None})


@pytest.mark.parametrize("asynchronous", [True, False])
def test_orbax_v1_takes_the_dataset_as_a_stateful_object(
    tmp_path: Path, asynchronous: bool
) -> None:
    dataset, weights = at(7), {"weights": np.arange(3)}
    saved = {"data": OrbaxStateful(dataset), "model": weights}
    if asynchronous:
        saving = v1.save_checkpointables_async(tmp_path / "a", saved)
        dataset.seek(9)
        saving.result()
    else:
        v1.save_checkpointables(tmp_path / "a", saved)
    dataset = at(0)
    stateful = OrbaxStateful(dataset)
    restored = v1.load_checkpointables(tmp_path / "a", {"data": stateful, "model": weights})
    assert restored["data"] is stateful
    assert dataset.position == 7
    assert np.array_equal(restored["model"]["weights"], weights["weights"])
    other = at(3, seed=4)
    with pytest.raises(Exception, match="data") as caught:
        v1.load_checkpointables(tmp_path / "a", {"data": OrbaxStateful(other)})
    assert isinstance(caught.value.__cause__, StateMismatchError)
    assert other.position == 3


def test_orbax_v1_saves_a_training_step_by_step(tmp_path: Path) -> None:
    dataset = at(0)
    with v1.training.Checkpointer(tmp_path) as checkpoints:
        for step in range(3):
            dataset.seek(step * 5)
            checkpoints.save_checkpointables(step, {"data": OrbaxStateful(dataset)})
    dataset = at(0)
    with v1.training.Checkpointer(tmp_path) as checkpoints:
        checkpoints.load_checkpointables(abstract_checkpointables={"data": OrbaxStateful(dataset)})
    assert dataset.position == 10


# As short as synthpix's own --------------------------------------------------------------------


def test_save_checkpoint_and_load_from_are_as_short_as_those_of_synthpix(tmp_path: Path) -> None:
    dataset = at(0)
    for step in (1, 2, 3):
        next(iter(dataset))
        save_checkpoint(tmp_path, dataset, step, max_to_keep=2)
    wanted = [digest(batch) for batch in islice(dataset, 4)]
    with SynthPixDataset(base(**few), load_from=tmp_path) as again:
        assert again.position == 3
        assert [digest(batch) for batch in islice(again, 4)] == wanted
    with Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 3]


def test_a_script_of_synthpix_saves_with_its_own_names(tmp_path: Path) -> None:
    arguments = {"checkpoint_dir": tmp_path, "sampler": at(3), "step": 4, "max_to_keep": 2}
    assert list(inspect.signature(synthpix.save_checkpoint).parameters) == list(arguments)
    defaults = inspect.signature(synthpix.save_checkpoint).parameters
    assert defaults["max_to_keep"].default == 1
    save_checkpoint(**arguments)  # type: ignore[arg-type]
    assert inspect.signature(save_checkpoint).bind(**arguments)
    save_checkpoint(tmp_path, at(4), step=5)
    with pytest.raises(TypeError, match="two names"):
        save_checkpoint(folder=tmp_path, **arguments)  # type: ignore[arg-type, call-arg]
    # The names of version 0.2.0.
    save_checkpoint(folder=tmp_path, dataset=at(6), step=6)  # type: ignore[call-arg]
    assert SynthPixDataset(base(**few), load_from=tmp_path).position == 6


def test_load_from_takes_the_dataset_out_of_a_whole_run(tmp_path: Path) -> None:
    with Checkpointer(tmp_path / "one") as checkpoints:
        checkpoints.register(train=at(5), other=_State())
        checkpoints.save(1)
    with Checkpointer(tmp_path / "two") as checkpoints:
        checkpoints.register(data=at(6), validation=at(2))
        checkpoints.save(1)
    with Checkpointer(tmp_path / "unclear") as checkpoints:
        checkpoints.register(train=at(6), validation=at(2))
        checkpoints.save(1)
    assert SynthPixDataset(base(**few), load_from=tmp_path / "one").position == 5
    assert SynthPixDataset(base(**few), load_from=tmp_path / "two").position == 6
    with pytest.raises(ValueError, match=r"holds 2 datasets \(train, validation\), none of them"):
        SynthPixDataset(base(**few), load_from=tmp_path / "unclear")


def test_load_from_passes_over_a_damaged_step_and_refuses_a_folder_without_a_whole_one(
    tmp_path: Path,
) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        dataset = at(1)
        checkpoints.register(data=dataset)
        checkpoints.save(1)
        dataset.seek(2)
        checkpoints.save(2)
    (tmp_path / "2" / "grain" / "process_0-of-1.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"Step 2 .*process_0-of-1.json was changed"):
        assert SynthPixDataset(base(**few), load_from=tmp_path).position == 1
    for empty in (tmp_path / "none", tmp_path / "1"):
        with pytest.raises(FileNotFoundError, match=r"no complete step in .*: leave out load_from"):
            SynthPixDataset(base(**few), load_from=empty)


def test_a_dataset_that_was_loaded_is_pickled_with_its_place_not_with_its_folder(
    tmp_path: Path,
) -> None:
    import pickle

    save_checkpoint(tmp_path, at(5), 1)
    dataset = SynthPixDataset(base(**few), load_from=tmp_path)
    shutil.rmtree(tmp_path)
    assert pickle.loads(pickle.dumps(dataset)).position == 5


class _State:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


# Checkpoints of synthpix -----------------------------------------------------------------------

OF_SYNTHPIX: dict[str, tuple[Callable[[Path], dict[str, Any]], int]] = {
    "before the first batch": (lambda _: base(**few), 0),
    "in the middle of a flow batch": (lambda _: base(**few), 5),
    "at its end": (lambda _: base(**few), 6),
    "in the next epoch": (lambda _: base(**few), 14),
    "fields used once": (lambda _: base(), 3),
    "files": (KINDS["npy, few, in order"], 4),
    "h5 files": (KINDS["h5, few and repeated"], 4),
    "real images": (KINDS["real"], 3),
    "finite": (KINDS["finite"], 5),
}


@pytest.mark.parametrize("case", OF_SYNTHPIX)
def test_a_run_of_synthpix_goes_on_exactly(data: Path, tmp_path: Path, case: str) -> None:
    make, count = OF_SYNTHPIX[case]
    config = make(data)
    source = sampler(config)
    for _ in range(count):
        next(source)
    synthpix.save_checkpoint(tmp_path, source, count)
    # Finite data has one batch of whole flow fields left.
    rest = 4 if case == "finite" else 5
    wanted = [theirs(next(source)) for _ in range(rest)]
    with SynthPixDataset(config, renderer="synthpix", load_from=tmp_path) as dataset:
        assert dataset.position == count
        found = [ours(batch) for batch in islice(dataset, rest)]
    assert len(found) == rest
    for one, other in zip(found, wanted, strict=True):
        assert not differing(one, other)


def test_a_checkpoint_of_episodes_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    config = KINDS["episodes"](data)
    source = sampler(config)
    # The first episode to its end, of the second one step.
    for _ in range(3):
        next(source)
    source.next_episode()
    next(source)
    synthpix.save_checkpoint(tmp_path, source, 4)
    wanted = [theirs(next(source)) for _ in range(2)]
    with SynthPixDataset(config, renderer="synthpix", load_from=tmp_path) as dataset:
        assert dataset.position == 4
        found = [ours(batch) for batch in islice(dataset, 2)]
    for one, other in zip(found, wanted, strict=True):
        assert not differing(one, other)


@pytest.fixture
def of_synthpix(tmp_path: Path) -> Path:
    source = sampler(base(**few))
    for _ in range(5):
        next(source)
    synthpix.save_checkpoint(tmp_path, source, 5)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "other data or in another order.*seed=3.*seed=4"),
        ({"num_examples": 15}, "other data or in another order"),
        ({"scale_factor_range": (0.0, 1.0)}, "other data or in another order"),
        ({"batch_size": 3}, "do not agree with batch_size=3"),
        ({"batches_per_flow_batch": 1}, "do not agree .* batches_per_flow_batch=1"),
    ],
    ids=str,
)
def test_a_checkpoint_of_synthpix_for_another_configuration_is_refused(
    of_synthpix: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        SynthPixDataset(base(**few | changes), load_from=of_synthpix)


HALVES: dict[str, Callable[[Path], Any]] = {
    "no sampler": lambda step: shutil.rmtree(step / "sampler"),
    "no arrays": lambda step: _remove_files(step / "sampler", keep="_METADATA"),
    "empty files": lambda step: _empty_files(step / "sampler"),
    "no index": lambda step: _change_grain(step, {"last_seen_indices": {}}),
    "an index of words": lambda step: _change_grain(step, {"last_seen_indices": {"0": "one"}}),
    "a pipe": lambda step: os.mkfifo(step / "sampler" / "more"),
    "a link": lambda step: (step / "sampler" / "more").symlink_to("/"),
}


def _remove_files(folder: Path, keep: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != keep:
            path.unlink()


def _empty_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def _change_grain(step: Path, changes: dict[str, Any]) -> None:
    path = step / "grain" / "process_0-of-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.timeout(60)
def test_a_step_of_synthpix_that_is_not_complete_is_named_and_skipped(
    of_synthpix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spoil in HALVES.values():
        shutil.copytree(of_synthpix / "5", of_synthpix / "7")
        spoil(of_synthpix / "7")
        with pytest.warns(UserWarning, match="Step 7 .*synthpix wrote it, and it is incomplete"):
            assert SynthPixDataset(base(**few), load_from=of_synthpix).position == 5
        assert main(["inspect", str(of_synthpix)]) == 1
        assert "synthpix wrote it, and it is incomplete" in capsys.readouterr().out
        shutil.rmtree(of_synthpix / "7")


def test_a_list_of_files_that_is_none_is_other_data(of_synthpix: Path) -> None:
    for files in ("[" * 3000, "[1]", "['a', 1]", "[]", "[b'a']", "[{}.x]"):
        _change_grain(of_synthpix / "5", {"data_source": f"Source(file_list={files}])"})
        with pytest.raises(ValueError, match="other data"):
            SynthPixDataset(base(**few), load_from=of_synthpix)


def test_a_checkpoint_of_synthpix_fits_one_stream_alone(of_synthpix: Path) -> None:
    with pytest.raises(ValueError, match="synthpix has one stream"):
        SynthPixDataset(base(**few), streams=2, load_from=of_synthpix)


def test_a_checkpoint_of_synthpix_with_worker_processes_is_refused(of_synthpix: Path) -> None:
    path = of_synthpix / "5" / "grain" / "process_0-of-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"worker_count": 2}))
    with pytest.raises(ValueError, match="worker_count=2, which reorders the stream"):
        SynthPixDataset(base(**few), load_from=of_synthpix)


def test_a_checkpoint_of_synthpix_goes_on_after_the_files_have_moved(
    data: Path, tmp_path: Path
) -> None:
    make, count = OF_SYNTHPIX["files"]
    shutil.copytree(data, tmp_path / "before")
    source = sampler(make(tmp_path / "before"))
    for _ in range(count):
        next(source)
    synthpix.save_checkpoint(tmp_path / "run", source, count)
    (tmp_path / "before").rename(tmp_path / "after")
    config = make(tmp_path / "after")
    assert SynthPixDataset(config, load_from=tmp_path / "run").position == count
    renamed = tmp_path / "after" / "npy" / "flow_1.npy"
    renamed.rename(renamed.with_name("flow_01.npy"))
    with pytest.raises(ValueError, match="other data"):
        SynthPixDataset(config, load_from=tmp_path / "run")


def test_a_run_that_began_with_synthpix_is_saved_in_the_same_folder(of_synthpix: Path) -> None:
    dataset = SynthPixDataset(base(**few), load_from=of_synthpix)
    next(iter(dataset))
    with pytest.raises(ValueError, match=re.escape("5 was written by another program")):
        save_checkpoint(of_synthpix, dataset, 5)
    save_checkpoint(of_synthpix, dataset, 6)
    assert SynthPixDataset(base(**few), load_from=of_synthpix).position == 6


def test_synthpix_itself_cannot_restore_what_it_saved(of_synthpix: Path) -> None:
    # In a process of its own, because it leaves the futures of its files behind.
    code = f"import synthpix; synthpix.make({base(**few)!r}, load_from={str(of_synthpix)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    # Which of its arrays Orbax refuses first differs from run to run.
    assert re.search(r"orbax/checkpoint.*\n.*restore", done.stderr)
