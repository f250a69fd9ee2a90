"""A resumed run delivers the bits of a run in another process that was never interrupted."""

import copy
import itertools
import json
import multiprocessing
import pickle
import platform
import shutil
import subprocess
import sys
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import pytest
import torch
from kinds import KINDS, base, few, write_npy
from oracle import digest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from uninterrupted import COUNT, passes

from synthpix_torch import Batch, Checkpointer, RandomState, StateMismatchError, SynthPixDataset
from synthpix_torch.interop import cpu

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Digests of the batches of each kind, from a process of its own."""
    output = tmp_path_factory.mktemp("uninterrupted") / "digests.json"
    subprocess.run([sys.executable, HERE / "uninterrupted.py", data, output], check=True)
    digests: dict[str, list[str]] = json.loads(output.read_text())
    return digests


def take(dataset: SynthPixDataset, count: int) -> list[str]:
    return [digest(batch) for batch in itertools.islice(passes(dataset), count)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_on_from_every_position(
    kind: str, data: Path, uninterrupted: dict[str, list[str]]
) -> None:
    expected = uninterrupted[kind]
    with SynthPixDataset(KINDS[kind](data)) as first, SynthPixDataset(KINDS[kind](data)) as second:
        saved = [first.state_dict()]
        for batch, wanted in zip(passes(first), expected, strict=False):
            assert digest(batch) == wanted
            saved.append(first.state_dict())
        # From the back, so that no position follows from the one before.
        for done in reversed(range(COUNT - 2)):
            second.load_state_dict(json.loads(json.dumps(saved[done])))
            assert take(second, 2) == expected[done : done + 2], done


@pytest.fixture
def expected(uninterrupted: dict[str, list[str]]) -> list[str]:
    return uninterrupted["kinematic, few and repeated"]


def test_a_restore_of_a_restore_goes_on(expected: list[str]) -> None:
    done, state = 0, None
    for count in (2, 1, 4, 3):
        with SynthPixDataset(base(**few)) as dataset:
            if state is not None:
                dataset.load_state_dict(state)
            assert take(dataset, count) == expected[done : done + count]
            done, state = done + count, dataset.state_dict()


def test_a_state_can_be_loaded_before_and_after_iter(expected: list[str]) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        dataset.seek(5)
        state = dataset.state_dict()
        dataset.seek(0)
        before = iter(dataset)
        dataset.load_state_dict(state)
        assert digest(next(before)) == expected[5]
        dataset.load_state_dict(state)
        assert digest(next(iter(dataset))) == expected[5]


def test_an_iterator_that_is_never_used_changes_nothing(expected: list[str]) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        assert take(dataset, 2) == expected[:2]
        iter(dataset)
        assert take(dataset, 2) == expected[2:4]


def test_after_a_break_the_next_pass_goes_on(expected: list[str]) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        seen = []
        for _ in range(4):
            for batch in dataset:
                seen.append(digest(batch))
                if batch.number % 2:
                    break
    assert seen == expected[:8]


def test_a_state_on_the_last_batch_of_a_pass_means_the_next_pass(expected: list[str]) -> None:
    with SynthPixDataset(base(**few), epoch_length=4) as dataset:
        for _batch in dataset:
            state = dataset.state_dict()
        assert state["sampler"]["position"] == 4
    with SynthPixDataset(base(**few), epoch_length=4) as dataset:
        dataset.load_state_dict(state)
        assert [digest(batch) for batch in dataset] == expected[4:8]
        assert [digest(batch) for batch in dataset] == expected[8:12]


def test_a_state_in_the_middle_of_a_pass_means_the_rest_of_it(expected: list[str]) -> None:
    with SynthPixDataset(base(**few), epoch_length=4) as dataset:
        dataset.seek(6)
        assert [digest(batch) for batch in dataset] == expected[6:8]


def test_a_state_survives_the_data_being_moved(
    data: Path, tmp_path: Path, uninterrupted: dict[str, list[str]]
) -> None:
    kind = "npy, repeated"
    with SynthPixDataset(KINDS[kind](data)) as dataset:
        dataset.seek(4)
        state = dataset.state_dict()
    shutil.copytree(data / "npy", tmp_path / "elsewhere" / "npy")
    with SynthPixDataset(KINDS[kind](tmp_path / "elsewhere")) as dataset:
        dataset.load_state_dict(state)
        batch = next(iter(dataset))
    with SynthPixDataset(KINDS[kind](data)) as dataset:
        original = dataset.batch_at(4)
    assert batch.images.equal(original.images)
    assert digest(original) == uninterrupted[kind][4]


def test_prefetched_batches_are_not_in_the_state(expected: list[str]) -> None:
    with SynthPixDataset(base(**few), ahead=5) as dataset:
        assert take(dataset, 3) == expected[:3]
        state = dataset.state_dict()
    assert state["sampler"]["position"] == 3
    with SynthPixDataset(base(**few), ahead=0) as dataset:
        dataset.load_state_dict(state)
        assert take(dataset, 3) == expected[3:6]


def test_a_torch_dataloader_hands_the_batches_on(expected: list[str]) -> None:
    with SynthPixDataset(base(**few), epoch_length=4) as dataset:
        loader = DataLoader(dataset, batch_size=None)
        assert len(loader) == 4
        assert [digest(batch) for batch in loader] == expected[:4]
        assert dataset.position == 4


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_go_on_independently(expected: list[str], duplicate: Any) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        assert take(dataset, 4) == expected[:4]
        with duplicate(dataset) as twin:
            assert twin.state_dict() == dataset.state_dict()
            assert take(twin, 3) == expected[4:7]
        assert take(dataset, 2) == expected[4:6]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_the_arguments_and_the_committed_place(duplicate: Any) -> None:
    arguments: dict[str, Any] = {"rank": 1, "world_size": 2, "renderer": "synthpix"}
    with SynthPixDataset(base(**few), **arguments) as dataset:
        dataset.track()
        batches = iter(dataset)
        first, second = next(batches), next(batches)
        dataset.commit()
        with duplicate(dataset) as other:
            assert other.position == 2
            assert (other.rank, other.world_size) == (1, 2)
            assert digest(next(iter(other))) == digest(second)
    assert (first.number, second.number) == (1, 3)


def test_a_copy_of_a_dataset_whose_data_changed_since_is_refused(tmp_path: Path) -> None:
    config = base(scheduler_class=".npy", file_list=[str(write_npy(tmp_path, 4))])
    with SynthPixDataset(config) as dataset:
        saved = pickle.dumps(dataset)
        write_npy(tmp_path, 5)
        with pytest.raises(StateMismatchError, match=r"records \(saved 4, here 5\)"):
            pickle.loads(saved)


def test_a_mapping_that_changes_later_changes_no_copy() -> None:
    config = base(image_shape=[16, 16])
    with SynthPixDataset(config) as dataset:
        config["image_shape"][:] = [8, 8]
        with copy.deepcopy(dataset) as other:
            assert digest(other.batch_at(0)) == digest(dataset.batch_at(0))


def _in_a_spawned_process(dataset: SynthPixDataset, results: Connection) -> None:
    results.send(take(dataset, 3))


def test_a_dataset_can_be_sent_to_a_spawned_process(expected: list[str]) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    dataset = SynthPixDataset(base(**few))
    dataset.seek(2)
    process = context.Process(target=_in_a_spawned_process, args=(dataset, there))
    process.start()
    there.close()
    assert here.recv() == expected[2:5]
    process.join()


def test_a_user_who_writes_into_a_batch_changes_no_other(expected: list[str]) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        for batch, wanted in zip(dataset, expected[:9], strict=False):
            assert digest(batch) == wanted
            for tensor in (*batch[:6], *batch.params):
                tensor.zero_()
            assert digest(dataset.batch_at(batch.number)) == wanted
            state = dataset.state_dict()
        dataset.load_state_dict(state)
        assert take(dataset, 2) == expected[9:11]


def test_seeking_far_costs_no_history() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        for position in (10**9, 10**12):
            dataset.seek(position)
            batch = next(iter(dataset))
            assert batch.number == position
            assert digest(batch) == digest(dataset.batch_at(position))


def test_a_state_loads_with_weights_only(tmp_path: Path, expected: list[str]) -> None:
    with SynthPixDataset(base(**few)) as dataset:
        dataset.seek(3)
        torch.save({"data": dataset.state_dict()}, tmp_path / "last.pt")
        dataset.seek(0)
        dataset.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True)["data"])
        assert take(dataset, 1) == expected[3:4]


class Named(SynthPixDataset):
    """A subclass with a constructor of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(base(**few), epoch_length=4)
        self.name = name


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_subclass_with_another_constructor_has_its_attributes_and_place(
    duplicate: Any,
) -> None:
    with Named("lab") as dataset:
        dataset.seek(3)
        with duplicate(dataset) as other:
            assert (type(other), other.name, len(other), other.position) == (Named, "lab", 4, 3)


