"""Check trainers and print the table: python tests/matrix.py > docs/trainer-matrix.md."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning_cases
import torch
from counting import CountingDataset
from exact import NotExact, check_batches
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

from synthpix_torch.lightning import ResumeCallback

EXACT, WARNED, REFUSED = "exact", "not exact, warned", "refused"
# What the error of each refusal tells the user to do.
WAYS_OUT = (
    "num_workers=0",
    "batch_size=None",
    "do not prepare the loader",
    "set ignore_data_skip=True",
    "mode='max_size_cycle'",
)

# What the warning of each loss says.
WARNINGS = ("lost or repeated", "skips that batch", "had prefetched for it are lost")


class Case(NamedTuple):
    """One line of the table; `check` raises `NotExact` if a batch is lost or repeated."""

    trainer: str
    name: str
    expected: str
    check: Callable[[Path], None]


class Outcome(NamedTuple):
    """The result as in the table, and the first difference if the case is not exact."""

    result: str
    difference: str = ""


def outcome(case: Case, folder: Path) -> Outcome:
    """Run a case and classify it by exactness, warnings and refusals."""
    difference = ""
    with lightning_cases.quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module=".*")
        try:
            case.check(folder)
        except NotExact as error:
            difference = str(error)
        except (RuntimeError, TypeError, ValueError) as error:
            refused = any(words in str(error) for words in WAYS_OUT)
            return Outcome(REFUSED) if refused else Outcome("failed", repr(error))
    messages = [str(warning.message) for warning in caught]
    warned = any(words in text for text in messages for words in WARNINGS)
    if difference:
        return Outcome(WARNED if warned else "LOST SILENTLY", difference)
    return Outcome("exact, but warned" if warned else EXACT)


def _numbers(loader: Any, count: int) -> list[int]:
    return [batch.number for batch in islice(loader, count)]


def _check_resume(
    save: Callable[[Any], Any], loader_of: Callable[[Any], Any], load: Callable[[Any, Any], Any]
) -> None:
    """Save after some batches, load into a new dataset and compare the next batches.

    The checkpoint lies within an epoch, at the end of one, and in the second one.
    """
    for length, taken in ((None, 3), (5, 3), (5, 5), (5, 8)):
        dataset = CountingDataset(epoch_length=length)
        loader = loader_of(dataset)
        seen: list[int] = []
        state = None
        while state is None:
            for batch in loader:
                seen.append(batch.number)
                if len(seen) == taken:
                    state = save((dataset, loader))
                    break
        fresh = CountingDataset(epoch_length=length)
        loader = loader_of(fresh)
        load((fresh, loader), state)
        while len(seen) < taken + 7:
            for batch in loader:
                seen.append(batch.number)
                if len(seen) == taken + 7:
                    break
        where = f"epoch_length={length}, saved after {taken} batches"
        check_batches(seen, range(taken + 7), where)


def _plain(wrap: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: _check_resume(
        lambda pair: pair[0].state_dict(), wrap, lambda pair, state: pair[0].load_state_dict(state)
    )


def _stateful(folder: Path) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make(dataset: Any) -> Any:
        return StatefulDataLoader(dataset, batch_size=None)

    # If its state is saved at the last batch of a pass, the loader decides where the pass ends.
    _check_resume(
        lambda pair: pair[1].state_dict(), make, lambda pair, state: pair[1].load_state_dict(state)
    )


def _nodes(folder: Path) -> None:
    from torchdata.nodes import IterableWrapper, Loader, Prefetcher

    def make(dataset: Any) -> Any:
        return Loader(Prefetcher(IterableWrapper(dataset), prefetch_factor=2))

    _check_resume(
        lambda pair: pair[1].state_dict(), make, lambda pair, state: pair[1].load_state_dict(state)
    )


def _nodes_broken_off(folder: Path) -> None:
    from torchdata.nodes import IterableWrapper, Loader, Prefetcher

    dataset = CountingDataset()
    loader = Loader(Prefetcher(IterableWrapper(dataset), prefetch_factor=2))
    seen = _numbers(loader, 3)
    while dataset.position < 5:
        time.sleep(0.001)
    check_batches(seen + _numbers(loader, 2), range(5), "begun again")


def _merged(folder: Path) -> None:
    dataset = CountingDataset()
    trainer = lightning_cases.trainer(folder, ResumeCallback(dataset))
    loader = DataLoader(dataset, batch_size=2, collate_fn=lambda batches: batches[0])
    trainer.fit(lightning_cases.Module(), loader)


def _paused(folder: Path) -> None:
    datasets = CountingDataset(epoch_length=3), CountingDataset(epoch_length=5)
    trainer = lightning_cases.trainer(folder, ResumeCallback(*datasets))
    trainer.fit(lightning_cases.Module(), CombinedLoader(datasets, mode="max_size"))


def _fabric(setup: bool) -> Callable[[Path], None]:
    from lightning.fabric import Fabric

    def check(folder: Path) -> None:
        fabric = Fabric(accelerator="cpu", devices=1)

        def wrap(dataset: Any) -> Any:
            if not setup:
                return dataset
            return fabric.setup_dataloaders(DataLoader(dataset, batch_size=None))

        def save(pair: Any) -> Path:
            fabric.save(folder / "last.ckpt", {"data": pair[0]})
            return folder / "last.ckpt"

        _check_resume(save, wrap, lambda pair, path: fabric.load(path, {"data": pair[0]}))

    return check


def _accelerate(prepared: bool) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)

        def wrap(dataset: Any) -> Any:
            accelerator._custom_objects.clear()
            accelerator.register_for_checkpointing(dataset)
            if not prepared:
                return dataset
            return accelerator.prepare(DataLoader(dataset, batch_size=None))

        def save(pair: Any) -> str:
            accelerator.save_state(str(folder / "state"))
            return str(folder / "state")

        _check_resume(save, wrap, lambda pair, path: accelerator.load_state(path))

    return check


def _skipping(folder: Path) -> None:
    from accelerate import skip_first_batches

    dataset = CountingDataset()
    dataset.seek(3)
    loader = skip_first_batches(DataLoader(dataset, batch_size=None), 3)
    check_batches(_numbers(loader, 3), [3, 4, 5], "after seek(3)")


def _prepared_on_ranks(folder: Path) -> None:
    from accelerate import Accelerator

    dataset = CountingDataset(rank=0, world_size=2)
    loader = Accelerator(cpu=True).prepare(DataLoader(dataset, batch_size=None))
    check_batches(_numbers(loader, 3), [0, 2, 4], "rank 0 of 2")


def _dcp(folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
    from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

    def save(pair: Any) -> Path:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp_save({"data": pair[0]}, checkpoint_id=folder / "dcp", no_dist=True)
        return folder / "dcp"

    def load(pair: Any, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp_load({"data": pair[0]}, checkpoint_id=path, no_dist=True)

    _check_resume(save, lambda dataset: dataset, load)


def _forgotten(loader: str, length: int | None) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        save = lightning_cases.every_step(folder / "whole")
        arguments: dict[str, Any] = {"max_steps": 12, "resume": False}
        whole = lightning_cases.fit(folder, loader, length, callbacks=(save,), **arguments)
        ckpt = folder / "whole" / "step=8.ckpt"
        part = lightning_cases.fit(folder, loader, length, ckpt=ckpt, **arguments)
        check_batches(part.seen, whole.seen[8:], "resumed from step=8.ckpt")

    return check


def _workers(folder: Path) -> None:
    loader = DataLoader(CountingDataset(), batch_size=None, num_workers=1)
    check_batches(_numbers(loader, 3), [0, 1, 2], "one worker")


def _collated(folder: Path) -> None:
    check_batches(_numbers(DataLoader(CountingDataset()), 3), [0, 1, 2], "collated")


CASES = [
    Case("plain loop", "the dataset, state_dict", EXACT, _plain(lambda dataset: dataset)),
    Case(
        "plain loop",
        "DataLoader, the dataset's state_dict",
        EXACT,
        _plain(lambda dataset: DataLoader(dataset, batch_size=None)),
    ),
    Case("plain loop", "DataLoader with num_workers=1", REFUSED, _workers),
    Case("plain loop", "DataLoader with its default batch_size", REFUSED, _collated),
    Case("StatefulDataLoader", "its state_dict", EXACT, _stateful),
    Case("torchdata.nodes", "Prefetcher, the loader's state_dict", EXACT, _nodes),
    Case("torchdata.nodes", "Prefetcher, broken off and begun again", WARNED, _nodes_broken_off),
    Case("Fabric", "the dataset, fabric.save", EXACT, _fabric(False)),
    Case("Fabric", "setup_dataloaders(DataLoader), fabric.save", EXACT, _fabric(True)),
    Case("accelerate", "the dataset, register_for_checkpointing", EXACT, _accelerate(False)),
    Case("accelerate", "prepare(DataLoader), one process", WARNED, _accelerate(True)),
    Case("accelerate", "prepare(DataLoader), two processes", REFUSED, _prepared_on_ranks),
    Case(
        "accelerate, transformers",
        "skip_first_batches in addition to our state",
        REFUSED,
        _skipping,
    ),
    Case("torch.distributed.checkpoint", "the dataset as a Stateful", EXACT, _dcp),
    *(
        Case("Lightning", f"{loader}, infinite, ResumeCallback forgotten", WARNED, check)
        for loader in lightning_cases.LOADERS
        for check in [_forgotten(loader, None)]
    ),
    Case("Lightning", "two batches of the dataset in a training step", REFUSED, _merged),
    Case("Lightning", "CombinedLoader(mode='max_size'), different lengths", REFUSED, _paused),
    *(Case("Lightning", name, EXACT, check) for name, check in lightning_cases.cases()),
]


HEAD = """# Which trainers resume exactly

`python tests/matrix.py` prints this table; `tests/test_matrix.py` checks every row.

- *exact*: the resumed run delivers the batches of the uninterrupted run; none is lost or repeated.
- *not exact, warned*: batches are lost or repeated, and a warning says so before the first batch.
- *refused*: an error before the first batch says what to do instead.

[trainers.md](trainers.md) has the recipes.

| Trainer | Case | Result |
|---|---|---|"""


def main() -> None:
    """Print the table; exit with the number of cases whose result is not the expected one."""
    print(HEAD)
    wrong = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(case, Path(folder))
        if found.result != case.expected:
            wrong += 1
            print(f"{case.trainer}, {case.name}: {found.difference}", file=sys.stderr)
        print(f"| {case.trainer} | {case.name} | {found.result} |")
    sys.exit(wrong)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
