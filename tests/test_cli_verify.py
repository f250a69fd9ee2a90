"""synthpix-torch verify: what it runs, what it compares, what it leaves behind."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from kinds import KINDS, base, few
from ruamel.yaml import YAML

from synthpix_torch import SynthPixDataset
from synthpix_torch.cli import main
from synthpix_torch.cli.digests import Digest, Task, perform
from synthpix_torch.cli.verify import compare
from synthpix_torch.cli.workers import Worker

BATCHES = 8


def write(path: Path, config: dict[str, Any]) -> Path:
    YAML().dump({k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}, path)
    return path


class Inside:
    """A worker that performs its task in this process, and is killed between two batches."""

    tamper: Callable[[Digest, str], Digest] = staticmethod(lambda digest, name: digest)

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._task = Task(*json.loads(command[-1]))._replace(wait=False)

    def lines(self) -> Iterator[str]:
        for digest in perform(self._task):
            yield json.dumps(self.tamper(digest, self.name))

    def kill(self) -> list[str]:
        return []

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("synthpix_torch.cli.verify.Worker", Inside)
    return monkeypatch


@pytest.fixture
def without_images(inside: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Positions and checkpoints are real, digests are not."""

    def deliver(dataset: SynthPixDataset, batches: int) -> Iterator[Digest]:
        for _ in range(batches):
            number = dataset.position + dataset.rank
            dataset.seek(dataset.position + dataset.world_size)
            yield Digest(number, {"images": f"{number}", "keys": f"{number}"})

    inside.setattr("synthpix_torch.cli.verify.deliver", deliver)
    inside.setattr("synthpix_torch.cli.digests.deliver", deliver)
    return inside


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("config") / "small.yaml", base(**few))


def verify(config: Path, *more: str) -> int:
    return main(["verify", str(config), "--batches", str(BATCHES), *more])


def test_a_killed_run_its_continuation_and_two_ranks_deliver_every_batch_again(
    config: Path, inside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(config, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exact"] is True
    assert found["skipped"] is None
    assert [run["delivered"] for run in found["runs"]] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [4, 6],
        [5, 7],
    ]


def test_a_bit_that_differs_is_named_and_ends_with_1(
    config: Path, without_images: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tamper(digest: Digest, name: str) -> Digest:
        changed = {**digest.fields, "keys": "0"}
        return digest._replace(fields=changed) if "rank 1" in name else digest

    without_images.setattr(Inside, "tamper", staticmethod(tamper))
    assert verify(config) == 1
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[-3:] for row in rows[-2:]] == [["2", "of", "2"], ["0", "of", "2"]]
    assert last.startswith("NOT EXACT: rank 1 of 2")
    assert last.endswith("2 batches differ, first batch 5 in keys.")


def test_ranks_that_cannot_share_episodes_are_left_out_with_the_reason(
    data: Path,
    tmp_path: Path,
    without_images: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write(tmp_path / "episodes.yaml", KINDS["episodes"](data))
    assert verify(config) == 0
    assert "Not run on 2 ranks: 2 ranks cannot share 1 streams" in capsys.readouterr().out
    assert verify(config, "--streams", "2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 4


def test_missing_batches_are_a_difference() -> None:
    reference = {number: Digest(number, {"images": str(number)}) for number in range(4)}
    complete = compare("a", range(4), list(reference.values()), reference)
    assert complete.exact
    assert not compare("a", range(4), list(reference.values())[1:], reference).exact
    swapped = compare("a", range(2), [Digest(0, {"images": "1"}), reference[1]], reference)
    assert swapped.differences == {0: ("images",)}
    assert compare("a", [9], [Digest(9, {"images": "9"})], reference).differences


# Processes ---------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


COUNT = "import itertools\nfor i in itertools.count(): print(i, flush=True)"


def test_a_killed_worker_returns_the_complete_lines_that_it_printed() -> None:
    with Worker("counter", python(COUNT)) as worker:
        lines = [*islice(worker.lines(), 3), *worker.kill()]
    assert [int(line) for line in lines] == list(range(len(lines)))


def test_a_failed_worker_gives_its_last_line_as_the_reason() -> None:
    with (
        Worker("counter", python("print(1); raise ValueError('too many')")) as worker,
        pytest.raises(ChildProcessError, match=r"The counter failed: ValueError: too many"),
    ):
        list(worker.lines())


def test_no_worker_outlives_the_command() -> None:
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    with suppress(KeyboardInterrupt), Worker("counter", python(code)) as worker:
        number = int(next(worker.lines()))
        # Ctrl-C in a terminal goes to all processes of the session.
        assert os.getsid(number) != os.getsid(0)
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["kinematic, few and repeated", "npy, repeated", "finite real"])
def test_processes_are_killed_and_resume_exactly(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    config = write(tmp_path / "kind.yaml", KINDS[kind](data))
    assert main(["verify", str(config), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [run["exact"] for run in found["runs"]] == [True] * 4
