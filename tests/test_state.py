"""The state is a small plain dict, complete and checked."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from kinds import KINDS, base, few, fields, write_h5, write_mat, write_npy

from synthpix_torch import StateMismatchError, SynthPixDataset
from synthpix_torch.data.files import digest_contents


def plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and plain(part) for key, part in value.items())
    return type(value) in (int, str)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_small_and_plain_wherever_it_was_saved(kind: str, data: Path) -> None:
    with SynthPixDataset(KINDS[kind](data)) as dataset:
        positions = [0, 1, 2] if dataset.stream.order.total else [0, 5, 10**15]
        for position in positions:
            dataset.seek(position)
            state = dataset.state_dict()
            assert plain(state)
            assert len(json.dumps(state)) < 2048
            assert state["sampler"] == {"position": position}


def test_a_state_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    sizes = []
    for count in (4, 400):
        folder = tmp_path / str(count)
        folder.mkdir()
        for t in range(count):
            (folder / f"flow_{t}.npy").hardlink_to(write_npy(tmp_path / "one", 1) / "flow_0.npy")
        config = base(scheduler_class=".npy", file_list=str(folder))
        sizes.append(len(json.dumps(SynthPixDataset(config).state_dict())))
    assert abs(sizes[1] - sizes[0]) <= 2


def test_a_state_is_a_fresh_snapshot_and_complete_before_the_first_batch() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        before = dataset.state_dict()
        keys = json.dumps(before, default=str, sort_keys=True).count(":")
        before["sampler"]["position"] = 99
        before["fingerprint"] = ""
        next(iter(dataset))
        after = dataset.state_dict()
    assert after["sampler"]["position"] == 1
    assert json.dumps(after, sort_keys=True).count(":") == keys


def test_the_state_is_the_same_on_every_rank() -> None:
    states = []
    for rank in range(3):
        with SynthPixDataset(base(**few), rank=rank, world_size=3) as dataset:
            batches = iter(dataset)
            next(batches), next(batches)
            states.append(dataset.state_dict())
    assert states[0] == states[1] == states[2]
    assert states[0]["sampler"]["position"] == 6


def test_the_grain_item_is_the_first_record_still_needed() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        dataset.seek(7)
        assert dataset.state_dict()["grain"] == {"next_index": 7 // 3 * 2}
    with SynthPixDataset(base(**few), streams=2) as dataset:
        dataset.seek(7)
        assert dataset.state_dict()["grain"] == {"next_index": 7 // 6 * 2 * 2}


def change(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**state, **changes}


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda s: None, TypeError, "must be the dict that state_dict"),
        (lambda s: [1], TypeError, "must be the dict"),
        (lambda s: {}, ValueError, "not the state of a SynthPixDataset, it holds nothing"),
        (lambda s: torch.nn.Linear(1, 1).state_dict(), ValueError, "it holds bias, weight"),
        (lambda s: {k: v for k, v in s.items() if k != "grain"}, ValueError, "not the state"),
        (lambda s: change(s, format=3), ValueError, "has format 3, .* reads 1 and 2: install"),
        (lambda s: change(s, format="1"), ValueError, "not the state"),
        (lambda s: change(s, sampler={}), ValueError, "corrupt: position is None"),
        (lambda s: change(s, sampler=3), ValueError, "corrupt: position is None"),
        (lambda s: change(s, sampler={"position": -1}), ValueError, "corrupt: position is -1"),
        (
            lambda s: change(s, sampler={"position": 2**62}),
            ValueError,
            "position 46116.* is larger",
        ),
        (lambda s: change(s, sampler={"position": 10**5000}), ValueError, "an integer of 16610 bi"),
        (lambda s: change(s, grain={"next_index": 10**5000}), ValueError, "an integer of 16610 bi"),
        (lambda s: change(s, fingerprint="x=1|" * 10**5), ValueError, "its fingerprint is 'x=1|x"),
        (lambda s: change(s, format=10**5000), ValueError, "has format an integer of 16610 bits"),
        (lambda s: change(s, sampler={"position": 1.0}), ValueError, "corrupt: position is 1.0"),
        (lambda s: change(s, grain={"next_index": True}), ValueError, "corrupt: next_index"),
        (lambda s: change(s, grain={"next_index": 3}), ValueError, "corrupt: next_index 3"),
        (lambda s: change(s, fingerprint="x"), ValueError, "corrupt: its fingerprint is 'x'"),
        (lambda s: change(s, fingerprint={}), ValueError, "corrupt: its fingerprint is {}"),
        (lambda s: change(s, format=1), ValueError, "lacks values of 'stream'"),
    ],
)
def test_what_is_no_state_is_refused_and_nothing_changes(
    spoil: Any, error: type[Exception], message: str
) -> None:
    with SynthPixDataset(base()) as dataset:
        dataset.seek(4)
        batches = iter(dataset)
        next(batches)
        with pytest.raises(error, match=message):
            dataset.load_state_dict(spoil(dataset.state_dict()))
        assert dataset.position == 5
        assert next(batches).number == 5


# dt: 0.5 allows for half the displacement.
@pytest.mark.filterwarnings("ignore:scheduler_class 'kinematic' leaves the speed bounds")
@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"batch_size": 8}, r"batch_size \(saved 8, here 4\)"),
        ({"seed": 4, "dt": 0.5}, r"seed \(saved 4, here 3\), dt \(saved 0.5, here 1\)"),
        ({"diameter_ranges": [(1.0, 1.5)]}, r"diameter_ranges \(saved \[\[1,1.5\]\], here"),
        ({"num_examples": 15}, r"num_examples \(saved 15, here 14\)"),
    ],
)
def test_a_state_of_another_configuration_is_refused_by_field(
    saved: dict[str, Any], message: str
) -> None:
    with SynthPixDataset(base()) as dataset, SynthPixDataset(base(**saved)) as other:
        with pytest.raises(StateMismatchError, match=message):
            dataset.load_state_dict(other.state_dict())
        assert dataset.position == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"streams": 2}, r"streams \(saved 2, here 1\)"),
        ({"layout": "synthpix"}, "layout"),
        ({"image_dtype": torch.float16}, r"image_dtype \(saved float16, here float32\)"),
        ({"scale_images": True}, "scale_images"),
        ({"renderer": "synthpix"}, r"renderer \(saved synthpix, here particles\)"),
    ],
)
def test_a_state_of_other_batches_is_refused(arguments: dict[str, Any], message: str) -> None:
    state = SynthPixDataset(base(), **arguments).state_dict()
    with pytest.raises(StateMismatchError, match=message):
        SynthPixDataset(base()).load_state_dict(state)


def test_a_state_of_other_files_is_refused(tmp_path: Path) -> None:
    write_npy(tmp_path / "a", 4)
    write_npy(tmp_path / "b", 5)
    (a, b) = (
        SynthPixDataset(base(scheduler_class=".npy", file_list=str(tmp_path / name)))
        for name in "ab"
    )
    with pytest.raises(StateMismatchError, match=r"records \(saved 5, here 4\), names"):
        a.load_state_dict(b.state_dict())


def _write(kind: str, folder: Path) -> dict[str, Any]:
    """Files of a kind, and a configuration that reads them."""
    if kind == "real":
        return KINDS["real"](folder) | {"file_list": [str(write_mat(folder, 20, (16, 16)))]}
    {".npy": write_npy, ".h5": write_h5}[kind](folder, 20)
    return base(scheduler_class=kind, file_list=[str(folder)])


@pytest.mark.parametrize("kind", [".npy", ".h5", "real"])
@pytest.mark.parametrize("records", [slice(0, 1), slice(-1, None), slice(None)], ids=str)
def test_other_contents_under_the_same_names_are_refused(
    kind: str, records: slice, tmp_path: Path
) -> None:
    config = _write(kind, tmp_path / "a")
    state = SynthPixDataset(config).state_dict()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = config | {"file_list": [str(tmp_path / "b")]}
    SynthPixDataset(moved).load_state_dict(state)
    for path in sorted((tmp_path / "b").iterdir())[records]:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    with pytest.raises(StateMismatchError, match=r"another stream: contents \(saved #\w+, here #"):
        SynthPixDataset(moved).load_state_dict(state)


def test_files_of_other_sizes_are_refused(tmp_path: Path) -> None:
    config = base(scheduler_class=".npy", file_list=[str(write_npy(tmp_path, 40))])
    state = SynthPixDataset(config).state_dict()
    with (tmp_path / "flow_7.npy").open("ab") as file:
        file.write(b" ")
    with pytest.raises(StateMismatchError, match="another stream: contents"):
        SynthPixDataset(config).load_state_dict(state)


def test_a_state_without_contents_is_of_an_older_version_and_loads(tmp_path: Path) -> None:
    config = base(scheduler_class=".npy", file_list=[str(write_npy(tmp_path, 4))])
    with SynthPixDataset(config) as dataset:
        state = dataset.state_dict()
        parts = state["fingerprint"].split("|")
        state["fingerprint"] = "|".join(part for part in parts if "contents=" not in part)
        assert len(state["fingerprint"].split("|")) == len(parts) - 1
        dataset.load_state_dict(state)


def test_the_contents_of_many_files_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(write_npy(tmp_path, 1) / "flow_0.npy")] * 5000
    asked: list[Any] = []
    stat = os.stat

    def count(path: Any, **how: Any) -> os.stat_result:
        asked.append(path)
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", count)
    digest_contents(names)
    assert len(asked) == 1024 + 16


def test_an_error_shows_no_control_characters_of_a_state() -> None:
    with SynthPixDataset(base()) as dataset:
        state = dataset.state_dict()
        state["fingerprint"] += "|\x1b[2J=\x1b[31m"
        with pytest.raises(
            StateMismatchError, match=r"'\\x1b\[2J' \(saved '\\x1b\[31m', here null"
        ):
            dataset.load_state_dict(state)


def test_a_source_of_the_users_own_can_say_what_it_is() -> None:
    class Source(list[np.ndarray]):
        fingerprint = "first"

    config = {k: v for k, v in base().items() if k != "scheduler_class"}
    a, b = Source(fields(4)), Source(fields(4))
    b.fingerprint = "second"
    saved = SynthPixDataset(config, source=b).state_dict()
    with pytest.raises(StateMismatchError, match=r"names \(saved second, here first\)"):
        SynthPixDataset(config, source=a).load_state_dict(saved)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_random_seed_offset", 7),
    ],
)
def test_other_random_flags_are_refused_by_states_and_by_datasets_that_were_made_before(
    flag: str, value: Any
) -> None:
    before = getattr(jax.config, flag)
    with SynthPixDataset(base()) as dataset:
        state = dataset.state_dict()
        batches = iter(dataset)
        # Others have been made ahead then.
        assert [next(batches).number, next(batches).number] == [0, 1]
        jax.config.update(flag, value)
        try:
            with pytest.raises(StateMismatchError, match=rf"{flag} \(saved"):
                SynthPixDataset(base()).load_state_dict(state)
            changed = f"changed since the dataset was made: {flag} from {before} to {value}"
            for ask in (lambda: dataset.batch_at(0), lambda: next(batches)):
                with pytest.raises(RuntimeError, match=changed):
                    ask()
        finally:
            jax.config.update(flag, before)
        assert [dataset.batch_at(0).number, next(batches).number] == [0, 2]


def test_typed_random_keys_are_refused() -> None:
    jax.config.update("jax_enable_custom_prng", True)
    try:
        with pytest.raises(RuntimeError, match="leave jax_enable_custom_prng off"):
            SynthPixDataset(base())
    finally:
        jax.config.update("jax_enable_custom_prng", False)


def test_a_state_knows_masks_and_histograms_by_what_they_hold(data: Path, tmp_path: Path) -> None:
    for key in ("mask", "histogram"):
        path = tmp_path / f"{key}.npy"
        path.write_bytes((data / f"{key}.npy").read_bytes())
        state = SynthPixDataset(base(**{key: str(data / f"{key}.npy")})).state_dict()
        SynthPixDataset(base(**{key: str(path)})).load_state_dict(state)
        np.save(path, np.load(path)[::-1])
        with pytest.raises(StateMismatchError, match=key):
            SynthPixDataset(base(**{key: str(path)})).load_state_dict(state)


def test_a_state_of_other_names_or_types_of_as_many_files_is_refused(tmp_path: Path) -> None:
    folder = write_npy(tmp_path, 4)
    config = base(scheduler_class=".npy", file_list=str(folder))
    state = SynthPixDataset(config).state_dict()
    (folder / "flow_3.npy").rename(folder / "flow_4.npy")
    with pytest.raises(StateMismatchError, match="another stream: names"):
        SynthPixDataset(config).load_state_dict(state)
    (folder / "flow_4.npy").rename(folder / "flow_3.npy")
    for path in folder.iterdir():
        np.save(path, np.load(path).astype(np.float64))
    with pytest.raises(StateMismatchError, match=r"flow field dtype \(saved float32, here"):
        SynthPixDataset(config).load_state_dict(state)


def test_keys_that_do_not_matter_do_not_refuse_a_state(tmp_path: Path) -> None:
    config = base(scheduler_class=".npy", file_list=str(write_npy(tmp_path, 4)))
    state = SynthPixDataset(config).state_dict()
    SynthPixDataset(config | {"num_examples": 99, "scale_mode": "linear"}).load_state_dict(state)


def test_other_versions_are_a_warning() -> None:
    with SynthPixDataset(base()) as dataset:
        dataset.seek(3)
        state = dataset.state_dict()
        state["made_with"]["jax"] = "0.9.0"
        dataset.seek(0)
        with pytest.warns(UserWarning, match=r"jax \(saved 0\.9\.0, here"):
            dataset.load_state_dict(state)
        assert dataset.position == 3


def test_a_position_behind_the_data_is_refused(data: Path) -> None:
    with SynthPixDataset(KINDS["finite"](data)) as dataset:
        state = dataset.state_dict()
        state["sampler"]["position"] = 10**6
        state["grain"] = {"next_index": 4 * 2}
        with pytest.raises(ValueError, match="position 1000000 lies behind the 12 batches"):
            dataset.load_state_dict(state)
