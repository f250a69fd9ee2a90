"""Trainers that start several processes share one stream, on a changing number of ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from scripts import EXAMPLES, Line, journal, kill, run, suspend, torchrun, wait_for


def start(trainer: str, folder: Path, ranks: int, *, resume: bool) -> subprocess.Popen[bytes]:
    """Start an example that saves every second step and never ends."""
    # accelerate's launcher starts a single process differently.
    if trainer != "accelerate" or ranks == 1:
        return torchrun(trainer, folder, ranks, steps=10**6, save_every=2, resume=resume)
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=1"),
        *(
            "--main_process_port=0",
            "--mixed_precision=no",
            "--dynamo_backend=no",
            f"--num_processes={ranks}",
        ),
        *(str(EXAMPLES / "train_accelerate.py"), f"--folder={folder}", f"--steps={10**6}"),
        *("--save-every=2", *(["--resume"] if resume else [])),
    ]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run_and_kill(trainer: str, folder: Path, ranks: int, *, resume: bool) -> list[list[Line]]:
    """Run an example, kill all ranks, and return the journal of each rank."""
    before = [len(journal(folder, rank)) for rank in range(ranks)]
    process = start(trainer, folder, ranks, resume=resume)
    try:
        wait_for(
            lambda: all(len(journal(folder, rank)) >= before[rank] + 7 for rank in range(ranks)),
            lambda: process.poll() is None,
        )
        # The other ranks have trained on every batch that rank 0 has saved, but may not have
        # written their journals yet.
        suspend(process, rank=0)
        saved = len(journal(folder)) - before[0]
        wait_for(
            lambda: all(len(journal(folder, r)) >= before[r] + saved for r in range(ranks)),
            lambda: process.poll() is None,
        )
    finally:
        kill(process)
    return [journal(folder, rank)[before[rank] :] for rank in range(ranks)]


def check(runs: list[list[list[Line]]], stream: dict[int, str]) -> None:
    """Check that the runs together deliver each batch once, in order, with the bits of `stream`."""
    begins = [lines[0][0].number for lines in runs]
    ends = [*begins[1:], begins[-1] + len(runs[-1]) * min(map(len, runs[-1]))]
    delivered: list[int] = []
    for lines, begin, end in zip(runs, begins, ends, strict=True):
        assert end > begin
        for rank, mine in enumerate(lines):
            numbers = [line.number for line in mine]
            assert numbers == list(islice(range(begin + rank, 10**9, len(lines)), len(mine)))
            assert all(line.bits == stream[line.number] for line in mine)
        found = sorted(line.number for mine in lines for line in mine if line.number < end)
        delivered += found
    assert delivered == list(range(ends[-1]))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Return the digests of the batches of one process by number."""
    lines = run("plain", tmp_path_factory.mktemp("stream"), steps=400, save_every=1000)
    return {line.number: line.bits for line in lines}


@pytest.mark.parametrize("trainer", ["lightning", "accelerate"])
def test_a_run_resumed_on_fewer_ranks_delivers_every_batch_once_in_order(
    trainer: str, stream: dict[int, str], tmp_path: Path
) -> None:
    runs = [
        run_and_kill(trainer, tmp_path, ranks, resume=resume)
        for ranks, resume in ((2, False), (1, True))
    ]
    check(runs, stream)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "trainer", ["lightning", "fabric", "accelerate", "dcp", "ddp", "transformers"]
)
def test_a_run_on_4_then_2_then_3_ranks_then_1_delivers_every_batch_once_in_order(
    trainer: str, stream: dict[int, str], tmp_path: Path
) -> None:
    runs = [run_and_kill(trainer, tmp_path, ranks, resume=ranks != 4) for ranks in (4, 2, 3, 1)]
    check(runs, stream)
