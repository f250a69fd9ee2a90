"""Steps on disk: what is saved, when, for how long, and what comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from kinds import base, few
from oracle import digest
from saved import Counter, files

from synthpix_torch import (
    Checkpointer,
    CheckpointError,
    RandomState,
    StateMismatchError,
    SynthPixDataset,
)
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.step import read_manifest


class Run:
    """A small training: its objects, and steps that change all of them."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.dataset = SynthPixDataset(base(**few))
        self.model = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.Dropout())
        self.ema = torch.optim.swa_utils.AveragedModel(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.scaler = torch.amp.GradScaler("cpu")
        self.objects = {
            "data": self.dataset,
            "validation": SynthPixDataset(base(seed=4)),
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self.scaler,
            "rng": RandomState(),
        }

    def train(self, steps: int) -> list[tuple[str, str]]:
        seen = []
        for _, batch in zip(range(steps), self.dataset, strict=False):
            loss = self.model(batch.images).square().mean()
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.scheduler.step()
            self.ema.update_parameters(self.model)
            seen.append((digest(batch), loss.item().hex()))
        return seen

    def weights(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.ema.parameters()]


@pytest.fixture
def dataset() -> Iterator[SynthPixDataset]:
    with SynthPixDataset(base(**few)) as dataset:
        yield dataset


# What is saved ---------------------------------------------------------------------------------


def test_a_run_goes_on_bit_for_bit_with_everything_it_needs(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        first = Run(seed=1)
        checkpoints.register(**first.objects)
        first.train(4)
        checkpoints.save(4)
        wanted = first.train(5)
    with Checkpointer(tmp_path) as checkpoints:
        second = Run(seed=2)
        checkpoints.register(**second.objects)
        assert checkpoints.restore() == 4
        assert second.train(5) == wanted
    assert all(map(torch.equal, first.weights(), second.weights()))


def test_the_items_are_those_of_orbax_and_grain_and_one_file_of_torch_each(
    tmp_path: Path, dataset: SynthPixDataset
) -> None:
    model = torch.nn.Linear(2, 2)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, other=SynthPixDataset(base()), model=model)
        checkpoints.save(3)
    assert {"sampler", "grain", "other.sampler", "other.grain", "model"} < set(
        files(tmp_path / "3")
    )
    saved = torch.load(tmp_path / "3" / "model" / "state.pt", weights_only=True)
    assert torch.equal(saved["weight"], model.weight)
    assert saved._metadata == vars(model.state_dict())["_metadata"]


def test_a_checkpoint_manager_of_orbax_sees_the_steps_and_reads_the_dataset(
    tmp_path: Path, dataset: SynthPixDataset
) -> None:
    dataset.seek(7)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset)
        for step in (1, 2):
            checkpoints.save(step)
    with ocp.CheckpointManager(tmp_path) as manager:
        assert manager.all_steps() == [1, 2]
        restored = manager.restore(2, args=ocp.args.Composite(sampler=ocp.args.JsonRestore()))
    assert restored["sampler"]["sampler"] == {"position": 7}


