"""Draw how JAX renders while torch trains: python -m benchmarks.gpu_trace docs/overlap.png.

Prints the share of the rendering that overlaps with the training.
torch's profiler records the work of the whole process on the GPU: work on the CUDA stream that
torch trains on belongs to torch, all other work to JAX.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch

from benchmarks.pipelines import kinematic
from benchmarks.report import machine
from synthpix_torch import SynthPixDataset

mpl.use("Agg")
from matplotlib import pyplot as plt

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


class Piece(NamedTuple):
    """One interval of work on the device, in milliseconds."""

    begin: float
    end: float
    stream: int
    name: str


def training(size: int, batch_size: int) -> tuple[Callable[[], None], torch.device]:
    """Create a training step of a small network on new batches."""
    sizes = {"batch_size": batch_size, "flow_fields_per_batch": batch_size}
    dataset = SynthPixDataset(kinematic(size, **sizes, batches_per_flow_batch=100))
    batches = iter(dataset)
    widths = [2, 64, 128, 128, 2]
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(widths):
        layers += [torch.nn.Conv2d(before, after, 5, padding=2), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).to(dataset.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def step() -> None:
        batch = next(batches)
        with torch.profiler.record_function("step"):
            loss = (network(batch.images) - batch.flow_fields).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step, dataset.device


def recorded(step: Callable[[], None], *, steps: int) -> list[dict[str, Any]]:
    """Record the events of some steps in the format of Chrome's traces."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for _ in range(5):
        step()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return events


def pieces(events: Iterable[dict[str, Any]]) -> list[Piece]:
    """Return the work of the device in the order of time."""
    return sorted(
        Piece(
            event["ts"] / 1e3,
            (event["ts"] + event["dur"]) / 1e3,
            event["args"]["stream"],
            event["name"],
        )
        for event in events
        if event.get("cat") in ON_DEVICE
    )


def trained_on(work: Iterable[Piece]) -> int:
    """Find torch's CUDA stream: only torch runs the kernels of optimizer and autograd."""
    names = ("at::native", "cudnn", "cutlass")
    streams = [piece.stream for piece in work if any(name in piece.name for name in names)]
    return max(set(streams), key=streams.count)


def merged(work: Iterable[Piece]) -> list[tuple[float, float]]:
    """Return the intervals in which at least one piece runs."""
    times: list[tuple[float, float]] = []
    for piece in sorted(work):
        if times and piece.begin <= times[-1][1]:
            times[-1] = times[-1][0], max(times[-1][1], piece.end)
        else:
            times.append((piece.begin, piece.end))
    return times


def overlap(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """Return the length of the intersection."""
    return sum(max(0.0, min(one[1], two[1]) - max(one[0], two[0])) for one in a for two in b)


def draw(work: list[Piece], torchs: int, path: Path, *, title: str) -> None:
    """Draw one line for each CUDA stream, torch's first."""
    streams = sorted(
        {piece.stream for piece in work}, key=lambda stream: (stream != torchs, stream)
    )
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.4 * len(streams)), layout="constrained")
    start = work[0].begin
    for row, stream in enumerate(streams):
        bars = [(p.begin - start, p.end - p.begin) for p in work if p.stream == stream]
        axes.broken_barh(bars, (row - 0.35, 0.7), color="C0" if stream == torchs else "C1")
    names = [f"torch, stream {s}" if s == torchs else f"JAX, stream {s}" for s in streams]
    axes.set_yticks(range(len(streams)), names)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="the file to draw to")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args(arguments)
    step, device = training(given.size, given.batch_size)
    events = recorded(step, steps=given.steps)
    if device.type == "cpu":
        print(f"{len(events)} events; on a CPU there are no streams to draw.")
        return
    work = pieces(events)
    torchs = trained_on(work)
    training_time = merged(piece for piece in work if piece.stream == torchs)
    rendering = merged(piece for piece in work if piece.stream != torchs)
    total = sum(end - begin for begin, end in rendering)
    if not total:
        raise SystemExit("The profile has no work of JAX: nothing can be drawn.")
    share = overlap(training_time, rendering) / total
    title = f"{given.steps} steps, batch {given.batch_size}, {given.size} px; {machine()}"
    draw(work, torchs, given.picture, title=title)
    print(f"{title}\nJAX works for {total:.3g} ms, {share:.0%} of them while torch works.")


if __name__ == "__main__":
    main()
