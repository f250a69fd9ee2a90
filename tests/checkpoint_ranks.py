"""The work of each rank in the tests of checkpoints by several processes."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from crash import SERVER
from kinds import base, few
from oracle import digest

from synthpix_torch import Checkpointer, RandomState, SynthPixDataset
from synthpix_torch.checkpoint import step as steps


def run(case: Callable[[Path], Any], folder: Path, ranks: int) -> list[Any]:
    """Return the results of a function on several ranks."""
    meeting = folder.parent / f"meeting-{case.__name__}-{ranks}"
    connections, processes = [], []
    for rank in range(ranks):
        ours, theirs = SERVER.Pipe()
        arguments = (case, folder, rank, ranks, meeting, theirs)
        processes.append(SERVER.Process(target=_on_rank, args=arguments, daemon=True))
        processes[-1].start()
        theirs.close()
        connections.append(ours)
    try:
        return [connection.recv() for connection in connections]
    finally:
        for process in processes:
            process.join(20)
            process.kill()


def _on_rank(
    case: Callable[[Path], Any], folder: Path, rank: int, ranks: int, meeting: Path, say: Connection
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    say.send(case(folder))
    dist.barrier()
    dist.destroy_process_group()


class Fragile:
    """Cannot load its state on rank 1."""

    def state_dict(self) -> dict[str, Any]:
        return {"value": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if dist.get_rank() == 1:
            raise ValueError("it fell")


def _failure(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def saves(folder: Path) -> dict[str, Any]:
    """Two steps of a training on all ranks, saved, and what comes after them."""
    torch.manual_seed(dist.get_rank())
    dataset = SynthPixDataset(base(**few))
    model = torch.nn.Linear(2, 2)
    for parameter in model.parameters():
        dist.broadcast(parameter.data, 0)
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(data=dataset, model=model, rng=RandomState())
        checkpoints.restore()
        for step, _ in zip(range(1, 3), dataset, strict=False):
            checkpoints.save(step)
        after = _what_comes(dataset)
        checkpoints.wait()
    return {"pid": os.getpid(), "lock": (folder / ".synthpix_torch" / "lock").read_text(), **after}


def restores(folder: Path) -> dict[str, Any]:
    """Return the number after the newest step."""
    dataset, model = SynthPixDataset(base(**few)), torch.nn.Linear(2, 2)
    with Checkpointer(folder) as checkpoints, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checkpoints.register(data=dataset, model=model, rng=RandomState())
        assert checkpoints.restore() == 2
    return {"warnings": [str(warning.message) for warning in caught], **_what_comes(dataset)}


def _what_comes(dataset: SynthPixDataset) -> dict[str, Any]:
    batches = {batch.number: digest(batch) for batch in islice(dataset, 2)}
    return {"batches": batches, "draw": torch.rand(3).tolist()}


def disagrees(folder: Path) -> list[str]:
    """Saving what is not the same on all ranks."""
    rank = dist.get_rank()
    failures = []
    dataset = SynthPixDataset(base(**few))
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(data=dataset)
        dataset.seek(rank)
        failures.append(_failure(lambda: checkpoints.save(1)))
        dataset.seek(0)
        failures.append(_failure(lambda: checkpoints.save(1 + rank)))
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(**{f"data{rank}": dataset})
        failures.append(_failure(lambda: checkpoints.save(1)))
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(data=SynthPixDataset(base(seed=rank)))
        failures.append(_failure(lambda: checkpoints.save(1)))
    return failures


def falls(folder: Path) -> dict[str, Any]:
    """One rank cannot load, then rank 0 cannot write."""
    dataset = SynthPixDataset(base(**few))
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(data=dataset, fragile=Fragile())
        dataset.seek(4)
        checkpoints.save(1)
        dataset.seek(8)
        not_loaded = _failure(checkpoints.restore)
        position = dataset.position
        write = steps.write_step
        steps.write_step = _no_space  # type: ignore[assignment]
        checkpoints.save(2)
        not_written = _failure(lambda: checkpoints.save(3))
        steps.write_step = write
        checkpoints.save(3)
    return {"not loaded": not_loaded, "position": position, "not written": not_written}


def hears(folder: Path) -> dict[str, Any]:
    """Rank 0 cannot write; whoever waits hears of it, and a step that is not due does not ask."""
    heard: dict[str, Any] = {}
    steps.write_step = _no_space  # type: ignore[assignment]
    checkpoints = Checkpointer(folder, every=10)
    checkpoints.register(fragile=Fragile())
    checkpoints.save(10)
    time.sleep(0.3)
    heard["not due"] = _failure(lambda: checkpoints.save(11))
    heard["due"] = _failure(lambda: checkpoints.save(20))
    checkpoints.save(20)
    heard["wait"] = _failure(checkpoints.wait)
    checkpoints.save(20)

    def leave() -> None:
        with checkpoints:
            pass

    heard["leave"] = _failure(leave)
    return heard


class Gathers:
    """Works together with the other ranks for its state."""

    def state_dict(self) -> dict[str, Any]:
        dist.barrier()
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        dist.barrier()


class Failing(Gathers):
    """Fails on rank 1, before the others come to what follows."""

    def state_dict(self) -> dict[str, Any]:
        if dist.get_rank() == 1:
            raise ValueError("it fell")
        return {}


def gathers(folder: Path) -> list[str]:
    """One object fails, another one waits for all ranks."""
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(failing=Failing(), gathers=Gathers())
        failures = [_failure(lambda: checkpoints.save(1))]
    with Checkpointer(folder) as checkpoints:
        checkpoints.register(failing=Fragile(), gathers=Gathers())
        checkpoints.save(1)
        return [*failures, _failure(checkpoints.restore)]


def does_not_see(folder: Path) -> str:
    """Rank 1 looks elsewhere than rank 0; a block that saves nothing waits for nobody."""
    rank = dist.get_rank()
    if rank == 0:
        with Checkpointer(folder, read_only=True) as checkpoints:
            assert checkpoints.steps() == []
    with Checkpointer(folder / str(rank)) as checkpoints:
        checkpoints.register(fragile=Fragile())
        checkpoints.save(1)
        checkpoints.wait()
        return _failure(checkpoints.restore)


def _no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")
