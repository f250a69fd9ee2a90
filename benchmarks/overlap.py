"""Whether reading, transfer and rendering overlap: python -m benchmarks.overlap.

One batch per flow batch. Each of the three is measured alone, and then the dataset, which does all
of them; they take turns. Here the device is the same two cores that read, so that files in the
page cache cannot be read while both cores render: "slow disk" has each record wait as a disk does,
without using the processor, which is what can overlap on any machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.pipelines import kinematic
from benchmarks.report import interleaved, spread, table, write
from synthpix_torch import SynthPixDataset

SIZE = 128
BATCH = 8
THREADS = 2
BATCHES = 12
ROUNDS = 12
RECORDS = 1024
SLOW = (1, 4, 12)


class SlowDisk:
    """Flow fields in memory, each of which takes its time as if it came from a disk."""

    fingerprint = "benchmark"

    def __init__(self, fields: np.ndarray, milliseconds: float) -> None:
        self._fields = fields
        self._seconds = milliseconds / 1000

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(self._seconds)
        field: np.ndarray = self._fields[index]
        return field


def reading(dataset: SynthPixDataset) -> Callable[[], float]:
    """Seconds for a flow batch that is read and thrown away."""

    def once() -> float:
        with _closing(dataset.stream.flows.read(lambda index: index)) as reader:
            next(reader)
            return _mean_seconds(lambda: next(reader))

    return once


def transfer(dataset: SynthPixDataset) -> Callable[[], float]:
    """Seconds for a flow batch that goes to the device and is adapted to the grid there."""
    renderer, flow_batch = dataset.stream.renderer, _first(dataset)
    return lambda: _mean_seconds(lambda: jax.block_until_ready(renderer.load(flow_batch)))


def rendering(dataset: SynthPixDataset) -> Callable[[], float]:
    """Seconds for a batch from a flow batch on the device."""
    renderer = dataset.stream.renderer
    loaded = renderer.load(_first(dataset))

    def render() -> None:
        jax.block_until_ready(renderer.render(loaded, repetition=0, last_step=False))

    return lambda: _mean_seconds(render)


def everything(dataset: SynthPixDataset) -> Callable[[], float]:
    """Seconds for a batch of the dataset, in the middle of a pass."""

    def once() -> float:
        with dataset:
            batches = iter(dataset)
            # Past the beginning, where nothing has been read ahead.
            for _ in range(4):
                next(batches)
            return _mean_seconds(lambda: next(batches))

    return once


def _mean_seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(BATCHES):
        work()
    return (time.perf_counter() - begin) / BATCHES


def _first(dataset: SynthPixDataset) -> Any:
    with _closing(dataset.stream.flows.read(lambda index: index)) as reader:
        return next(reader)


@contextmanager
def _closing(reader: Any) -> Iterator[Any]:
    try:
        yield reader
    finally:
        reader.close()


def datasets(folder: Path) -> dict[str, SynthPixDataset]:
    margin = 16
    shape = (SIZE + 2 * margin, SIZE + 2 * margin, 2)
    fields = np.random.default_rng(0).uniform(-4, 4, (RECORDS, *shape)).astype(np.float32)
    for number, field in enumerate(fields):
        np.save(folder / f"flow_{number}.npy", field)
    own = kinematic(SIZE, batch_size=BATCH, num_threads=THREADS)
    files = own | {"scheduler_class": ".npy", "file_list": [str(folder)]}
    found = {"files in the page cache": SynthPixDataset(files)}
    for milliseconds in SLOW:
        name = f"slow disk, {milliseconds} ms a record"
        config = {key: value for key, value in own.items() if key != "scheduler_class"}
        found[name] = SynthPixDataset(config, source=SlowDisk(fields, milliseconds))
    return found


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in datasets(Path(folder)).items():
            contestants = {
                "reading": reading(dataset),
                "transfer": transfer(dataset),
                "rendering": rendering(dataset),
                "dataset": everything(dataset),
            }
            measured = interleaved(contestants, rounds=ROUNDS)
            *alone, together = (sorted(seconds)[len(seconds) // 2] for seconds in measured.values())
            rows.append(
                [
                    name,
                    *(spread(seconds) for seconds in measured.values()),
                    f"{together / max(alone):.2f}",
                    f"{together / sum(alone):.2f}",
                ]
            )
    head = ["what", "reading alone", "transfer alone", "rendering alone", "dataset"]
    body = table([*head, "of the slowest", "of the sum"], rows)
    body += f"\n\nMilliseconds per batch of {BATCH} pairs of {SIZE} px, one batch per flow batch, "
    body += (
        f"{THREADS} threads that read; median and quartiles of {ROUNDS} turns of {BATCHES} batches."
    )
    write("overlap", "Overlap of reading, transfer and rendering", body)


if __name__ == "__main__":
    main()