def test_tensors_that_share_memory_share_it_after_the_restore(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    with Checkpointer(tmp_path) as checkpoints:
        thing = Counter({"whole": whole, "row": whole[2:4], "column": whole.view(2, 3).T})
        checkpoints.register(thing=thing)
        checkpoints.save(1)
        checkpoints.restore()
    assert torch.equal(thing.value["column"], whole.view(2, 3).T)
    thing.value["whole"].zero_()
    assert thing.value["row"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "value",
    [
        1,
        2.5,
        True,
        "text",
        None,
        [1, (2, {"three": 3})],
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor(3),
        torch.empty(0),
        torch.ones(2, 2).to_sparse(),
        torch.complex(torch.ones(2), torch.ones(2)).conj(),
        torch.float16,
        torch.Size((2, 3)),
        {1: 2, (1, 2): 3},
    ],
    ids=str,
)
def test_whatever_torch_reads_with_weights_only_comes_back(tmp_path: Path, value: Any) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        thing = Counter(value)
        checkpoints.register(thing=thing)
        checkpoints.save(1)
        thing.value = "lost"
        checkpoints.restore()
    if isinstance(value, torch.Tensor):
        assert thing.value.dtype == value.dtype
        assert torch.equal(thing.value.to_dense(), value.to_dense())
    else:
        assert thing.value == value
        assert type(thing.value) is type(value)


@pytest.mark.parametrize(
    "value",
    [np.ones(2), np.float64(1), {"deep": [object()]}, print, 1 << 3000],
    ids=["array", "number of NumPy", "object", "function", "long integer"],
)
def test_what_torch_would_not_read_again_is_refused_by_name_before_it_is_saved(
    tmp_path: Path, value: Any
) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(thing=Counter(value))
        with pytest.raises(TypeError, match=r"thing\['value'\].*weights_only=True"):
            checkpoints.save(1)
    assert files(tmp_path) == []


def test_tensors_that_torch_cannot_write_are_refused_by_name_before_they_are_saved(
    tmp_path: Path,
) -> None:
    numbers = torch.ones(3)
    freed = torch.ones(3)
    freed.untyped_storage().resize_(0)
    for value, words in (
        (
            {"a": numbers, "b": numbers.view(torch.int32)},
            r"\['b'\] .* and .*\['a'\] .* share memory",
        ),
        (freed, r"The memory of thing\['value'\] was freed"),
    ):
        with Checkpointer(tmp_path) as checkpoints:
            checkpoints.register(thing=Counter(value))
            with pytest.raises(TypeError, match=words):
                checkpoints.save(1)
    assert files(tmp_path) == []


def test_the_default_device_of_torch_does_not_matter(tmp_path: Path) -> None:
    thing = Counter(torch.ones(2))
    with Checkpointer(tmp_path) as checkpoints, torch.device("meta"):
        checkpoints.register(thing=thing, rng=RandomState())
        checkpoints.save(1)
        checkpoints.restore()
    assert thing.value.tolist() == [1, 1]


def test_an_object_whose_state_is_none_is_given_it_back(tmp_path: Path) -> None:
    class Remembers:
        loaded = "nothing"

        def state_dict(self) -> None:
            return None

        def load_state_dict(self, state: Any) -> None:
            self.loaded = state

    thing = Remembers()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(thing=thing)
        checkpoints.save(1)
        checkpoints.restore()
    assert thing.loaded is None


def test_a_sharded_tensor_is_refused(tmp_path: Path) -> None:
    kind = type("DTensor", (torch.Tensor,), {})
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(thing=Counter(torch.ones(2).as_subclass(kind)))
        with pytest.raises(TypeError, match="each rank holds a part"):
            checkpoints.save(1)


# Atomic ----------------------------------------------------------------------------------------


def test_what_happens_after_save_returned_does_not_reach_the_disk(
    tmp_path: Path, dataset: SynthPixDataset, held: Callable[[], None]
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    counter = Counter({"list": [1]})
    dataset.seek(5)
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    momentum = optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, model=model, optimizer=optimizer, counter=counter)
        checkpoints.save(1)
        # The naive way passes the tensors themselves, which change later.
        optimizer.step()
        counter.value["list"].append(2)
        dataset.seek(9)
        held()
        assert checkpoints.restore() == 1
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(optimizer.state_dict()["state"][0]["momentum_buffer"], momentum)
    assert counter.value == {"list": [1]}
    assert dataset.position == 5


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Steps are not written before this is called."""
    go = threading.Event()
    write = steps.write_step

    def wait_and_write(*arguments: Any) -> None:
        assert go.wait(60)
        write(*arguments)

    monkeypatch.setattr(steps, "write_step", wait_and_write)
    return go.set


def test_a_failed_save_is_reported_at_the_next_call_and_at_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def registered(**options: Any) -> Checkpointer:
        checkpoints = Checkpointer(tmp_path, **options)
        checkpoints.register(counter=Counter())
        return checkpoints

    with registered() as checkpoints:
        checkpoints.save(1)
    monkeypatch.setattr(steps, "write_step", fail)
    calls: list[Callable[[Checkpointer], Any]] = [
        lambda checkpoints: checkpoints.save(3),
        lambda checkpoints: checkpoints.restore(),
        lambda checkpoints: checkpoints.wait(),
        lambda checkpoints: checkpoints.close(),
    ]
    for call in calls:
        checkpoints = registered()
        checkpoints.save(2)
        with pytest.raises(CheckpointError, match=r"Step 2 could not be saved.*No space left"):
            call(checkpoints)
        checkpoints.close()
    # A step that is not due reports it, too, once the failure is known.
    with registered(every=2) as checkpoints:
        checkpoints.save(2)
        checkpoints._writer.submit(lambda: None).result()
        with pytest.raises(CheckpointError, match="Step 2"):
            checkpoints.save(3)
    assert files(tmp_path) == ["1"]
    assert list((tmp_path / ".synthpix_torch").iterdir()) == [tmp_path / ".synthpix_torch" / "lock"]


def test_a_step_that_exists_or_is_older_is_an_error_unless_asked_for(tmp_path: Path) -> None:
    counter = Counter()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(counter=counter)
        for step in (1, 2, 3, 4):
            counter.value = step
            checkpoints.save(step)
        checkpoints.wait()
        for step in (3, 4):
            with pytest.raises(ValueError, match=f"step {step} is not newer: pass overwrite=True"):
                checkpoints.save(step)
        counter.value = "new"
        checkpoints.save(3, overwrite=True)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3]
        assert checkpoints.restore() == 3
    assert counter.value == "new"


class Rows:
    """Writes rows to a file of its own, as a collector of results does."""

    def __init__(self, path: Path) -> None:
        self.path, self.waiting = path, []  # type: tuple[Path, list[str]]
        self.path.touch()

    def flush(self) -> None:
        with self.path.open("a") as file:
            file.writelines(self.waiting)
        self.waiting = []

    def state_dict(self) -> dict[str, int]:
        return {"rows": len(self.path.read_text().splitlines()) + len(self.waiting)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        rows = self.path.read_text().splitlines(keepends=True)[: state["rows"]]
        self.path.write_text("".join(rows))


def test_an_object_flushes_its_files_before_a_step_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, written = Rows(tmp_path / "rows"), []
    write = steps.write_step

    def look(*arguments: Any) -> None:
        written.append(rows.path.read_text())
        write(*arguments)

    monkeypatch.setattr(steps, "write_step", look)
    with Checkpointer(tmp_path / "run") as checkpoints:
        checkpoints.register(rows=rows)
        rows.waiting = ["1\n", "2\n"]
        checkpoints.save(1)
        checkpoints.wait()
        assert written == ["1\n2\n"]
        rows.waiting = ["3\n"]
        rows.flush()
        checkpoints.restore()
        assert rows.path.read_text() == "1\n2\n"
        monkeypatch.setattr(Rows, "flush", _no_space)
        checkpoints.save(2)
        with pytest.raises(CheckpointError, match=r"Step 2 could not be saved .*No space left"):
            checkpoints.wait()


def _no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")


# Restore ---------------------------------------------------------------------------------------


def test_an_empty_folder_restores_nothing(tmp_path: Path) -> None:
    with Checkpointer(tmp_path / "new") as checkpoints:
        checkpoints.register(counter=Counter())
        assert checkpoints.restore() is None


def test_a_given_step_is_restored_or_an_error(tmp_path: Path) -> None:
    counter = Counter()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(counter=counter)
        for counter.value in (1, 2, 3):
            checkpoints.save(counter.value)
        assert checkpoints.restore(2) == counter.value == 2
        with pytest.raises(ValueError, match=r"no step 7.*there are: 1, 2, 3"):
            checkpoints.restore(7)
        (tmp_path / "1" / "counter" / "state.pt").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"Step 1 .*counter/state.pt was changed"):
            checkpoints.restore(1)
    assert counter.value == 2


def test_missing_and_extra_objects_are_an_error_with_both_lists(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=SynthPixDataset(base()), model=Counter(), ghost=Counter())
        checkpoints.save(1)
    with Checkpointer(tmp_path) as checkpoints:
        model = Counter("untouched")
        checkpoints.register(data=SynthPixDataset(base()), model=model, optimizer=Counter())
        with pytest.raises(ValueError, match=r"registered: ghost\. Not in the step: optimizer"):
            checkpoints.restore()
    with Checkpointer(tmp_path) as checkpoints:
        # The same names for other kinds of objects.
        checkpoints.register(data=Counter(), model=model, ghost=Counter())
        with pytest.raises(ValueError, match=r"holds data \(dataset\).*registered are data \(tor"):
            checkpoints.restore()
    assert model.value == "untouched"


def test_only_the_named_objects_are_restored(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        data, ghost = SynthPixDataset(base()), Counter("not needed")
        checkpoints.register(data=data, net=Counter("saved"), ema=Counter("saved"), ghost=ghost)
        checkpoints.save(1)
    net, ema, new = Counter("net"), Counter("ema"), Counter("new")
    with Checkpointer(tmp_path, read_only=True) as checkpoints:
        checkpoints.register(net=net, ema=ema, new=new)
        assert checkpoints.restore(only=["net"]) == 1
        assert (net.value, ema.value, new.value) == ("saved", "ema", "new")
        assert checkpoints.restore(1, only=iter(("net", "ema"))) == 1
        assert (net.value, ema.value, new.value) == ("saved", "saved", "new")


@pytest.mark.parametrize(
    ("only", "words"),
    [
        (["net", "ghost"], r"Not registered: ghost\. Register"),
        (["net", "new"], r"Not in the step: new\. Register"),
        (["net", "none"], r"Not registered: none\. Not in the step: none\. Register"),
        (["net", "data"], r"holds data \(dataset\).*registered are data \(torch\)"),
        ("net", r"pass only=\['net'\]"),
    ],
    ids=str,
)
def test_a_name_that_cannot_be_restored_is_an_error_that_names_it(
    tmp_path: Path, only: list[str], words: str
) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(
            net=Counter("saved"), ghost=Counter(), data=SynthPixDataset(base(**few))
        )
        checkpoints.save(1)
    net = Counter("untouched")
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(net=net, new=Counter(), data=Counter())
        with pytest.raises((TypeError, ValueError), match=words):
            checkpoints.restore(only=only)
    assert net.value == "untouched"


def test_a_dataset_of_another_configuration_changes_nothing(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(model=Counter("saved"), data=SynthPixDataset(base()))
        checkpoints.save(1)
    with Checkpointer(tmp_path) as checkpoints:
        model = Counter("untouched")
        checkpoints.register(model=model, data=SynthPixDataset(base(seed=4)))
        with pytest.raises(StateMismatchError, match=r"seed \(saved 3, here 4\)"):
            checkpoints.restore()
    assert model.value == "untouched"


def test_a_model_that_does_not_fit_leaves_everything_as_it_was(
    tmp_path: Path, dataset: SynthPixDataset
) -> None:
    small = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, rng=RandomState(), model=small)
        dataset.seek(5)
        checkpoints.save(1)
    dataset.seek(2)
    # The first layer fits and would be loaded before the second is looked at.
    large = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3))
    before = [parameter.clone() for parameter in large.parameters()]
    torch.rand(1)
    random_state = torch.get_rng_state()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, rng=RandomState(), model=large)
        with pytest.raises(RuntimeError, match="size mismatch") as caught:
            checkpoints.restore()
    assert caught.value.__notes__ == [
        "'model' could not be restored.",
        "All objects have their previous states.",
    ]
    assert dataset.position == 2
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(map(torch.equal, before, large.parameters()))


def test_a_restored_run_that_saves_goes_on_behind_the_restored_step(tmp_path: Path) -> None:
    counter = Counter()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(counter=counter)
        for counter.value in (1, 2, 3):
            checkpoints.save(counter.value)
        checkpoints.restore(1)
        counter.value = "another way"
        with pytest.raises(ValueError, match=r"Step 3 .* already, step 2 is not newer"):
            checkpoints.save(2)
        checkpoints.save(2, overwrite=True)
    assert checkpoints.steps() == [1, 2]


# Wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a/b", "", "..", "a b", "_hidden", "sampler", "grain", "metrics", "naïve"]
)
def test_names_that_cannot_be_items_are_refused(tmp_path: Path, name: str) -> None:
    with (
        Checkpointer(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=r"cannot name an object|is taken"),
    ):
        checkpoints.register(**{name: Counter()})


@pytest.mark.parametrize(
    "name", ["items", "keys", "get", "step", "checkpoint", "directory", "args"]
)
def test_names_of_methods_are_names_like_others(tmp_path: Path, name: str) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        counter = Counter(3)
        checkpoints.register(**{name: counter})
        checkpoints.save(1)
        counter.value = 4
        checkpoints.restore()
    assert counter.value == 3


@pytest.mark.parametrize(
    ("thing", "kind"), [(3, "int"), (object(), "object"), (Counter, "the class Counter")]
)
def test_an_object_without_a_state_is_refused(tmp_path: Path, thing: Any, kind: str) -> None:
    with (
        Checkpointer(tmp_path) as checkpoints,
        pytest.raises(TypeError, match=rf"thing is .*{kind} without state_dict\(\)"),
    ):
        checkpoints.register(thing=thing)


def test_a_name_or_an_object_twice_is_refused_and_nothing_is_registered(tmp_path: Path) -> None:
    counter = Counter()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(counter=counter)
        with pytest.raises(ValueError, match="'counter' is taken"):
            checkpoints.register(other=Counter(), counter=Counter())
        with pytest.raises(ValueError, match="again and counter are the same object"):
            checkpoints.register(again=counter)
        checkpoints.save(1)
    manifest = read_manifest(tmp_path / "1")
    assert manifest is not None
    assert manifest.objects == {"counter": "torch"}


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0},
        {"keep_every": -1},
        {"every": 0},
        {"keep": True},
        {"every": None},
        {"keep_best": 0},
        {"best": 3},
        {"best_mode": "lowest"},
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="must be"):
        Checkpointer(tmp_path, **options)


def test_an_address_is_not_taken_for_a_folder() -> None:
    with pytest.raises(ValueError, match="gs://bucket/run is not on a local disk"):
        Checkpointer("gs://bucket/run")


@pytest.mark.parametrize("step", [-1, 1.0, "1", True, None])
def test_a_step_is_a_number_of_at_least_0(tmp_path: Path, step: Any) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(counter=Counter())
        with pytest.raises((TypeError, ValueError), match="step must be"):
            checkpoints.save(step)


def test_nothing_is_saved_before_something_is_registered(tmp_path: Path) -> None:
    with (
        Checkpointer(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="Nothing is registered"),
    ):
        checkpoints.save(1)


def test_a_closed_checkpointer_is_over(tmp_path: Path) -> None:
    checkpoints = Checkpointer(tmp_path)
    checkpoints.close()
    checkpoints.close()
    for call in (checkpoints.restore, checkpoints.wait, checkpoints.register):
        with pytest.raises(RuntimeError, match="closed: make a new one"):
            call()
    with pytest.raises(RuntimeError, match="closed: make a new one"):
        checkpoints.save(1)


def test_a_step_that_was_moved_elsewhere_and_linked_is_a_step(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    counter = Counter()
    with Checkpointer(run) as checkpoints:
        checkpoints.register(counter=counter)
        for counter.value in (1, 2):
            checkpoints.save(counter.value)
    (run / "2").rename(elsewhere)
    (run / "2").symlink_to(elsewhere)
    with Checkpointer(run, keep=1) as checkpoints:
        checkpoints.register(counter=counter)
        assert checkpoints.restore() == 2
        checkpoints.save(3)
        checkpoints.wait()
        assert checkpoints.steps() == [3]
    assert elsewhere.exists()


def test_a_lazy_module_is_restored_before_its_first_batch(tmp_path: Path) -> None:
    module = torch.nn.LazyLinear(3)
    module(torch.ones(1, 2))
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(model=module)
        checkpoints.save(1)
    lazy = torch.nn.LazyLinear(3)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(model=lazy)
        assert checkpoints.restore() == 1
    assert lazy.weight.equal(module.weight)
