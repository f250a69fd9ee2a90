"""Measure recordings and collectors: python -m benchmarks.recording.

Recording takes turns with the stream itself, two batches of which are made concurrently as by
default, and with writing as many bytes to the disk. Random reads of pairs take turns with h5py and
with a folder of PNG images beside .npy flow fields; all files are in the page cache. A Collector on
disk takes turns with one in memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, interleaved, ratio, spread, table, write
from synthpix_torch import Recording, SynthPixDataset, record
from synthpix_torch.collecting import Collector

BATCHES = 48
ROUNDS = 7
READS = 200


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def recording_speed(folder: Path) -> str:
    """Compare `record` with the stream and with the disk."""
    dataset = SynthPixDataset(kinematic(256))
    size = 0

    def stream() -> None:
        run = dataset.stream.run(0, stop=BATCHES, ahead=dataset.ahead)
        for _ in range(BATCHES):
            images = next(run).images
        float(images[0, 0, 0, 0])
        run.close()

    def to_disk(content: bytes) -> None:
        with open(folder / "bytes", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def once(**options: object) -> float:
        nonlocal size
        target = folder / "recorded"
        seconds = timed(lambda: record(dataset, target, range(BATCHES), **options))  # type: ignore[arg-type]
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        shutil.rmtree(target)
        return seconds

    once()
    content = bytes(size)
    measured = interleaved(
        {
            "the stream alone": lambda: timed(stream),
            "the disk alone, as many bytes": lambda: timed(lambda: to_disk(content)),
            "record": once,
            "record, uint8": lambda: once(images="uint8"),
            "record without data": lambda: once(data=False),
        },
        rounds=ROUNDS,
    )
    pairs = BATCHES * dataset.stream.config.batch_size
    slowest = max(list(measured.values())[:2], key=lambda times: sorted(times)[len(times) // 2])
    rows = [
        [name, spread(times, unit=1), f"{pairs / float(np.median(times)):.0f}",
         f"{ratio(slowest, times):.2f}"]
        for name, times in measured.items()
    ]  # fmt: skip
    head = ["", "seconds", "pairs/s", "of the slower of stream and disk"]
    return f"{pairs} pairs of 256 px, {len(content) >> 20} MiB.\n\n{table(head, rows)}"


def random_reads(folder: Path) -> str:
    """Compare reading pairs in random order."""
    dataset = SynthPixDataset(kinematic(256))
    recording = Recording(record(dataset, folder / "recorded", range(BATCHES)))
    with h5py.File(folder / "pairs.h5", "w") as file:
        for name in ("images", "flow_fields"):
            shape = getattr(recording[0], name).shape
            file.create_dataset(name, (len(recording), *shape), "f4", chunks=(1, *shape))
        for index in range(len(recording)):
            file["images"][index] = recording[index].images
            file["flow_fields"][index] = recording[index].flow_fields
    for index in range(len(recording)):
        for which, image in enumerate(recording[index].images.numpy()):
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}-{which}.png")
        np.save(folder / f"{index}.npy", recording[index].flow_fields)
    stored = h5py.File(folder / "pairs.h5")
    rng = np.random.default_rng(0)
    chosen = [int(index) for index in rng.integers(0, len(recording), READS)]

    def from_png(index: int) -> tuple[np.ndarray, np.ndarray]:
        images = [np.asarray(Image.open(folder / f"{index}-{which}.png")) for which in (0, 1)]
        return np.stack(images).astype(np.float32), np.load(folder / f"{index}.npy")

    def read(one: Callable[[int], object]) -> Callable[[], float]:
        return lambda: timed(lambda: [one(index) for index in chosen])

    measured = interleaved(
        {
            "Recording": read(lambda index: recording[index]),
            "h5py, chunked by pair": read(
                lambda index: (stored["images"][index], stored["flow_fields"][index])
            ),
            "PNG and .npy": read(from_png),
        },
        rounds=ROUNDS,
    )
    rows = [
        [
            name,
            spread(np.divide(times, READS).tolist()),
            f"{ratio(times, measured['Recording']):.2f}",
        ]
        for name, times in measured.items()
    ]
    return table(["", "ms a pair", "times Recording"], rows)


def collecting(folder: Path) -> str:
    """Measure how long a training step waits for a collector that takes 1 MB."""
    tree = {"sample": torch.zeros(2**18)}
    disk, memory = Collector(folder / "rows"), Collector()

    def waits(collector: Collector) -> Callable[[], float]:
        def once() -> float:
            seconds = timed(lambda: collector.collect(tree))
            # What a training step computes meanwhile.
            time.sleep(0.02)
            return seconds

        return once

    measured = interleaved({"on disk": waits(disk), "in memory": waits(memory)}, rounds=200)
    rows = [[name, spread(times)] for name, times in measured.items()]
    return table(["Collector", "ms a step"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, and print or write the page."""
    options = command_line(__doc__).parse_args(arguments)
    parts = []
    for title, part in (
        ("Recording", recording_speed),
        ("Random reads, from the page cache", random_reads),
        ("Collecting 1 MB a step", collecting),
    ):
        with tempfile.TemporaryDirectory() as temporary:
            parts.append(f"## {title}\n{part(Path(temporary))}")
    write("recording", "Recordings and collectors", "\n\n".join(parts), folder=options.output)


if __name__ == "__main__":
    main()
