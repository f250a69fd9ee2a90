"""All trainers and cases as a table: python tests/matrix.py > docs/trainer-matrix.md."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning_cases
import torch
from counting import CountingDataset
from torch.utils.data import DataLoader

EXACT, WARNED, REFUSED = "exact", "not exact, warned", "refused"
# The way out that each refusal of ours names.
WAYS_OUT = ("num_workers=0", "do not prepare the loader", "set ignore_data_skip=True")


class Case(NamedTuple):
    """One line of the table."""

    trainer: str
    name: str
    expected: str
    check: Callable[[Path], bool]


def outcome(case: Case, folder: Path) -> str:
    """What the case comes to."""
    with lightning_cases.quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module=".*")
        try:
            exact = case.check(folder)
        except (RuntimeError, TypeError, ValueError) as error:
            return REFUSED if any(words in str(error) for words in WAYS_OUT) else repr(error)
    ours = [
        w for w in caught if "lost or repeated" in str(w.message) or "lacks it" in str(w.message)
    ]
    if exact:
        return EXACT if not ours else "exact, but warned"
    return WARNED if ours else "LOST SILENTLY"


def _numbers(loader: Any, count: int) -> list[int]:
    return [batch.number for batch in islice(loader, count)]


def _goes_on(save: Callable[[Any], Any], loader_of: Callable[[Any], Any], load: Any) -> bool:
    """Batches, a save, a fresh dataset, a load, and the next batches, in and across epochs."""
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
        if seen[: taken + 7] != list(range(taken + 7)):
            return False
    return True


def _plain(wrap: Callable[[Any], Any]) -> Callable[[Path], bool]:
    return lambda folder: _goes_on(
        lambda pair: pair[0].state_dict(), wrap, lambda pair, state: pair[0].load_state_dict(state)
    )


def _stateful(folder: Path) -> bool:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make(dataset: Any) -> Any:
        return StatefulDataLoader(dataset, batch_size=None)

    # A loader that is asked on its last batch has its own idea of the end of a pass.
    return _goes_on(
        lambda pair: pair[1].state_dict(), make, lambda pair, state: pair[1].load_state_dict(state)
    )


def _fabric(setup: bool) -> Callable[[Path], bool]:
    from lightning.fabric import Fabric

    def check(folder: Path) -> bool:
        fabric = Fabric(accelerator="cpu", devices=1)

        def wrap(dataset: Any) -> Any:
            if not setup:
                return dataset
            return fabric.setup_dataloaders(DataLoader(dataset, batch_size=None))

        def save(pair: Any) -> Path:
            fabric.save(folder / "last.ckpt", {"data": pair[0]})
            return folder / "last.ckpt"

        return _goes_on(save, wrap, lambda pair, path: fabric.load(path, {"data": pair[0]}))

    return check


def _accelerate(prepared: bool) -> Callable[[Path], bool]:
    def check(folder: Path) -> bool:
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

        return _goes_on(save, wrap, lambda pair, path: accelerator.load_state(path))

    return check


def _skipping(folder: Path) -> bool:
    from accelerate import skip_first_batches

    dataset = CountingDataset()
    dataset.seek(3)
    loader = skip_first_batches(DataLoader(dataset, batch_size=None), 3)
    return _numbers(loader, 3) == [3, 4, 5]


def _prepared_on_ranks(folder: Path) -> bool:
    from accelerate import Accelerator

    dataset = CountingDataset(rank=0, world_size=2)
    loader = Accelerator(cpu=True).prepare(DataLoader(dataset, batch_size=None))
    return _numbers(loader, 3) == [0, 2, 4]


def _dcp(folder: Path) -> bool:
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

    return _goes_on(save, lambda dataset: dataset, load)


def _forgotten(loader: str, length: int | None) -> Callable[[Path], bool]:
    def check(folder: Path) -> bool:
        save = lightning_cases.every_step(folder / "whole")
        arguments: dict[str, Any] = {"max_steps": 12, "resume": False}
        whole = lightning_cases.fit(folder, loader, length, callbacks=(save,), **arguments)
        ckpt = folder / "whole" / "step=8.ckpt"
        part = lightning_cases.fit(folder, loader, length, ckpt=ckpt, **arguments)
        return part.seen == whole.seen[8:]

    return check


def _workers(folder: Path) -> bool:
    return _numbers(DataLoader(CountingDataset(), batch_size=None, num_workers=1), 3) == [0, 1, 2]


CASES = [
    Case("plain loop", "the dataset, state_dict", EXACT, _plain(lambda dataset: dataset)),
    Case(
        "plain loop",
        "DataLoader, the dataset's state_dict",
        EXACT,
        _plain(lambda dataset: DataLoader(dataset, batch_size=None)),
    ),
    Case("plain loop", "DataLoader with num_workers=1", REFUSED, _workers),
    Case("StatefulDataLoader", "its state_dict", EXACT, _stateful),
    Case("Fabric", "the dataset, fabric.save", EXACT, _fabric(False)),
    Case("Fabric", "setup_dataloaders(DataLoader), fabric.save", EXACT, _fabric(True)),
    Case("accelerate", "the dataset, register_for_checkpointing", EXACT, _accelerate(False)),
    Case("accelerate", "prepare(DataLoader), one process", WARNED, _accelerate(True)),
    Case("accelerate", "prepare(DataLoader), two processes", REFUSED, _prepared_on_ranks),
    Case("accelerate, transformers", "skipping besides our state", REFUSED, _skipping),
    Case("torch.distributed.checkpoint", "the dataset as a Stateful", EXACT, _dcp),
    *(
        Case("Lightning", f"{loader}, endless, ResumeCallback forgotten", WARNED, check)
        for loader in lightning_cases.LOADERS
        for check in [_forgotten(loader, None)]
    ),
    *(Case("Lightning", name, EXACT, check) for name, check in lightning_cases.cases()),
]


def main() -> None:
    """Print the table; fail if a case is not what it should be."""
    print("# What goes on exactly\n")
    print("Made by `python tests/matrix.py`, tested by tests/test_matrix.py.\n")
    print("| Trainer | Case | Result |\n|---|---|---|")
    wrong = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(case, Path(folder))
        wrong += found != case.expected
        print(f"| {case.trainer} | {case.name} | {found} |")
    sys.exit(wrong)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
