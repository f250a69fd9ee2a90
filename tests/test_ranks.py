"""One global stream on any number of ranks, in real processes under torchrun."""

import json
import os
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import pytest
from counting import CountingDataset
from kinds import base, few
from oracle import digest
from ranks import FINITE, STREAMS, in_the_middle, open_all
from scripts import journal, kill, torchrun, wait_for

from synthpix_torch import SynthPixDataset

RANKS = Path(__file__).parent / "ranks.py"


def delivered(folder: Path, ranks: int, streams: int) -> dict[int, str]:
    """Digests by the number of the batch, of one run on all its ranks."""
    found: dict[int, str] = {}
    for rank in range(ranks):
        *lines, _ = (folder / f"{ranks}-{streams}-{rank}.txt").read_text().split("\n")
        for line in lines:
            number, bits = line.split(" ")
            assert found.setdefault(int(number), bits) == bits
    return found


def position(folder: Path, streams: int) -> int:
    """Return the position of the last saved state."""
    state = json.loads((folder / "state.json").read_text())
    return int(state[str(streams)]["sampler"]["position"])


def steps(folder: Path, ranks: int) -> int:
    path = folder / f"{ranks}-1-0.txt"
    return len(path.read_text().split("\n")) - 1 if path.exists() else 0


def expect(folder: Path, runs: list[tuple[int, dict[int, int], dict[int, int]]]) -> None:
    """The runs, up to where the next one began, are the stream of one process."""
    for streams, dataset in open_all().items():
        with dataset:
            last = runs[-1][2][streams]
            stream = {batch.number: digest(batch) for batch in islice(dataset, last)}
        found: list[tuple[int, str]] = []
        for ranks, start, stop in runs:
            parts = delivered(folder, ranks, streams)
            found += [(n, parts[n]) for n in range(start[streams], stop[streams])]
            assert start[streams] == 0 or in_the_middle(start[streams], streams)
        assert found == list(stream.items())


@pytest.mark.parametrize("sizes", [(2, 3), pytest.param((4, 2, 3), marks=pytest.mark.long)])
def test_ranks_that_change_in_number_deliver_every_batch_once_in_order(
    sizes: tuple[int, ...], tmp_path: Path
) -> None:
    runs = []
    start = dict.fromkeys(STREAMS, 0)
    for ranks in sizes:
        process = torchrun(RANKS, tmp_path, ranks)
        try:
            wait_for(lambda n=ranks: steps(tmp_path, n) >= 6, lambda p=process: p.poll() is None)
        finally:
            kill(process)
        stop = {streams: position(tmp_path, streams) for streams in STREAMS}
        assert all(stop[streams] > start[streams] for streams in STREAMS)
        runs.append((ranks, start, stop))
        start = stop
    assert torchrun(RANKS, tmp_path, 1, steps=5).wait(240) == 0
    runs.append((1, start, {streams: start[streams] + 5 for streams in STREAMS}))
    expect(tmp_path, runs)


def test_finite_data_gives_every_rank_the_same_number_and_lets_none_wait(tmp_path: Path) -> None:
    assert torchrun(RANKS, tmp_path, 2, finite=True).wait(240) == 0
    first, second = (json.loads((tmp_path / f"finite-{rank}.json").read_text()) for rank in (0, 1))
    with SynthPixDataset(base(**few, **FINITE)) as dataset:
        total = sum(1 for _ in dataset)
    assert len(first) == len(second) == total // 2
    assert sorted(first + second) == list(range(total - total % 2))


def test_a_job_that_torchrun_starts_again_goes_on_from_the_last_state(tmp_path: Path) -> None:
    process = torchrun(RANKS, tmp_path, 2, "--max-restarts=1", steps=7, fail_at=4)
    assert process.wait(240) == 0
    # The first four steps were lost only as far as they came after the last state.
    for streams, dataset in open_all().items():
        found = delivered(tmp_path, 2, streams)
        assert sorted(found) == list(range(len(found)))
        assert len(found) > 2 * 7
        with dataset:
            assert all(
                digest(batch) == found[batch.number] for batch in islice(dataset, len(found))
            )


