"""Accuracy of images and labels, ours and synthpix's: python -m benchmarks.physics.

The judges are those of tests/physics: analytic flows, tracking, registration and OpenPIV.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import command_line, table, write

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from physics import ideal, measures
from physics.flows import Linear
from physics.scenes import Scene
from physics.statistics import correlations

RENDERERS = {"particles": "ours", "synthpix": "synthpix"}
DIAMETERS = (0.8, 1.0, 1.25, 1.6, 2.0, 2.5)
STEPS = (0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0)
SIGMA = 8.0

Rows = list[list[str]]


def both(measure: Callable[[str], str]) -> list[str]:
    """Return the cells of one measure: ours, then synthpix's."""
    return [measure(renderer) for renderer in RENDERERS]


def geometry() -> Rows:
    """Compare labels and tracked particles with analytic linear flows."""
    rows = []
    for name, scene in measures.GEOMETRIES.items():

        def labels(renderer: str, scene: Scene = scene) -> str:
            return f"{measures.label_error(scene, renderer=renderer):.2g}"

        def tracked(renderer: str, scene: Scene = scene) -> str:
            found = measures.tracking_error(scene, renderer=renderer)
            return f"{found.median:.2g}, {found.worst:.2g}"

        rows.append([name, *both(labels), *both(tracked)])
    return rows


def light_rows() -> Rows:
    """Compare the light of single particles with the integral of their Gaussian."""

    def shares(diameter: float) -> Callable[[str], str]:
        def measure(renderer: str) -> str:
            found = measures.light((diameter,), renderer=renderer)[diameter]
            return f"{found.least:.3f} to {found.most:.3f}, mean {found.mean:.3f}"

        return measure

    return [[f"{diameter}", *both(shares(diameter))] for diameter in DIAMETERS]


def bias_rows(found: dict[str, dict[float, measures.Bias]]) -> Rows:
    """List the largest bias for each diameter."""

    def cell(bias: measures.Bias) -> str:
        return f"{abs(bias.mean).max():.4f} ± {bias.error.max():.4f}"

    return [
        [f"{diameter}", *(cell(found[name][diameter]) for name in (*RENDERERS, "ideal"))]
        for diameter in DIAMETERS
    ]


def biases() -> dict[str, dict[float, measures.Bias]]:
    """Register uniform shifts of both renderers and of an ideal camera."""
    found = {
        renderer: {
            diameter: measures.registration_bias(diameter, renderer=renderer, batches=2)
            for diameter in DIAMETERS
        }
        for renderer in RENDERERS
    }
    return found | {
        "ideal": {diameter: measures.ideal_bias(diameter, pairs=6) for diameter in DIAMETERS}
    }


def other_rows(flat: dict[str, measures.Flat], folder: Path) -> Rows:
    """Measure everything that has one figure."""

    def worst(name: str) -> list[str]:
        return [f"{getattr(flat[renderer].worst, name):.1%}" for renderer in RENDERERS]

    def at_the_border(renderer: str) -> str:
        found = measures.border_outliers(renderer=renderer)
        border, inside = found.rates
        return f"{border:.1%} against {inside:.1%}"

    def noise(renderer: str) -> str:
        pairs = measures.noise(renderer=renderer)
        return f"{abs(correlations(pairs.first, pairs.second)).max():.2f}"

    def seeds(step: int) -> Callable[[str], str]:
        return lambda renderer: f"{measures.seed_correlation(step, renderer=renderer):.2f}"

    def spread(renderer: str) -> str:
        found = measures.shapes((1.6, 3.0), renderer=renderer)
        return f"{found.along_x[0].std():.2f}, {found.along_y[0].std():.2f}"

    def changes(renderer: str) -> str:
        found = measures.shapes(
            (2.5, 2.5), renderer=renderer, diameter_var=0.01, intensity_var=25.0
        )
        return ", ".join(
            f"{(values[1] - values[0]).std():.3f}" for values in (found.along_x, found.peak)
        )

    def recorded(renderer: str) -> str:
        flow = Linear((1.0, 3.0))
        target = Path(tempfile.mkdtemp(dir=folder))
        shape = {"image_shape": (64, 96)}
        found = measures.recorded(target, flow, field_steps=4, renderer=renderer, **shape)
        return f"{abs(found.labels - (3.0, 1.0)).max():.2g}"

    def level(renderer: str) -> str:
        return f"{measures.matched_mean(folder, renderer=renderer):.1f}"

    return [
        ["mean image, worst row", *worst("rows")],
        ["mean image, worst column", *worst("columns")],
        ["mean image, worst corner of 4 x 4 px", *worst("corners")],
        ["mean level over density times light", *(f"{flat[r].level:.4f}" for r in RENDERERS)],
        ["OpenPIV's outliers in border windows against inside", *both(at_the_border)],
        ["largest correlation of images of seeds 0 and 1", *both(seeds(1))],
        ["the same for seeds 0 and batch_size", *both(seeds(8))],
        ["the same for different pairs of one stream", *both(_pair_correlation)],
        ["largest correlation of the noise of two images", *both(noise)],
        ["standard deviation of diameters in 1.6 to 3 px along x, y", *both(spread)],
        ["changes of diameter (0.1 px), peak (5 levels) configured", *both(changes)],
        ["mean after matching a histogram of mean 24.5", *both(level)],
        ["label of recorded images, V on a grid of 4 px: error in px", *both(recorded)],
    ]


