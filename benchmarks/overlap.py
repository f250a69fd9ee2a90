"""Measure how much reading, transfer and rendering overlap: python -m benchmarks.overlap.

With one batch per flow batch, each of the three is measured alone and compared with the dataset,
which does all of them, interleaved. On a CPU the cores that read also render, so files in the page
cache cannot be read while all cores render. "Slow disk" waits for each record without using the
processor, as a disk does; this can overlap on any machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, interleaved, spread, table, write
from synthpix_torch import SynthPixDataset

SIZE = 128
BATCH = 8
THREADS = 2
BATCHES = 12
ROUNDS = 12
RECORDS = 1024
SLOW = (1, 4, 12)


class SlowDisk:
    """Return flow fields from memory after a delay, as a slow disk does."""

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
    """Measure reading a flow batch, in seconds."""

    def once() -> float:
        with _closing(dataset.stream.flows.read(lambda index: index)) as reader:
            next(reader)
            return _mean_seconds(lambda: next(reader))

    return once


def transfer(dataset: SynthPixDataset) -> Callable[[], float]:
    """Measure transferring a flow batch and adapting it to the image grid, in seconds."""
    renderer, flow_batch = dataset.stream.renderer, _first(dataset)
    return lambda: _mean_seconds(lambda: jax.block_until_ready(renderer.load(flow_batch)))


def rendering(dataset: SynthPixDataset) -> Callable[[], float]:
    """Measure rendering a batch from a flow batch on the device, in seconds."""
    renderer = dataset.stream.renderer
    loaded = renderer.load(_first(dataset))

    def render() -> None:
        jax.block_until_ready(renderer.render(loaded, repetition=0, last_step=False))

    return lambda: _mean_seconds(render)


def everything(dataset: SynthPixDataset) -> Callable[[], float]:
    """Measure a batch of the dataset in the middle of a pass, in seconds."""

    def once() -> float:
        with dataset:
            batches = iter(dataset)
            # Skip the beginning of the pass, where nothing is prefetched yet.
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


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
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
        f"{THREADS} reading threads; median and quartiles of {ROUNDS} rounds of {BATCHES} batches."
    )
    write("overlap", "Overlap of reading, transfer and rendering", body, folder=options.output)


if __name__ == "__main__":
    main()
