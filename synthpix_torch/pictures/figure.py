"""A figure of a batch: image pairs, flow fields, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from synthpix_torch.extra import required_by
from synthpix_torch.pictures.colours import colour_flow_field, colour_wheel
from synthpix_torch.pictures.views import Pair, largest_displacement, white_level

_MATPLOTLIB: Final = ("matplotlib", "matplotlib.figure")
with required_by("Pictures need matplotlib", *_MATPLOTLIB, extra="pictures"):
    from matplotlib.figure import Figure

DETAIL: Final = 64
"""Height and width in pixels of the detail that shows both images."""

ARROWS: Final = 12
"""Arrows along the longer side of a flow field."""

TITLES: Final = ("first image", "second image", "first red, second cyan", "flow field")


def draw_pairs(pairs: Sequence[Pair], *, shown: int, title: str, unit: str) -> Figure:
    """Draw some pairs in rows, and histograms of all pairs below.

    Args:
        pairs: Pairs of one shape.
        shown: Rows at most.
        title: Title of the figure.
        unit: Unit of the flow fields.

    Returns:
        A figure to save with `savefig`; it belongs to no window.
    """
    rows = pairs[:shown]
    white, largest = white_level(rows), largest_displacement(rows)
    figure = Figure(figsize=(12, 3.1 * (len(rows) + 1)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(rows) + 1, len(TITLES), squeeze=False)
    for row, pair in zip(axes, rows, strict=False):
        for axis, image in zip(row, pair.images, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
        draw_both(row[2], pair, white=white)
        draw_flow_field(row[3], pair, largest=largest)
    for axis, name in zip(axes[0], TITLES, strict=True):
        axis.set_title(name)
    axes[0, 0].set_title(f"{TITLES[0]} (white: {white:.0f})")
    _draw_grey_levels(axes[-1, 0], pairs)
    _draw_displacements(axes[-1, 1], pairs, unit)
    _draw_joint(axes[-1, 2], pairs, unit)
    draw_wheel(axes[-1, 3], largest=largest, unit=unit)
    return figure


def draw_both(axis: Any, pair: Pair, *, white: float) -> None:
    """Draw the centre of both images in one: red where only the first is bright, else cyan."""
    height, width = pair.images.shape[1:]
    top, left = max(0, (height - DETAIL) // 2), max(0, (width - DETAIL) // 2)
    first, second = pair.images[:, top : top + DETAIL, left : left + DETAIL] / white
    extent = (left - 0.5, left + first.shape[1] - 0.5, top + first.shape[0] - 0.5, top - 0.5)
    both = np.clip(np.dstack([first, second, second]), 0, 1)
    axis.imshow(both, interpolation="nearest", extent=extent)


def draw_flow_field(axis: Any, pair: Pair, *, largest: float) -> None:
    """Draw a flow field as colours with arrows, on the pixels of the image."""
    (height, width), (rows, columns) = pair.images.shape[1:], pair.valid.shape
    step_y, step_x = height / rows, width / columns
    colours = colour_flow_field(pair.flow_field, largest=largest, valid=pair.valid)
    extent = (-step_x / 2, width - step_x / 2, height - step_y / 2, -step_y / 2)
    axis.imshow(colours, interpolation="nearest", extent=extent)
    every = max(1, round(max(rows, columns) / ARROWS))
    at = (slice(every // 2, None, every),) * 2
    y, x = np.mgrid[:rows, :columns]
    y, x, valid = y[at] * step_y, x[at] * step_x, pair.valid[at]
    right, down = pair.flow_field[0][at], pair.flow_field[1][at]
    # Not to scale: the longest arrow fills the distance to the next.
    scale = (largest or 1.0) / (every * min(step_y, step_x))
    axis.quiver(
        *(part[valid] for part in (x, y, right, down)),
        angles="xy",
        scale_units="xy",
        scale=scale,
        width=0.006,
    )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_wheel(axis: Any, *, largest: float, unit: str) -> None:
    """Draw the colours of all directions up to the length `largest`."""
    axis.imshow(colour_wheel(256), extent=(-1, 1, 1, -1))
    axis.set(xlim=(-1.6, 1.6), ylim=(1.3, -1.3), title=f"rim: {largest:.3g} {unit}")
    axis.set_axis_off()
    for x, y, name in ((1.3, 0, "right"), (-1.3, 0, "left"), (0, 1.15, "down"), (0, -1.15, "up")):
        axis.text(x, y, name, ha="center", va="center")


def _draw_grey_levels(axis: Any, pairs: Sequence[Pair]) -> None:
    levels = np.stack([pair.images for pair in pairs])
    highest = float(levels.max())
    # Scaled grey levels end at 1.
    highest = 1.0 if highest <= 1 else max(255.0, highest)
    for image, name in enumerate(("first", "second")):
        axis.hist(
            levels[:, image].ravel(),
            bins=128,
            range=(0, highest),
            histtype="step",
            log=True,
            label=name,
        )
    axis.set(title="grey levels", xlabel="grey level", ylabel="pixels")
    axis.legend()


def _draw_displacements(axis: Any, pairs: Sequence[Pair], unit: str) -> None:
    right, down = _vectors(pairs)
    for values, name in ((right, "right"), (down, "down"), (np.hypot(right, down), "length")):
        axis.hist(values, bins=64, histtype="step", label=name)
    axis.set(title="flow fields", xlabel=unit, ylabel="vectors")
    axis.legend()


def _draw_joint(axis: Any, pairs: Sequence[Pair], unit: str) -> None:
    right, down = _vectors(pairs)
    axis.hist2d(right, down, bins=64, norm="log")
    axis.set(title="flow fields", xlabel=f"right, {unit}", ylabel=f"down, {unit}")
    axis.invert_yaxis()


def _vectors(pairs: Sequence[Pair]) -> np.ndarray:
    return np.concatenate([pair.flow_field[:, pair.valid] for pair in pairs], axis=1)
