"""Folders of checkpoints that somebody else has prepared, and a fuzzer of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kinds import base, few

from synthpix_torch import Checkpointer, CheckpointError, RandomState, SynthPixDataset
from synthpix_torch.checkpoint.seal import CHECKSUMS, seal
from synthpix_torch.cli import main

METADATA = "_CHECKPOINT_METADATA"


def reseal(step: Path) -> None:
    """Write right checksums of whatever a step holds now."""
    (step / CHECKSUMS).unlink(missing_ok=True)
    seal(step)


def change_metadata(step: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest of a step, and seal it again."""
    metadata = json.loads((step / METADATA).read_bytes())
    change(metadata["custom_metadata"]["synthpix_torch"])
    (step / METADATA).write_text(json.dumps(metadata))
    reseal(step)


def snapshot(folder: Path) -> dict[str, Any]:
    """The names, inodes and contents of all files below a folder."""
    return {
        str(path): (path.lstat().st_ino, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


class Targets:
    """The objects that a program registers, loads and lists."""

    def __init__(self) -> None:
        self.dataset = SynthPixDataset(base(**few))
        self.model = torch.nn.Linear(3, 3)
        self.optimizer = torch.optim.SGD(self.model.parameters(), momentum=0.9)

    def register(self, checkpoints: Checkpointer) -> None:
        checkpoints.register(
            data=self.dataset, model=self.model, optimizer=self.optimizer, rng=RandomState()
        )

    def write(self, folder: Path) -> None:
        """Write steps 1 to 3; 2 is decided on, and replaces 3."""
        with Checkpointer(folder) as checkpoints:
            self.register(checkpoints)
            for step in (1, 2, 3):
                self.dataset.seek(step)
                checkpoints.save(step, metrics={"epe": 1 / step})
        work = folder / ".synthpix_torch"
        (work / "decided").mkdir()
        shutil.move(folder / "2", work / "decided" / "2")
        (work / "decided" / "replaced").write_text("3")


# The fuzzer --------------------------------------------------------------------------------------


def fuzz(folder: Path, rounds: int, seed: int) -> dict[str, int]:
    """Spoil folders at random, use them, and count the results."""
    rng = random.Random(seed)
    targets = Targets()
    targets.write(folder / "template")
    outside = folder / "outside"
    targets.write(outside)
    (outside / "file").write_text("precious")
    before = snapshot(outside)
    counts: dict[str, int] = {}
    for turn in range(rounds):
        run = folder / "run"
        shutil.copytree(folder / "template", run)
        done = [_spoil(run, outside, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        for use in (_inspect, _read, _restore, _build, _save):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    result = use(run, targets)
            except Exception as error:
                error.add_note(f"turn {turn} of seed {seed}: {use.__name__} after {done}")
                raise
            counts[result] = counts.get(result, 0) + 1
        if (after := snapshot(outside)) != before:
            raise AssertionError(f"turn {turn}, {done}: {set(after.items()) ^ set(before.items())}")
        shutil.rmtree(run)
    return counts


def _inspect(run: Path, _: Targets) -> str:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main(["inspect", str(run)])
            main(["inspect", str(run), "--json"])
        except SystemExit as ended:
            if ended.code != 2:
                raise AssertionError(errors.getvalue()) from None
    assert all(letter.isprintable() or letter == "\n" for letter in out.getvalue())
    return "inspected"


def _read(run: Path, targets: Targets) -> str:
    with Checkpointer(run, read_only=True, best="epe") as checkpoints:
        targets.register(checkpoints)
        results = {_outcome(partial(checkpoints.restore, best=best)) for best in (False, True)}
    return f"read only: {min(results)}"


def _restore(run: Path, targets: Targets) -> str:
    with Checkpointer(run) as checkpoints:
        targets.register(checkpoints)
        return f"restore: {_outcome(checkpoints.restore)}"


def _build(run: Path, _: Targets) -> str:
    def build() -> int:
        SynthPixDataset(base(**few), load_from=run)
        return SynthPixDataset.from_checkpoint(run).position

    return f"build: {_outcome(build)}"


def _save(run: Path, targets: Targets) -> str:
    def save() -> int:
        targets.dataset.seek(5)
        with Checkpointer(run, keep=1) as checkpoints:
            targets.register(checkpoints)
            checkpoints.save(2, overwrite=True)
            checkpoints.wait()
            return checkpoints.restore() or 0

    return f"save: {_outcome(save)}"


def _outcome(use: Callable[[], int | None]) -> str:
    try:
        found = use()
    except (CheckpointError, ValueError, FileNotFoundError) as error:
        return type(error).__name__
    except Exception as error:
        # An object's own error.
        if not any("could not be restored" in note for note in getattr(error, "__notes__", ())):
            raise
        return "does not fit"
    assert found in (None, 1, 2, 3, 5), found
    return "nothing" if found is None else "loaded"


def _spoil(run: Path, outside: Path, rng: random.Random) -> str:
    work = run / ".synthpix_torch"
    paths = [path for path in sorted(run.rglob("*")) if not path.is_symlink()]
    # Nothing is written through a hard link.
    files = [path for path in paths if path.is_file() and path.stat().st_nlink == 1]
    steps = [path.parent for path in files if path.name == CHECKSUMS]
    kind = rng.choice(("bytes", "node", "work", "json", "json", "json", "state", "rename"))
    path = rng.choice(paths)
    if kind == "bytes":
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 1, 9))):
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content[: rng.choice((len(content), len(content) // 2, 0))])
    elif kind == "node":
        _replace(path, rng, outside)
    elif kind == "work" and work.is_dir() and not work.is_symlink():
        path = work / rng.choice(("lock", "decided", "saving", "deleted", "quarantine", ""))
        _replace(path, rng, outside)
    elif kind == "rename":
        with contextlib.suppress(OSError):
            path.rename(path.with_name(rng.choice(("1", "7", "x\x1b[2J", "a" * 200, "\udcff"))))
    elif steps:
        step = rng.choice(steps)
        names = ("sampler/metadata", "grain/process_0-of-1.json", METADATA)
        path = step / (rng.choice(names) if kind == "json" else "rng/state.pt")
        if path not in files:
            return f"nothing at {path}"
        if kind == "state":
            # It may be spoiled already, in any way.
            with contextlib.suppress(Exception):
                torch.save(_mutate(torch.load(path), rng), path)
        else:
            with contextlib.suppress(ValueError):
                changed = _mutate(json.loads(path.read_bytes()), rng)
                path.write_text(json.dumps(changed, default=str))
        if step.is_dir() and not any(entry.is_fifo() for entry in step.rglob("*")):
            with contextlib.suppress(ValueError, OSError):
                reseal(step)
    return f"{kind} at {path}"


def _replace(path: Path, rng: random.Random, outside: Path) -> None:
    """Put something of another kind in the place of a file or folder."""
    target = outside / rng.choice(("file", "3", ".synthpix_torch/lock", ".synthpix_torch", "none"))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = rng.choice(("link", "link", "pipe", "folder", "file", "none", "hard link"))
    with contextlib.suppress(FileNotFoundError):
        if kind == "link":
            path.symlink_to(target)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            (path / "x").mkdir(parents=True)
        elif kind == "file":
            path.write_bytes(rng.choice((b"", b"[" * 100_000, b"\xff", b"{}", b"12\x1b[2J")))
        elif kind == "hard link":
            os.link(outside / "file", path)


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2, 1 << 31, 1 << 62, 1 << 200, 1e300, -1.5, float("nan"), "", "x", "\x1b[2J",
    "../../outside", [], {}, [[]], {"0": 1}, "9" * 30, torch.zeros(3),
)  # fmt: skip


def _mutate(value: Any, rng: random.Random) -> Any:
    """Change one value somewhere in a tree."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.1:
            changed[rng.choice(("x", "../x", "\x1b[2J", "data"))] = changed.pop(key)
        else:
            changed[key] = _mutate(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _mutate(value[place], rng), *value[place + 1 :]]
    if isinstance(value, torch.Tensor) and value.numel() and rng.random() < 0.7:
        changed_tensor = value.clone()
        changed_tensor[rng.randrange(min(len(value), 30))] = rng.choice((0, 1, 255, -1))
        return changed_tensor
    return rng.choice(ODD)