def _pair_correlation(renderer: str) -> str:
    return f"{measures.pair_correlation(renderer=renderer):.2f}"


def kinematic_rows() -> Rows:
    """Compare kinematic flow fields of both with Gaussian noise that knows no border."""
    best = ideal.random_fields(SIGMA, fields=512, shape=(72, 72), peak=3.0, seed=0)
    found = [
        measures.homogeneity(measures.kinematic_fields(SIGMA, fields=512)),
        measures.homogeneity(measures.kinematic_fields(SIGMA, fields=512, renderer="synthpix")),
        measures.homogeneity(best[:, 4:-4, 4:-4]),
    ]
    return [
        ["rms at the border over the middle", *(f"{one.rms:.3f}" for one in found)],
        ["rms in corners over the middle", *(f"{one.corners:.3f}" for one in found)],
        ["peaks within 2 px of the border, over even", *(f"{one.edge:.2f}" for one in found)],
        [
            f"sigma of the filter from the correlation ({SIGMA:g} px)",
            *(f"{one.correlation_length:.2f}" for one in found),
        ],
    ]


def draw_means(flat: dict[str, measures.Flat], path: Path) -> None:
    """Draw the mean second image of a flow to the right and down, before and after."""
    plt = _pyplot()
    direction = measures.DIRECTIONS.index(Linear((4.0, 4.0)))
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
    for panel, renderer in zip(panels, reversed(RENDERERS), strict=True):
        mean = flat[renderer].means[direction, 1]
        shown = panel.imshow(mean, vmin=0.5, vmax=1.5, cmap="RdBu_r")
        panel.set_title(RENDERERS[renderer])
    figure.colorbar(shown, ax=panels, label="mean of second images over its level")
    figure.savefig(path, dpi=90)


def draw_bias(found: dict[str, dict[float, measures.Bias]], path: Path) -> None:
    """Draw the bias of the registration against the shift for three diameters."""
    plt = _pyplot()
    chosen = (0.8, 1.25, 2.0)
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    for panel, diameter in zip(panels, chosen, strict=True):
        for name, label in (RENDERERS | {"ideal": "ideal camera"}).items():
            bias = found[name][diameter]
            panel.errorbar(measures.SHIFTS, bias.mean, bias.error, label=label, capsize=2)
        panel.axhline(0, color="black", lw=0.5)
        panel.set_title(f"diameter {diameter} px")
        panel.set_xlabel("shift in px")
    panels[0].set_ylabel("bias in px")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=90)


def draw_steps(path: Path) -> None:
    """Draw errors of labels and of tracked particles against the grid step of the field."""
    plt = _pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(7.5, 2.8), layout="constrained", sharey=True)
    scenes = [measures.sheared(measures.grids((step, step), offset=(24.4, 26.7))) for step in STEPS]
    for renderer, label in RENDERERS.items():
        labels = [measures.label_error(scene, renderer=renderer) for scene in scenes]
        tracks = [measures.tracking_error(scene, renderer=renderer).worst for scene in scenes]
        for panel, errors in zip(panels, (labels, tracks), strict=True):
            panel.loglog(STEPS, np.maximum(errors, 1e-7), "o-", label=label)
    for panel, title in zip(panels, ("labels", "tracked particles"), strict=True):
        panel.set_title(title)
        panel.set_xlabel("grid step in px")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("largest error in px")
    panels[0].legend()
    figure.savefig(path, dpi=90)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, and write it with its pictures if a folder is given."""
    options = command_line(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        day = date.today().isoformat()
        pictures = {
            name: f"{day}-physics-{name}.png" for name in ("mean-image", "bias", "grid-step")
        }
        flat = {
            renderer: measures.mean_images(renderer=renderer, batches=64 if ours else 24)
            for renderer, ours in zip(RENDERERS, (True, False), strict=True)
        }
        draw_means(flat, folder / pictures["mean-image"])
        bias = biases()
        draw_bias(bias, folder / pictures["bias"])
        draw_steps(folder / pictures["grid-step"])
        names = list(RENDERERS.values())
        body = f"""## Labels and tracked particles in linear flows
Error in px: the largest of any label; median and largest of the tracked particles.

{table(["grid", *(f"labels, {n}" for n in names), *(f"tracks, {n}" for n in names)], geometry())}

![Error against grid step]({pictures["grid-step"]})

## Light of a particle over its integral
{table(["diameter in px", *names], light_rows())}

## Bias of a registration
Uniform shifts from 0 to 1 px; the largest bias of any shift and the largest standard error, in px.
The ideal camera integrates complete Gaussians over square pixels: its bias is that of the
registration.

{table(["diameter in px", *names, "ideal camera"], bias_rows(bias))}

![Bias against shift]({pictures["bias"]})

## Images, seeds and statistics
Mean images of uniform flows of 4 px in 8 directions, with bounds of ±4 px.

{table(["", *names], other_rows(flat, Path(temporary)))}

![Mean image]({pictures["mean-image"]})

## Kinematic flow fields
{table(["", *names, "ideal noise"], kinematic_rows())}
"""
        write("physics", "Accuracy of images and labels", body, folder=options.output)


if __name__ == "__main__":
    main()
