"""`record`: write batches of a dataset into a folder, shard by shard."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from synthpix_torch.batch import Batch
from synthpix_torch.checks import check_integer
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.extra import import_extra
from synthpix_torch.files import write_atomically, write_pieces
from synthpix_torch.recording.batches import digest, to_tensors
from synthpix_torch.recording.manifest import (
    MANIFEST,
    PLAN,
    STORAGE,
    Manifest,
    Plan,
    RecordingError,
    Shard,
    done_path,
    read_json,
    read_manifest,
    read_plan,
    shard_path,
    write_json,
    write_manifest,
)
from synthpix_torch.tensor_files import pieces

# Also bounds the memory: as much waits for the thread that writes.
_SHARD_BYTES: Final = 64 * 2**20
_SHARD_DIGESTS: Final = 100


def record(
    dataset: SynthPixDataset,
    folder: str | os.PathLike[str],
    batches: range,
    *,
    data: bool = True,
    images: str = "given",
    shard_batches: int | None = None,
    progress: bool = False,
) -> Path:
    """Record batches of the stream, so that anyone can use the same pairs.

    The folder then holds shards of safetensors, which need no synthpix_torch to be read, and a
    manifest with the configuration, the versions and the checksums. Call it again with the same
    arguments after an interruption: complete shards are kept. All ranks of a dataset share the
    work; each writes its part of the shards, and the last to finish completes the recording. The
    position of the dataset does not change.

    Args:
        dataset: What to record; of the torch layout.
        folder: A new folder, or one with an unfinished recording of the same batches.
        batches: Numbers of the batches, such as `range(0, 100)`.
        data: False stores only the configuration and a digest of each batch (under 100 KiB for
            1,000 batches); `Recording` then makes the batches again and compares.
        images: "uint8" rounds grey levels to whole levels of 255 and "uint16" to 1/257 of one,
            "given" keeps their bits.
        shard_batches: Batches in a shard, by default as many as have about 64 MiB. Twice as much
            memory is used.
        progress: Show a progress bar if the standard error is a terminal.

    Returns:
        The folder.

    Raises:
        TypeError: `batches` is not a range.
        ValueError: The stream has no such batches, an argument is impossible, or the folder holds
            something else.
        RecordingError: The folder holds another recording, or a corrupt one.
        OSError: A shard could not be written; complete shards are kept.
        ImportError: safetensors or tqdm is missing: install the extra `recordings`.
    """
    folder = Path(folder)
    plan = _plan(dataset, batches, data, images, shard_batches)
    if (folder / MANIFEST).exists():
        _compare(folder, read_manifest(folder).plan, plan)
        return folder
    plan = _begin(folder, plan)
    shards = plan.shards
    mine = range(
        *(len(shards) * rank // dataset.world_size for rank in (dataset.rank, dataset.rank + 1))
    )
    missing = [index for index in mine if not done_path(folder, index).exists()]
    with (
        ThreadPoolExecutor(1, thread_name_prefix="synthpix_torch recording") as writer,
        closing(_make(dataset, shards, missing, progress=progress)) as batches_of_shards,
    ):
        tasks: deque[Future[Any]] = deque()
        most = _batches_of_a_shard(dataset)
        made: list[Future[_Made]] = []
        try:
            for index, batch in batches_of_shards:
                made.append(writer.submit(_prepare, batch, plan))
                tasks.append(made[-1])
                if len(made) == len(shards[index]):
                    tasks.append(writer.submit(_write_shard, folder, index, plan, made))
                    made = []
                while len(tasks) > most:
                    tasks.popleft().result()
            for task in tasks:
                task.result()
        except BaseException:
            writer.shutdown(wait=False, cancel_futures=True)
            raise
    _complete(folder, plan, dict(dataset.stream.description.made_with))
    return folder


def _plan(
    dataset: SynthPixDataset, batches: range, data: bool, images: str, shard_batches: int | None
) -> Plan:
    if not isinstance(batches, range):
        raise TypeError(f"batches must be a range, such as range(0, 100), not {batches!r}.")
    if batches.step != 1 or not batches:
        raise ValueError(f"batches must be a range with step 1 that is not empty, not {batches}.")
    if shard_batches is not None:
        check_integer("shard_batches", shard_batches, 1)
    if images not in STORAGE:
        raise ValueError(f"images must be one of {', '.join(STORAGE)}, not {images!r}.")
    dataset.stream.check_number(batches.start, last=1)
    dataset.stream.check_number(batches.stop, last=0)
    recipe = dataset.recipe
    if recipe["arguments"]["layout"] != "torch":
        raise ValueError("Only datasets of the torch layout are recorded: leave out layout.")
    if shard_batches is None:
        shard_batches = _batches_of_a_shard(dataset) if data else _SHARD_DIGESTS
    return Plan(
        data=data,
        images=images if data else "given",
        first=batches.start,
        stop=batches.stop,
        shard_batches=shard_batches,
        fingerprint=dataset.state_dict()["fingerprint"],
        recipe=recipe,
        units={
            "images": "0 to 1" if recipe["arguments"]["scale_images"] else "grey levels of 255",
            "flow_fields": dataset.stream.config.output_units or "pixels",
        },
    )


def _batches_of_a_shard(dataset: SynthPixDataset) -> int:
    """Return the number of batches that have about 64 MiB."""
    config = dataset.stream.config
    y, x = config.image_shape
    # Images and flow fields, both float32 in most data.
    return max(1, _SHARD_BYTES // (config.batch_size * 4 * 4 * y * x))


def _begin(folder: Path, plan: Plan) -> Plan:
    """Write the plan into a new folder, or return that of an unfinished recording."""
    if (folder / PLAN).exists():
        there = read_plan(folder)
        _compare(folder, there, plan)
        plan = there
    else:
        folder.mkdir(parents=True, exist_ok=True)
        # Other ranks may be writing the same plan.
        if any(not path.name.startswith(PLAN) for path in folder.iterdir()):
            raise ValueError(f"{folder} holds something else: choose a new folder.")
        write_json(folder / PLAN, plan._asdict())
    (folder / "shards").mkdir(exist_ok=True)
    return plan


def _compare(folder: Path, there: Plan, plan: Plan) -> None:
    # The recipe may name moved files; the fingerprint compares the data.
    for name in ("data", "images", "first", "stop", "fingerprint"):
        old, new = getattr(there, name), getattr(plan, name)
        if old != new:
            raise RecordingError(
                f"{folder} holds another recording, with {name} {old!r} instead of {new!r}: "
                "choose another folder, or delete this one."
            )


def _make(
    dataset: SynthPixDataset, shards: list[range], missing: list[int], *, progress: bool
) -> Generator[tuple[int, Batch]]:
    """Make the batches of the missing shards; consecutive shards are one run of the stream."""
    bar = _bar(sum(len(shards[index]) for index in missing), progress)
    run = None
    try:
        for index in missing:
            batches = shards[index]
            if run is None or run.number != batches.start:
                if run is not None:
                    run.close()
                stop = shards[missing[-1]].stop
                run = dataset.stream.run(batches.start, stop=stop, ahead=dataset.ahead)
            for _ in batches:
                yield index, next(run)
                if bar is not None:
                    bar.update()
    finally:
        if run is not None:
            run.close()
        if bar is not None:
            bar.close()


class _Made(NamedTuple):
    """The recorded content of a batch."""

    number: int
    pairs: int
    tensors: dict[str, torch.Tensor]
    digest: str


def _prepare(batch: Batch, plan: Plan) -> _Made:
    pairs = int(batch.mask.sum())
    if not plan.data:
        return _Made(batch.number, pairs, {}, digest(batch))
    scale = 1.0 if plan.recipe["arguments"]["scale_images"] else 255.0
    return _Made(batch.number, pairs, to_tensors(batch, images=plan.images, scale=scale), "")


def _write_shard(folder: Path, index: int, plan: Plan, futures: list[Future[_Made]]) -> None:
    made = [future.result() for future in futures]
    sha256: str | None = None
    digests: list[str] | None = None
    if plan.data:
        tensors = {name: [one.tensors[name] for one in made] for name in made[0].tensors}
        about = {"fingerprint": plan.fingerprint, "images": plan.images, "units": plan.units}
        content = pieces(tensors, {"synthpix_torch": json.dumps(about)})
        total = hashlib.sha256()
        write_atomically(
            shard_path(folder, index), lambda path: write_pieces(path, _hashed(content, total))
        )
        sha256 = total.hexdigest()
    else:
        digests = [one.digest for one in made]
    shard = Shard(made[0].number, [one.pairs for one in made], sha256, digests)
    write_json(done_path(folder, index), shard._asdict())


def _hashed(content: Iterable[memoryview], total: hashlib._Hash) -> Iterator[memoryview]:
    for piece in content:
        total.update(piece)
        yield piece


def _complete(folder: Path, plan: Plan, made_with: dict[str, str]) -> None:
    """Write the manifest if no rank has a shard left, and delete what it replaces."""
    done = [done_path(folder, index) for index in range(len(plan.shards))]
    if not all(path.exists() for path in done):
        return
    try:
        shards = [Shard(**read_json(path)) for path in done]
    except FileNotFoundError:
        # Another rank has just completed the recording.
        return
    write_manifest(folder, Manifest(plan, made_with, shards))
    for path in (*done, folder / PLAN, *folder.glob("shards/*.unfinished-*")):
        path.unlink(missing_ok=True)
    if not plan.data:
        with suppress(OSError):
            (folder / "shards").rmdir()


def _bar(total: int, progress: bool) -> Any:
    if not progress or not sys.stderr.isatty():
        return None
    return import_extra("tqdm").tqdm(total=total, unit=" batches")
