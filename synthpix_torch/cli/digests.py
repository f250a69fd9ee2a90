"""Digests of batches, and the process that `verify` starts to make them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from synthpix_torch.batch import AnyBatch
from synthpix_torch.checkpoint.checkpointer import Checkpointer
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.recording.batches import hash_tensor


class Digest(NamedTuple):
    """The digest of a batch.

    Attributes:
        number: Number of the batch.
        fields: The first 16 digits of a SHA-256 of each field.
    """

    number: int
    fields: dict[str, str]


class Task(NamedTuple):
    """The work of a process.

    Attributes:
        arguments: Keyword arguments of the dataset beside `rank` and `world_size`.
        folder: Folder of checkpoints.
        batches: Batches to deliver, 0 or more.
        config: Configuration of a dataset that starts at batch 0 and saves a step after each batch;
            None to continue from a step of the folder.
        step: The step to continue from, None for the newest.
        rank: Number of this process among `world_size`.
        world_size: Processes that share the stream.
        wait: Wait after the last batch to be killed, until stdin ends.
    """

    arguments: dict[str, Any]
    folder: str
    batches: int
    config: str | None = None
    step: int | None = None
    rank: int = 0
    world_size: int = 1
    wait: bool = False

    def command(self) -> list[str]:
        """Return the command that runs `main` with this task in a new process."""
        code = f"from {__name__} import main; main()"
        return [sys.executable, "-c", code, json.dumps(self)]


def digest_batch(batch: AnyBatch) -> Digest:
    """Digest dtype, shape and bytes of all fields of a batch."""
    fields = {name: value for name, value in batch._asdict().items() if name != "number"}
    return Digest(batch.number, dict(_digest_fields(fields)))


def deliver(dataset: SynthPixDataset, batches: int) -> Iterator[Digest]:
    """Iterate over the next batches, pass after pass, and yield the digest of each."""
    while batches > 0:
        for batch in dataset:
            yield digest_batch(batch)
            batches -= 1
            if batches == 0:
                return


def perform(task: Task) -> Iterator[Digest]:
    """Deliver the batches of a task, and yield the digest of each.

    Raises:
        Exception: What the dataset or the checkpoint raises.
    """
    ranks: dict[str, Any] = {"rank": task.rank, "world_size": task.world_size}
    with ExitStack() as stack:
        if task.config is None:
            dataset = SynthPixDataset.from_checkpoint(
                task.folder, step=task.step, device=task.arguments["device"], **ranks
            )
            stack.enter_context(dataset)
            yield from deliver(dataset, task.batches)
            return
        dataset = stack.enter_context(SynthPixDataset(task.config, **ranks, **task.arguments))
        checkpoints = stack.enter_context(Checkpointer(task.folder))
        checkpoints.register(data=dataset)
        for step, digest in enumerate(deliver(dataset, task.batches), 1):
            checkpoints.save(step)
            yield digest


def main() -> None:
    """Perform the task that the first argument holds as JSON, and print a line for each digest."""
    task = Task(*json.loads(sys.argv[1]))
    for digest in perform(task):
        print(json.dumps(digest), flush=True)
    if task.wait:
        sys.stdin.read()


def read_digest(line: str) -> Digest:
    """Read a line that `main` printed."""
    return Digest(*json.loads(line))


def _digest_fields(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if hasattr(value, "_asdict"):
            yield from _digest_fields(value._asdict(), f"{name}.")
            continue
        content = hashlib.sha256()
        if isinstance(value, torch.Tensor):
            hash_tensor(content, value)
        else:
            content.update(json.dumps(value).encode())
        yield prefix + name, content.hexdigest()[:16]