@pytest.mark.long
def test_a_training_under_ddp_goes_on_with_the_same_losses_and_weights(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert torchrun("ddp", whole, 2, steps=60, save_every=1000).wait(240) == 0
    cut = tmp_path / "cut"
    process = torchrun("ddp", cut, 2, save_every=4, steps=10**6)
    try:
        wait_for(lambda: len(journal(cut)) >= 10, lambda: process.poll() is None)
    finally:
        kill(process)
    count = len(journal(cut))
    assert count < 55
    assert torchrun("ddp", cut, 2, save_every=4, steps=count + 4, resume=True).wait(240) == 0
    for rank in (0, 1):
        latest = {line.step: line for line in journal(cut, rank)}
        assert [latest[step] for step in sorted(latest)] == journal(whole, rank)[: count + 4]


@pytest.mark.parametrize(
    "asks", [len, lambda dataset: next(iter(dataset)), lambda dataset: dataset.rank]
)
def test_processes_without_a_process_group_are_refused(
    asks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with (
        SynthPixDataset(base(**FINITE)) as dataset,
        pytest.raises(RuntimeError, match=r"WORLD_SIZE=4 .*init_process_group"),
    ):
        asks(dataset)


@pytest.mark.parametrize(
    ("launcher", "given"),
    [
        ("srun", {"SLURM_NTASKS": "4"}),
        ("srun within a job", {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "4"}),
        ("mpirun", {"OMPI_COMM_WORLD_SIZE": "4"}),
        ("mpirun within SLURM", {"OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "1"}),
        ("mpiexec", {"PMI_SIZE": "4"}),
        ("flux", {"FLUX_JOB_SIZE": "4"}),
    ],
)
def test_processes_of_every_launcher_are_refused_without_a_process_group(
    launcher: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=r"=4 says that there are several .*init_process_group"):
        next(iter(CountingDataset()))


def test_processes_of_jax_are_refused_without_a_process_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"jax.process_count\(\)=2 .*init_process_group"):
        next(iter(CountingDataset()))


@pytest.mark.parametrize(
    "given",
    [
        {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "8", "WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "", "PMI_SIZE": "1"},
    ],
)
def test_a_single_process_of_a_job_is_rank_0_of_1(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    dataset = CountingDataset()
    assert (dataset.rank, dataset.world_size) == (0, 1)


def test_the_length_of_endless_data_needs_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert len(CountingDataset(epoch_length=8)) == 8


@pytest.mark.long
def test_processes_of_jax_make_the_batches_of_their_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, jax\n"
        "rank = int(sys.argv[1])\n"
        "jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=rank)\n"
        "from kinds import base\n"
        "from oracle import digest\n"
        "from synthpix_torch import SynthPixDataset\n"
        "for renderer in ('particles', 'synthpix'):\n"
        "    ranks = {'rank': rank, 'world_size': jax.process_count()}\n"
        "    with SynthPixDataset(base(), renderer=renderer, **ranks) as dataset:\n"
        "        batches = iter(dataset)\n"
        "        print(*(digest(next(batches)) for _ in range(3)))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    path = os.pathsep.join([str(RANKS.parent), str(RANKS.parent.parent)])
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), address],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=240)[0].split() for process in processes]
    expected = []
    for renderer in ("particles", "synthpix"):
        with SynthPixDataset(base(), renderer=renderer) as dataset:
            expected.append([digest(batch) for batch in islice(dataset, 6)])
    for rank in range(2):
        assert found[rank] == [*expected[0][rank::2], *expected[1][rank::2]]


def test_ranks_given_by_hand_need_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with SynthPixDataset(base(), rank=1, world_size=2) as dataset:
        assert [batch.number for batch in islice(dataset, 3)] == [1, 3, 5]