@pytest.mark.parametrize("layout", ["torch", "synthpix"])
def test_a_batch_can_be_copied_and_pickled(layout: str) -> None:
    with SynthPixDataset(base(), layout=layout) as dataset:
        batch = dataset.batch_at(1)
    for other in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert type(other) is type(batch)
        assert other.keys.dtype == torch.uint32
        assert digest(other) == digest(batch)


STRICT = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow_explicit",
}


@pytest.mark.parametrize("renderer", ["particles", "synthpix"])
@pytest.mark.parametrize("settings", [{"jax_disable_jit": True}, STRICT], ids=["jit", "strict"])
def test_jax_settings_for_debugging_change_no_bit(settings: dict[str, Any], renderer: str) -> None:
    with SynthPixDataset(base(), renderer=renderer) as dataset:
        expected = digest(dataset.batch_at(1))
    with ExitStack() as stack:
        for name, value in settings.items():
            stack.callback(jax.config.update, name, getattr(jax.config, name))
            jax.config.update(name, value)
        with SynthPixDataset(base(), renderer=renderer) as dataset:
            assert digest(dataset.batch_at(1)) == expected


def test_a_state_of_another_processor_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with SynthPixDataset(base()) as dataset:
        state = dataset.state_dict()
        monkeypatch.setattr("synthpix_torch.stream.stream.instruction_set", lambda: "x86_64 avx")
        with (
            SynthPixDataset(base()) as other,
            pytest.warns(UserWarning, match=r"device \(saved cpu, .*, here cpu, x86_64 avx\)"),
        ):
            other.load_state_dict(state)


