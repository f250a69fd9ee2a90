"""Objects to save in tests of faults, and a process that saves them until it is killed."""

from __future__ import annotations

import multiprocessing
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from kinds import base, few

from synthpix_torch import Checkpointer, SynthPixDataset

# Imports are most of a process's time, so they are done once for all; optimizers import the second.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["synthpix_torch", "torch._dynamo"])


class Saved:
    """Objects that all follow from one number, so that a mixture of two steps is seen."""

    def __init__(self) -> None:
        self.dataset = SynthPixDataset(base(**few))
        self.model = torch.nn.Linear(40, 40)
        self.optimizer = torch.optim.SGD(self.model.parameters(), momentum=0.9)

    def register(self, checkpoints: Checkpointer) -> None:
        checkpoints.register(data=self.dataset, model=self.model, optimizer=self.optimizer)

    def set(self, number: int) -> None:
        self.dataset.seek(number)
        with torch.no_grad():
            self.model.weight.fill_(number)
        for group in self.optimizer.param_groups:
            group["lr"] = float(number)

    @property
    def number(self) -> int:
        """The number that all agree on."""
        numbers = {
            self.dataset.position,
            *self.model.weight.unique().tolist(),
            *(group["lr"] for group in self.optimizer.param_groups),
        }
        assert len(numbers) == 1, numbers
        return int(numbers.pop())


def step_of(number: int) -> int:
    """The step under which a number is saved: every fifth replaces the one before it."""
    return number - number // 5


def restored(folder: Path, step: int | None = None) -> int | None:
    """The number that comes back from a folder."""
    saved = Saved()
    saved.set(999)
    with Checkpointer(folder, read_only=True) as checkpoints:
        saved.register(checkpoints)
        found = checkpoints.restore(step)
    if found is None:
        assert saved.number == 999
        return None
    assert found == step_of(saved.number)
    return saved.number


def save(folder: Path, *numbers: int, **options: Any) -> None:
    saved = Saved()
    with Checkpointer(folder, **options) as checkpoints:
        saved.register(checkpoints)
        for number in numbers:
            saved.set(number)
            checkpoints.save(step_of(number))


def save_forever(folder: Path, acknowledge: Connection) -> None:
    """Go on from the newest step; say each number that is on disk."""
    torch.set_num_threads(1)
    saved = Saved()
    with Checkpointer(folder, keep=2, keep_every=9) as checkpoints:
        saved.register(checkpoints)
        start = saved.number if checkpoints.restore() is not None else 0
        for number in count(start + 1):
            saved.set(number)
            checkpoints.save(step_of(number), overwrite=number % 5 == 0)
            if number % 3:
                # Now and then the next save finds this one still being written.
                checkpoints.wait()
                acknowledge.send(number)


def hold(folder: Path, say: Connection) -> None:
    """Write one step, and stay the writer until killed."""
    saved = Saved()
    saved.set(1)
    with Checkpointer(folder) as checkpoints:
        saved.register(checkpoints)
        checkpoints.save(1)
        checkpoints.wait()
        say.send("ready")
        say.recv()


def run(target: Any, folder: Path) -> tuple[Any, Connection]:
    """Start a process; what it says comes through the connection."""
    ours, theirs = SERVER.Pipe()
    process = SERVER.Process(target=target, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours
