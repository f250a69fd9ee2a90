"""Compare a trained network with OpenPIV on held-out pairs and on a real pair, with pictures.

    python examples/evaluate_piv.py runs/piv

Both are judged at the centres of OpenPIV's interrogation windows (32 and 16 pixels, three passes
with deformation, half overlapping), against the displacement of the particles of the first image.
"""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import openpiv
import torch
from matplotlib import pyplot as plt
from network import CorrelationNetwork
from openpiv import tools, windef
from openpiv.settings import PIVSettings
from train_piv import Module, training_images

from synthpix_torch import SynthPixDataset

SIZE = 128
HELD_OUT: dict[str, dict[str, Any]] = {
    "kinematic": {},
    "Lamb-Oseen vortex": {"scheduler_class": "lamb-oseen", "displacement_range": [1.0, 6.0]},
    "Rankine vortex": {"scheduler_class": "rankine", "displacement_range": [1.0, 6.0]},
}
# Everything but the varied quantity as in these pairs.
TYPICAL: dict[str, Any] = {"density": 0.05, "diameter": 2.5, "noise": 4.0, "max_displacement": 6.0}
SWEEPS: dict[str, tuple[str, list[float]]] = {
    "max_displacement": ("largest displacement in px", [1, 2, 4, 6, 8]),
    "density": ("particles per pixel", [0.01, 0.02, 0.05, 0.1]),
    "noise": ("noise in grey levels", [0, 4, 8, 16]),
}


@dataclass
class Errors:
    """End-point errors in pixels at the same points."""

    network: np.ndarray
    openpiv: np.ndarray


def main() -> None:
    """Print a table of errors and save the pictures in the folder of the training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of examples/train_piv.py")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of each kind")
    options = parser.parse_args()
    mpl.use("agg")
    net = Module.load_from_checkpoint(options.folder / "best.ckpt", map_location="cpu").net.eval()
    print(f"end-point error in px     {'network':>16}{'OpenPIV':>16}")
    print(f"{'':26}{'median':>8}{'mean':>8}{'median':>8}{'mean':>8}")
    for name, facts in HELD_OUT.items():
        _print(name, compare(net, options.pairs, **facts))
    sweeps = {}
    for fact, (label, values) in SWEEPS.items():
        sweeps[label] = {
            value: compare(net, options.pairs, **{**TYPICAL, fact: value}) for value in values
        }
        for value, errors in sweeps[label].items():
            _print(f"{value:g} {label}", errors)
    draw_sweeps(sweeps, options.folder / "errors.png")
    draw_real_pair(net, options.folder / "real_pair.png")
    print("pictures:", options.folder / "errors.png", options.folder / "real_pair.png")


def compare(net: CorrelationNetwork, pairs: int, **facts: Any) -> Errors:
    """Estimate the displacements of new pairs with both methods.

    Args:
        net: The trained network.
        pairs: Number of pairs.
        **facts: What differs from the training images.
    """
    config = training_images(image_shape=(SIZE, SIZE), batch_size=pairs, seed=2, **facts)
    batch = SynthPixDataset(config).batch_at(0)
    estimates = estimate(net, batch.images)
    found: list[list[np.ndarray]] = [[], []]
    for images, truth, ours in zip(
        batch.images.numpy(), batch.flow_fields.numpy(), estimates, strict=True
    ):
        rows, columns, theirs = openpiv_vectors(*images)
        expected = truth[:, rows[:, None], columns]
        for errors, vectors in zip(found, (ours[:, rows[:, None], columns], theirs), strict=True):
            errors.append(np.linalg.norm(vectors - expected, axis=0).ravel())
    return Errors(*map(np.concatenate, found))


def estimate(net: CorrelationNetwork, images: torch.Tensor) -> np.ndarray:
    """Estimate the displacements of pairs (n, 2, h, w) with the network: (n, 2, h, w) in pixels."""
    with torch.inference_mode():
        return np.concatenate([net(pair[None])[-1].numpy() for pair in images])


def openpiv_vectors(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Estimate the displacements of a pair (h, w) with OpenPIV.

    Returns:
        Rows and columns of the window centres, and the displacements (2, rows, columns) in pixels
        to the right and down.
    """
    settings = PIVSettings()
    settings.windowsizes, settings.overlap, settings.num_iterations = (32, 16, 16), (16, 8, 8), 3
    # As the label does, it tells the displacement of what the first image shows at a pixel.
    settings.deformation_method = "second image"
    with redirect_stdout(io.StringIO()):
        x, y, u, v, _ = windef.simple_multipass(first, second, settings)
    # OpenPIV's y axis points up.
    rows, columns = y[::-1, 0].astype(int), x[0].astype(int)
    return rows, columns, np.stack([u, -v]).astype(np.float32)


def draw_sweeps(sweeps: dict[str, dict[float, Errors]], path: Path) -> None:
    """Draw the median error of both methods against each varied quantity."""
    figure, axes = plt.subplots(1, len(sweeps), figsize=(10, 3), sharey=True, layout="constrained")
    for axis, (label, by_value) in zip(axes, sweeps.items(), strict=True):
        values = list(by_value)
        axis.plot(values, [np.median(e.network) for e in by_value.values()], "o-", label="network")
        axis.plot(values, [np.median(e.openpiv) for e in by_value.values()], "s--", label="OpenPIV")
        axis.set(xlabel=label, yscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("median end-point error in px")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_real_pair(net: CorrelationNetwork, path: Path) -> None:
    """Draw what both methods find in the experiment that OpenPIV contains."""
    folder = Path(openpiv.__file__).parent / "data" / "test1"
    pair = [tools.imread(folder / f"exp1_001_{which}.bmp").astype(np.float32) for which in "ab"]
    height, width = (length // 4 * 4 for length in pair[0].shape)
    images = np.stack([image[:height, :width] for image in pair])
    ours = estimate(net, torch.from_numpy(images)[None])[0]
    rows, columns, theirs = openpiv_vectors(*images)
    shown = {"network": ours[:, rows[:, None], columns], "OpenPIV": theirs}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (name, vectors) in zip(axes, shown.items(), strict=True):
        length = np.hypot(*vectors)
        drawn = axis.pcolormesh(columns, rows, length, vmin=3, vmax=7, shading="nearest")
        arrows = (vectors - np.median(vectors, axis=(1, 2))[:, None, None])[:, ::2, ::2]
        axis.quiver(columns[::2], rows[::2], *arrows, angles="xy", color="white")
        axis.set(title=name, xticks=[], yticks=[], aspect="equal")
        axis.invert_yaxis()
    figure.colorbar(drawn, ax=axes, label="displacement in px")
    difference = np.median(np.linalg.norm(shown["network"] - theirs, axis=0))
    figure.suptitle(f"experiment exp1_001: the methods differ by {difference:.2f} px in the median")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _print(name: str, errors: Errors) -> None:
    print(
        f"{name:26}{np.median(errors.network):8.3f}{errors.network.mean():8.3f}"
        f"{np.median(errors.openpiv):8.3f}{errors.openpiv.mean():8.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