def test_the_instruction_set_names_what_rounds_and_the_limit_for_xla(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_foo --xla_cpu_max_isa=AVX2")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    lines = (
        "processor : 0",
        "vendor_id\t: AuthenticAMD",
        "flags\t\t: fpu avx2 sse avx fma avx512f",
    )
    (tmp_path / "cpuinfo").write_text("\n".join([*lines, "", "processor : 1", "flags : none"]))
    monkeypatch.setattr(cpu, "Path", lambda _: tmp_path / "cpuinfo")
    assert (
        cpu.instruction_set.__wrapped__()
        == "AuthenticAMD x86_64 avx avx2 avx512f fma, at most AVX2"
    )
    monkeypatch.setattr(cpu, "Path", lambda _: tmp_path / "missing")
    monkeypatch.delenv("XLA_FLAGS")
    assert cpu.instruction_set.__wrapped__() == "x86_64"


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_a_loader_that_shifts_restored_random_numbers_is_a_warning(tmp_path: Path) -> None:
    with SynthPixDataset(base()) as dataset, Checkpointer(tmp_path) as checkpoints:
        own = StatefulDataLoader(dataset, batch_size=None, generator=torch.Generator())
        checkpoints.register(random=RandomState(), own=own)
        with pytest.warns(UserWarning, match=r"The loader data draws .*generator=torch.Generator"):
            checkpoints.register(data=StatefulDataLoader(dataset, batch_size=None))


def test_batches_can_be_made_within_torch_compile() -> None:
    @torch.compile(backend="eager")
    def summed(batches: Any) -> torch.Tensor:
        sums = []
        for batch in itertools.islice(batches, 2):
            images, flow_fields, *_ = batch
            sums.append(images.sum() + flow_fields.sum())
        return torch.stack(sums)

    @torch.compile(backend="eager")
    def first(batches: Any) -> torch.Tensor:
        batch: Batch = next(batches)
        return batch.images.sum() * 2

    @torch.compile(backend="eager", fullgraph=True)
    def unpacked(batch: Batch) -> torch.Tensor:
        images, flow_fields, *_ = batch
        return images.sum() + flow_fields.sum()

    with SynthPixDataset(base(**few)) as dataset:
        batches = [dataset.batch_at(n) for n in range(2)]
        sums = torch.stack([unpacked(batch) for batch in batches])
        assert summed(dataset).equal(sums)
        assert summed(dataset.window(0, 2)).equal(sums)
        assert dataset.position == 2
        assert first(iter(dataset)) == 2 * dataset.batch_at(2).images.sum()
        looks = torch.compile(lambda n: dataset.batch_at(n).images.sum() * 2, backend="eager")
        assert looks(1) == 2 * batches[1].images.sum()
