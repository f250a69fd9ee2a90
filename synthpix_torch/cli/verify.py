"""`synthpix-torch verify`: prove on this machine that runs of a configuration resume exactly."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from synthpix_torch.checkpoint.folder import Folder
from synthpix_torch.checks import check_integer
from synthpix_torch.cli.digests import Digest, Task, deliver, read_digest
from synthpix_torch.cli.opening import add_dataset_arguments, dataset_arguments, open_dataset
from synthpix_torch.cli.progress import progress
from synthpix_torch.cli.workers import Worker
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.stream.cursor import Cursor

HELP = "kill a run, resume it in a new process and on two ranks, and compare every bit"

FEWEST: Final = 8
RANKS: Final = 2


class Run(NamedTuple):
    """A run in a process of its own, compared with the uninterrupted run.

    Attributes:
        name: What the process was.
        expected: Numbers of the batches that it had to deliver.
        delivered: Numbers of the batches that it delivered.
        differences: Names of the fields that differ, by the number of the batch.
    """

    name: str
    expected: tuple[int, ...]
    delivered: tuple[int, ...]
    differences: dict[int, tuple[str, ...]]

    @property
    def exact(self) -> bool:
        """True if all batches came, in their order, and no bit differs."""
        return self.delivered == self.expected and not self.differences


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "--batches", type=int, default=24, help=f"length of the runs, at least {FEWEST}"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def run(options: argparse.Namespace) -> int:
    """Print the comparison and return 0 if all runs are exact, else 1.

    Raises:
        ValueError: An argument or the configuration cannot be used.
        OSError: A file cannot be read, or a process failed.
    """
    check_integer("--batches", options.batches, FEWEST)
    with ExitStack() as stack:
        dataset = stack.enter_context(open_dataset(options))
        total = dataset.stream.total
        count = options.batches if total is None else min(options.batches, total)
        # So that all ranks deliver equally many.
        count -= count % RANKS
        if count < FEWEST:
            raise ValueError(f"The data makes {total} batches, too few: verify needs {FEWEST}.")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="synthpix_torch-verify-"))
        reference, runs = _execute(dataset, options, count, folder, stack)
    _report(options, reference, runs, _why_not_shared(dataset))
    return int(not all(found.exact for found in runs))


def _execute(
    dataset: SynthPixDataset,
    options: argparse.Namespace,
    count: int,
    folder: str,
    stack: ExitStack,
) -> tuple[list[Digest], list[Run]]:
    """Kill a run, continue it, and compare both with a run in this process."""
    arguments = dataset_arguments(options)

    def start(name: str, task: Task) -> Worker:
        return stack.enter_context(Worker(name, task.command()))

    begun = Task(arguments, folder, count - 2, config=os.path.abspath(options.config), wait=True)
    worker = start("run to be killed", begun)
    killed = list(islice(worker.lines(), count // 2))
    killed += worker.kill()
    newest = max(Folder(folder).locations())
    # Ranks can share episodes from a step of all ranks alone.
    common = newest - newest % RANKS
    expected = {"resumed in a new process": tuple(range(newest, count))}
    tasks = [Task(arguments, folder, count - newest)]
    if _why_not_shared(dataset) is None:
        for rank in range(RANKS):
            numbers = tuple(range(common + rank, count, RANKS))
            expected[f"rank {rank} of {RANKS}, in a new process"] = numbers
            tasks.append(Task(arguments, folder, len(numbers), None, common, rank, RANKS))
    workers = [start(name, task) for name, task in zip(expected, tasks, strict=True)]
    with progress("verify", count * (1 + len(workers)), "batches") as advance:
        reference = []
        for digest in deliver(dataset, count):
            reference.append(digest)
            advance(1)
        by_number = {digest.number: digest for digest in reference}
        found = [read_digest(line) for line in killed]
        title = f"killed (SIGKILL) after batch {found[-1].number}"
        runs = [compare(title, range(len(found)), found, by_number)]
        for worker in workers:
            found = []
            for line in worker.lines():
                found.append(read_digest(line))
                advance(1)
            runs.append(compare(worker.name, expected[worker.name], found, by_number))
    return reference, runs


def compare(
    name: str,
    expected: Iterable[int],
    found: Sequence[Digest],
    reference: Mapping[int, Digest],
) -> Run:
    """Compare the batches of a run with those of the uninterrupted run."""
    differences = {}
    for digest in found:
        here = reference[digest.number].fields if digest.number in reference else {}
        fields = {**here, **digest.fields}
        different = tuple(field for field in fields if here.get(field) != digest.fields.get(field))
        if different:
            differences[digest.number] = different
    delivered = tuple(digest.number for digest in found)
    return Run(name, tuple(expected), delivered, differences)


def _why_not_shared(dataset: SynthPixDataset) -> str | None:
    """Return why several ranks cannot share a stream, None if they can."""
    try:
        Cursor(dataset.stream.order).begin(RANKS)
    except RuntimeError as error:
        return str(error)
    return None


def _report(
    options: argparse.Namespace,
    reference: Sequence[Digest],
    runs: Sequence[Run],
    skipped: str | None,
) -> None:
    content = hashlib.sha256(json.dumps(reference).encode()).hexdigest()
    if options.json:
        print(json.dumps(_as_json(options, len(reference), runs, skipped, content), indent=2))
        return
    rows = [("run", "batches", "equal"), ("uninterrupted", _numbers(range(len(reference))), "")]
    for found in runs:
        equal = sum(number not in found.differences for number in found.delivered)
        rows.append((found.name, _numbers(found.expected), f"{equal} of {len(found.expected)}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if skipped:
        print(f"Not run on {RANKS} ranks: {skipped}")
    wrong = [found for found in runs if not found.exact]
    for found in wrong:
        print(_describe(found))
    if not wrong:
        print(
            f"Exact: every bit of every batch is that of the uninterrupted run (SHA-256 "
            f"{content[:16]})."
        )


def _describe(found: Run) -> str:
    if found.delivered != found.expected:
        return (
            f"NOT EXACT: {found.name}: delivered the batches {_numbers(found.delivered)} instead "
            f"of {_numbers(found.expected)}."
        )
    number, fields = min(found.differences.items())
    return (
        f"NOT EXACT: {found.name}: {len(found.differences)} batches differ, first batch {number} "
        f"in {', '.join(fields)}."
    )


def _numbers(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if tuple(numbers) != tuple(range(numbers[0], numbers[-1] + 1, step)):
        return ", ".join(map(str, numbers))
    return f"{numbers[0]} to {numbers[-1]}" + (f", every {step}nd" if step > 1 else "")


def _as_json(
    options: argparse.Namespace, count: int, runs: Sequence[Run], skipped: str | None, content: str
) -> dict[str, Any]:
    return {
        "config": str(Path(options.config)),
        **dataset_arguments(options),
        "batches": count,
        "sha256": content,
        "exact": all(found.exact for found in runs),
        "skipped": skipped,
        "runs": [{**found._asdict(), "exact": found.exact} for found in runs],
    }
