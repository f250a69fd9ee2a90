"""Run the training examples in their own processes, and kill them."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

EXAMPLES = Path(__file__).parent.parent / "examples"

# Imports take most of a script's time, so the fork server does them once.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "jax",
        "torch",
        "grain.python",
        "orbax.checkpoint",
        "lightning.pytorch",
        "torchdata.stateful_dataloader",
        "accelerate",
        "transformers",
        "synthpix_torch",
        "torch._dynamo",
    ]
)


class Line(NamedTuple):
    """A line of the journal: the batch of a training step, its loss and the weights after it."""

    step: int
    number: int
    bits: str
    loss: str
    weights: str


def journal(folder: Path, rank: int = 0) -> list[Line]:
    """Return the complete lines that a run has written so far."""
    path = folder / f"journal-{rank}.txt"
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")
    return [
        Line(int(step), int(number), *rest)
        for step, number, *rest in (line.split(" ") for line in lines)
    ]


def _main(script: str, arguments: list[str]) -> None:
    output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, 1)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(EXAMPLES))
    runpy.run_path(script, run_name="__main__")


@contextmanager
def running(trainer: str, folder: Path, **options: Any) -> Iterator[Any]:
    """Start an example; kill it at the end if it still runs."""
    arguments = [f"--folder={folder}"]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        arguments.append(option if value is True else f"{option}={value}")
    script = str(EXAMPLES / f"train_{trainer}.py")
    process = _SERVER.Process(target=_main, args=(script, arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run(trainer: str, folder: Path, **options: Any) -> list[Line]:
    """Run an example to its end."""
    with running(trainer, folder, **options) as process:
        process.join(240)
        assert process.exitcode == 0, f"{trainer} ended with {process.exitcode}"
    return journal(folder)


def run_and_kill(trainer: str, folder: Path, *, after: int, **options: Any) -> list[Line]:
    """Run an example and kill it with SIGKILL after `after` steps."""
    with running(trainer, folder, steps=10**6, **options) as process:
        wait_for(lambda: len(journal(folder)) >= after, process.is_alive)
    return journal(folder)


def wait_for(done: Any, alive: Any, seconds: float = 240) -> None:
    """Wait until `done()` is true; fail if the process ends before."""
    deadline = time.monotonic() + seconds
    while not done():
        assert alive(), "the process ended too early"
        assert time.monotonic() < deadline, "the process takes too long"
        time.sleep(0.01)


def torchrun(
    trainer: str | Path, folder: Path, ranks: int, *flags: str, **options: Any
) -> subprocess.Popen[bytes]:
    """Start an example on several processes."""
    script = trainer if isinstance(trainer, Path) else EXAMPLES / f"train_{trainer}.py"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", *flags),
        *(f"--nproc-per-node={ranks}", str(script), f"--folder={folder}"),
    ]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is not False:
            command.append(option if value is True else f"{option}={value}")
    # Without it restarted workers may read addresses of dead ones: torch 2.13 keeps its store over
    # restarts.
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, **own_store, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment)


def suspend(process: subprocess.Popen[bytes], *, rank: int) -> None:
    """Suspend one rank; the others then wait for it."""
    for one in psutil.Process(process.pid).children(recursive=True):
        if one.environ().get("RANK") == str(rank):
            one.suspend()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill torchrun and all of its processes, which run in their own sessions."""
    parent = psutil.Process(process.pid)
    for one in (parent, *parent.children(recursive=True)):
        one.kill()
    process.wait()
