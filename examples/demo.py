"""Train, kill, resume, and show that nothing was lost: python examples/demo.py.

There are two trainings: one on kinematic flow fields, one on a flow field measured in a real
experiment. Each runs once uninterrupted and once with a SIGKILL half way. Then the batches, losses
and weights of both runs are compared, and a picture shows what the network has learned.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import measured
import piv
import torch
from tqdm import tqdm

from synthpix_torch import SynthPixDataset

HERE = Path(__file__).parent


def train(name: str, folder: Path, *, steps: int, resume: bool = False, kill_at: int = 0) -> None:
    """Run examples/train_plain.py in its own process, with a progress bar.

    Raises:
        RuntimeError: The training failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [sys.executable, HERE / "train_plain.py"]
    command += ["--config", HERE / f"{name}.yaml", "--folder", folder, "--steps", str(steps)]
    command += ["--resume"] if resume else []
    process = subprocess.Popen(command)
    title = "resumed" if resume else "to be killed" if kill_at else "uninterrupted"
    try:
        pause = 0.1 if sys.stderr.isatty() else 10
        with tqdm(
            total=steps, desc=f"{name}, {title}", unit="step", ncols=80, mininterval=pause
        ) as bar:
            while process.poll() is None:
                bar.update(last_step(folder) - bar.n)
                if kill_at and bar.n >= kill_at:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return
                time.sleep(0.1)
            bar.update(last_step(folder) - bar.n)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise RuntimeError(f"The training of {name} failed with status {process.returncode}.")


def lines(folder: Path) -> list[list[str]]:
    """Read the complete lines of a journal: step, batch, its digest, loss, weights."""
    path = folder / "journal-0.txt"
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def last_step(folder: Path) -> int:
    """Return the last step of a training."""
    return int(lines(folder)[-1][0]) if lines(folder) else 0


def compare(uninterrupted: Path, killed: Path) -> tuple[int, int]:
    """Check that both trainings wrote the same journal.

    Returns:
        The number of steps and the number of steps that the killed training repeated.

    Raises:
        RuntimeError: The journals differ.
    """
    expected = {line[0]: line for line in lines(uninterrupted)}
    found = lines(killed)
    wrong = [line[0] for line in found if line != expected[line[0]]]
    if wrong or {line[0] for line in found} != expected.keys():
        raise RuntimeError(f"The trainings differ, first at step {wrong[0] if wrong else 'none'}.")
    return len(expected), len(found) - len(expected)


def draw(name: str, folder: Path, path: Path) -> None:
    """Draw three new pairs: images, true flow, predicted flow, end-point error."""
    net, _ = piv.model()
    net.load_state_dict(torch.load(folder / "last.pt", weights_only=True)["net"])
    with SynthPixDataset(HERE / f"{name}.yaml", scale_images=True) as dataset, torch.no_grad():
        batch = dataset.batch_at(1_000_000)
        found = net(batch.images)
    error = (found - batch.flow_fields).square().sum(1).sqrt()
    size = float(batch.flow_fields.square().sum(1).sqrt().max())
    figure, axes = plt.subplots(3, 5, figsize=(13, 8), layout="constrained")
    titles = ("first image", "second image", "true flow", "predicted flow", "end-point error")
    for row, slot in zip(axes, range(3), strict=True):
        row[0].imshow(batch.images1[slot, 0], cmap="gray")
        row[1].imshow(batch.images2[slot, 0], cmap="gray")
        for axis, flow in ((row[2], batch.flow_fields[slot]), (row[3], found[slot])):
            shown = axis.imshow(flow.square().sum(0).sqrt(), vmin=0, vmax=size)
            at = slice(4, None, 8)
            x, y = torch.meshgrid(*[torch.arange(64)[at]] * 2, indexing="xy")
            # Rows of images and channel 1 of the flow both point down.
            axis.quiver(x, y, flow[0, at, at], flow[1, at, at], color="w", angles="xy")
        wrong = row[4].imshow(error[slot], vmin=0, vmax=size, cmap="magma")
        figure.colorbar(shown, ax=row[3], label="px")
        figure.colorbar(wrong, ax=row[4], label="px")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    figure.suptitle(f"{name}: mean end-point error {error.mean():.2f} px")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Run both trainings and compare their runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps of each run")
    steps = parser.parse_args().steps
    output = Path("demo_output")
    measured.save(output / "measured" / "flow_fields")
    results = []
    for name in ("kinematic", "measured"):
        uninterrupted, killed = output / name / "uninterrupted", output / name / "killed"
        for folder in (uninterrupted, killed):
            for file in (folder / "journal-0.txt", folder / "last.pt"):
                file.unlink(missing_ok=True)
        train(name, uninterrupted, steps=steps)
        train(name, killed, steps=steps, kill_at=steps // 2)
        train(name, killed, steps=steps, resume=True)
        equal, repeated = compare(uninterrupted, killed)
        draw(name, killed, output / f"{name}.png")
        results.append(
            f"{name}: killed at step {steps // 2}, resumed, {repeated} steps repeated; batches, "
            f"losses and weights of all {equal} steps equal the uninterrupted run bit for bit."
        )
    print(*results, f"Pictures: {output / 'kinematic.png'}, {output / 'measured.png'}", sep="\n")


if __name__ == "__main__":
    main()
