"""The figures of issue-sized claims about images and labels, each from scenes of its own.

Tests hold them against bounds, `benchmarks.physics` prints them.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from jaxtyping import Float

from synthpix_torch import SynthPixDataset

from . import ideal
from .flows import Grids, Linear, Pair
from .registration import Outliers, outliers, register
from .scenes import Pairs, Particles, Scene, collect, configuration, render
from .statistics import Flatness, correlations, flatness
from .tracking import cut, isolated, track

SHEAR = Linear(uniform=(1.3, -0.8), along_y=(0.02, -0.015), along_x=(0.01, 0.03))
DIRECTIONS = tuple(
    Linear((4.0 * y, 4.0 * x)) for y, x in itertools.product((-1, 0, 1), repeat=2) if y or x
)


def grids(
    steps: Pair,
    *,
    image_shape: tuple[int, int] = (64, 64),
    offset: Pair = (24.0, 24.0),
    resolution: float = 1.0,
    dt: float = 1.0,
    velocities_per_pixel: float = 1.0,
) -> Grids:
    """Lay a flow field with the given pixels per grid step around images.

    Args:
        steps: Pixels per grid step along y and x.
        image_shape: As in `Grids`.
        offset: Position of the first pixel's centre in pixels, not in length units.
        resolution: As in `Grids`.
        dt: As in `Grids`.
        velocities_per_pixel: As in `Grids`.
    """
    shape = [
        math.ceil((size + before + 24) / step)
        for size, before, step in zip(image_shape, offset, steps, strict=True)
    ]
    return Grids(
        image_shape=image_shape,
        field_shape=(shape[0], shape[1]),
        field_size=(shape[0] * steps[0] / resolution, shape[1] * steps[1] / resolution),
        offset=(offset[0] / resolution, offset[1] / resolution),
        resolution=resolution,
        dt=dt,
        velocities_per_pixel=velocities_per_pixel,
    )


def sheared(layout: Grids, *, units: str = "pixels", pairs: int = 16) -> Scene:
    """Particles that are easy to follow in a shear flow."""
    return Scene((SHEAR,), layout, Particles((0.003, 0.003)), pairs, units)


GEOMETRIES: dict[str, Scene] = {
    "8 x 10 px, fractional offset, wide images": sheared(
        grids((8.0, 10.0), image_shape=(48, 96), offset=(23.4, 26.7))
    ),
    "10 px/mm, 1.6 x 0.8 mm, velocities, dt 0.02": sheared(
        grids((16.0, 8.0), resolution=10.0, dt=0.02, offset=(27.0, 31.3)),
        units="measure units per second",
    ),
    "16 x 0.5 px, 2 labels per px, high images, dt 0.5": sheared(
        grids(
            (16.0, 0.5),
            image_shape=(96, 48),
            offset=(33.3, 24.25),
            velocities_per_pixel=2.0,
            dt=0.5,
        )
    ),
    # 0.29 * 100 is less than 29 in floating point.
    "3.3 x 0.7 px, 0.29 labels per px, 0.7 px per length": sheared(
        grids(
            (3.3, 0.7),
            image_shape=(100, 64),
            offset=(25.1, 24.9),
            resolution=0.7,
            velocities_per_pixel=0.29,
        )
    ),
}
"""Pixels per grid step, offset, aspect, unit, dt, resolution and labels per pixel, combined."""

SWEEP: dict[str, Scene] = {
    f"{step} px, offset {offset}, {resolution} px per length, {count} labels per px": sheared(
        grids(
            (step, step * aspect),
            image_shape=shape,
            offset=(24 + offset, 26 - offset),
            resolution=resolution,
            velocities_per_pixel=count,
            dt=dt,
        ),
        units=units,
    )
    for step, aspect, offset, resolution, count, dt, units, shape in (
        (16.0, 0.5, 0.9, 1.0, 1.0, 1.0, "pixels", (64, 64)),
        (12.3, 1.3, 0.25, 4.0, 0.25, 2.0, "measure units per second", (80, 56)),
        (10.0, 1.0, 0.0, 10.0, 1.0, 1e-3, "pixels", (64, 128)),
        (7.0, 2.0, 0.37, 0.3, 0.5, 0.1, "measure units per second", (64, 64)),
        (4.0, 0.25, 0.5, 1.0, 2.0, 1.0, "pixels", (64, 48)),
        (2.5, 1.0, 0.73, 21.7, 1.5, 1e-4, "measure units per second", (64, 64)),
        (1.5, 1.0, 0.1, 1.0, 1.0, 1.0, "pixels", (96, 64)),
        (1.0, 1.5, 0.999, 3.0, 0.1, 1.0, "pixels", (64, 64)),
        (1.0, 1.0, 0.0, 1.0, 1.0, 1.0, "pixels", (64, 64)),
        (0.5, 2.0, 0.61, 1.0, 1.0, 0.7, "measure units per second", (64, 64)),
    )
}
"""More of them, for a longer look."""


def label_error(scene: Scene, *, renderer: str = "particles") -> float:
    """Largest difference in pixels between labels and the analytic flows."""
    pairs = render(scene, renderer=renderer)
    layout = scene.grids
    unit = 1.0 if scene.units == "pixels" else layout.resolution * layout.dt
    rows, columns = pairs.labels.shape[1:3]
    y, x = layout.label_positions((rows, columns))
    expected = np.stack([scene.flows[i](y, x) for i in pairs.flow])
    return float(abs(pairs.labels * unit - expected).max())


class Tracked(NamedTuple):
    """Errors in pixels of the distance that particles travelled, and how many there were."""

    median: float
    worst: float
    particles: int


def tracking_error(scene: Scene, *, renderer: str = "particles") -> Tracked:
    """Follow particles, and compare how far they go with the flow where they were."""
    pairs = render(scene, renderer=renderer)
    rows, columns = np.mgrid[: pairs.first.shape[1], : pairs.first.shape[2]]
    errors = []
    for first, second, flow in zip(pairs.first, pairs.second, pairs.flow, strict=True):
        moves = scene.flows[flow]
        # Half a window and the widest move from the border: nothing there is cut off.
        tracks = track(first, second, moves(rows, columns), distance=8.0, border=5, radius=2)
        moved = np.stack([tracks.second.x - tracks.first.x, tracks.second.y - tracks.first.y], 1)
        errors.append(np.hypot(*(moved - moves(tracks.first.y, tracks.first.x)).T))
    error = np.concatenate(errors)
    return Tracked(float(np.median(error)), float(error.max()), len(error))


def flat_scene(*, pairs: int = 32, seed: int = 0) -> Scene:
    """Dense dim particles that move in eight directions as fast as the bounds allow."""
    return Scene(
        DIRECTIONS,
        grids((1.0, 1.0), image_shape=(48, 48)),
        Particles((4.0, 4.0), ((2.0, 2.0),), (5.0, 5.0)),
        pairs,
        bound=4.0,
        seed=seed,
    )


class Flat(NamedTuple):
    """Of the worst direction and image, and the mean images of each direction.

    Attributes:
        worst: Largest deviations.
        level: Mean of all pixels over that of the particles' light and density.
        means: Mean images, (directions, 2, height, width), divided by their level.
    """

    worst: Flatness
    level: float
    means: Float[np.ndarray, "directions 2 height width"]


def mean_images(*, renderer: str = "particles", batches: int = 32) -> Flat:
    """Average the images of uniform flows, each direction and exposure by itself."""
    scene = flat_scene()
    pairs = render(scene, renderer=renderer, batches=batches)
    found, means = [], []
    for direction in range(len(scene.flows)):
        chosen = pairs.flow == direction
        for images in (pairs.first[chosen], pairs.second[chosen]):
            found.append(flatness(images))
            means.append(images.mean(axis=0, dtype=float) / images.mean(dtype=float))
    sigma = scene.particles.diameters[0][0] / 2
    expected = scene.particles.density[0] * 2 * np.pi * sigma**2 * scene.particles.intensity[0]
    level = float((pairs.first.mean(dtype=float) + pairs.second.mean(dtype=float)) / 2 / expected)
    shape = pairs.first.shape[1:]
    return Flat(
        Flatness(*(max(values) for values in zip(*found, strict=True))),
        level,
        np.stack(means).reshape(len(scene.flows), 2, *shape),
    )


class Light(NamedTuple):
    """Light of single particles over the integral of their Gaussian."""

    least: float
    mean: float
    most: float
    particles: int


def light(
    diameters: tuple[float, ...], *, rho: float = 0.0, renderer: str = "particles"
) -> dict[float, Light]:
    """Sum the grey levels of isolated particles at any place within a pixel, by diameter.

    Args:
        diameters: Two standard deviations, in pixels.
        rho: Correlation coefficient of the Gaussians.
        renderer: As in `SynthPixDataset`.
    """
    scene = Scene(
        (Linear((0.0, 0.0)),),
        grids((1.0, 1.0), image_shape=(96, 96)),
        Particles(
            (0.004, 0.004),
            tuple((diameter, diameter) for diameter in diameters),
            keys=(("rho_ranges", ((rho, rho),)),),
        ),
        pairs=32,
    )
    pairs = render(scene, renderer=renderer, batches=2)
    drawn = pairs.diameters.mean(axis=1)
    found = {}
    for diameter in diameters:
        radius = math.ceil(2 * diameter) + 2
        sums = np.concatenate(
            [
                cut(
                    image,
                    # Beyond a neighbour's light in the corners of the window.
                    isolated(image, distance=1.5 * radius + 2 * diameter, border=radius),
                    radius=radius,
                ).sum(axis=(1, 2), dtype=float)
                for image in pairs.first[np.isclose(drawn, diameter)]
            ]
        )
        # Two particles in one place are twice as bright.
        sums = sums[sums < 1.5 * np.median(sums)]
        area = 2 * np.pi * (diameter / 2) ** 2 * math.sqrt(1 - rho**2)
        share = sums / (scene.particles.intensity[0] * area)
        least, mean, most = float(share.min()), float(share.mean()), float(share.max())
        found[diameter] = Light(least, mean, most, len(share))
    return found


SHIFTS = tuple(round(0.1 * i, 1) for i in range(11))


def shift_scene(diameter: float, *, pairs: int = 33) -> Scene:
    """Uniform shifts from 0 to 1 px along both axes of particles of one diameter."""
    return Scene(
        tuple(Linear((shift, shift)) for shift in SHIFTS),
        grids((1.0, 1.0), image_shape=(64, 64)),
        # Dark, so that no sum of particles is clipped.
        Particles((0.05, 0.05), ((diameter, diameter),), (40.0, 40.0)),
        pairs,
    )


class Bias(NamedTuple):
    """Mean error in pixels of a registration for each of SHIFTS, and its standard error."""

    mean: Float[np.ndarray, " shifts"]
    error: Float[np.ndarray, " shifts"]


def registration_bias(diameter: float, *, renderer: str = "particles", batches: int = 1) -> Bias:
    """Register pairs of uniform shifts."""
    pairs = render(shift_scene(diameter), renderer=renderer, batches=batches)
    return _bias(
        [
            [
                (a, b)
                for a, b, flow in zip(pairs.first, pairs.second, pairs.flow, strict=True)
                if flow == i
            ]
            for i in range(len(SHIFTS))
        ]
    )


def ideal_bias(diameter: float, *, pairs: int = 3) -> Bias:
    """Register pairs of an ideal camera: what physics allows."""
    return _bias(
        [
            [
                ideal.shifted_pair(
                    (shift, shift), shape=(64, 64), density=0.05, sigma=diameter / 2, seed=seed
                )
                for seed in range(i * pairs, (i + 1) * pairs)
            ]
            for i, shift in enumerate(SHIFTS)
        ]
    )


def _bias(groups: list[list[tuple[np.ndarray, np.ndarray]]]) -> Bias:
    means, errors = [], []
    for shift, group in zip(SHIFTS, groups, strict=True):
        found = np.array([register(a, b, start=(shift, shift)) for a, b in group]).ravel() - shift
        means.append(found.mean())
        errors.append(found.std() / math.sqrt(len(found)))
    return Bias(np.array(means), np.array(errors))


def border_outliers(*, renderer: str = "particles", batches: int = 2) -> Outliers:
    """Let OpenPIV measure a uniform flow that the bounds name exactly."""
    scene = Scene(
        (Linear((3.0, 3.0)),),
        grids((1.0, 1.0), image_shape=(96, 96)),
        Particles((0.05, 0.05), ((2.0, 2.0),)),
        pairs=32,
    )
    pairs = render(scene, renderer=renderer, batches=batches)
    return outliers(pairs.first, pairs.second, np.full((len(pairs.first), 2), 3.0))


def seed_scene(seed: int = 0, **keys: Any) -> Scene:
    """Small batches whose images depend on the seed alone."""
    return Scene(
        (Linear((0.0, 1.0)), Linear((1.0, 0.0))),
        grids((1.0, 1.0)),
        Particles((0.02, 0.02), ((2.0, 2.0),), keys=tuple(sorted(keys.items()))),
        pairs=8,
        seed=seed,
    )


def seed_correlation(step: int, *, renderer: str = "particles") -> float:
    """Largest correlation between any first images of two seeds, over four batches."""
    one, other = (render(seed_scene(seed), renderer=renderer, batches=4) for seed in (0, step))
    return float(correlations(one.first, other.first).max())


def pair_correlation(*, renderer: str = "particles") -> float:
    """Largest correlation between first images of different pairs of one stream."""
    pairs = render(seed_scene(batches_per_flow_batch=2), renderer=renderer, batches=6)
    found = correlations(pairs.first, pairs.first)
    np.fill_diagonal(found, 0.0)
    return float(found.max())


def noise(*, renderer: str = "particles") -> Pairs:
    """Images of noise alone, of mean 50 and standard deviation 5."""
    scene = seed_scene(
        seeding_density_range=(0.0, 0.0), noise_gaussian_mean=50.0, noise_gaussian_std=5.0
    )
    return render(scene, renderer=renderer, batches=4)


class Shapes(NamedTuple):
    """Diameters (two standard deviations) in pixels and peaks of particles in both images.

    Attributes:
        along_y: Diameters along y, (2, particles).
        along_x: Diameters along x, (2, particles).
        peak: Peaks in grey levels, (2, particles).
    """

    along_y: Float[np.ndarray, "2 n"]
    along_x: Float[np.ndarray, "2 n"]
    peak: Float[np.ndarray, "2 n"]


def shapes(
    diameters: Pair, *, renderer: str = "particles", batches: int = 4, **keys: Any
) -> Shapes:
    """Fit isolated particles that do not move."""
    scene = Scene(
        (Linear((0.0, 0.0)),),
        grids((1.0, 1.0), image_shape=(96, 96)),
        Particles((0.003, 0.003), (diameters,), (100.0, 100.0), tuple(sorted(keys.items()))),
        pairs=32,
    )
    pairs = render(scene, renderer=renderer, batches=batches)
    still = np.zeros((96, 96, 2))
    tracks = [
        track(a, b, still, distance=12.0, border=8, radius=4, reach=1.0, same_width=False)
        for a, b in zip(pairs.first, pairs.second, strict=True)
    ]

    def both(name: str) -> np.ndarray:
        values = [
            np.concatenate([getattr(getattr(pair, image), name) for pair in tracks])
            for image in ("first", "second")
        ]
        return np.stack(values)

    # Two particles in one place.
    single = (both("peak") < 150).all(axis=0)
    return Shapes(
        2 * both("sigma_y")[:, single], 2 * both("sigma_x")[:, single], both("peak")[:, single]
    )


LEVELS = 50
"""Images are matched to grey levels 0 to 49, all as frequent."""


def matched_mean(folder: Path, *, renderer: str = "particles") -> float:
    """Mean grey level of sparse images, most of whose pixels are 0, after histogram matching.

    Matching to uniform levels by the mean rank of ties keeps the mean of the levels.

    Args:
        folder: Where the histogram is written.
        renderer: As in `SynthPixDataset`.
    """
    counts = np.zeros(256)
    counts[:LEVELS] = 64 * 64 / LEVELS
    path = folder / "histogram.npy"
    np.save(path, counts)
    scene = Scene(
        (Linear((0.0, 0.0)),),
        grids((1.0, 1.0)),
        Particles(keys=(("histogram", str(path)),)),
    )
    return float(render(scene, renderer=renderer).first.mean(dtype=float))


def kinematic_fields(
    sigma: float,
    *,
    fields: int,
    seed: int = 0,
    scheduler: str = "kinematic",
    renderer: str = "particles",
) -> Float[np.ndarray, "fields rows columns 2"]:
    """Labels of kinematic flow fields with a peak of 3 px, in the geometry of the example.

    Args:
        sigma: Of the filter, in pixels.
        fields: How many.
        seed: Seed of the configuration.
        scheduler: "kinematic" or "kinematic-device".
        renderer: As in `SynthPixDataset`.
    """
    batch = 64
    layout = Grids((64, 64), (64, 64), (72.0, 72.0), (4.0, 4.0))
    scene = Scene((Linear((3.0, 3.0)),), layout, Particles((0.001, 0.001)), pairs=batch, bound=3.0)
    config = configuration(scene) | {
        "scheduler_class": scheduler,
        "num_examples": fields,
        "seed": seed,
        "filter_sigma_range": (sigma, sigma),
        "scale_factor_range": (3.0, 3.0),
        "scale_mode": "peak",
        "flow_fields_per_batch": batch,
    }
    return collect(config, renderer=renderer, batches=math.ceil(fields / batch)).labels


def field_correlation(
    step: int, *, scheduler: str = "kinematic", renderer: str = "particles"
) -> float:
    """Largest correlation between any of 64 kinematic fields of two seeds."""
    one, other = (
        kinematic_fields(4.0, fields=64, seed=seed, scheduler=scheduler, renderer=renderer)
        for seed in (0, step)
    )
    return float(correlations(one[..., 0], other[..., 0]).max())


class Homogeneous(NamedTuple):
    """Homogeneity of a set of random fields.

    Attributes:
        rms: Root mean square at the outermost rows and columns over that in the middle.
        corners: The same in the corners.
        edge: Share of fields whose peak lies within 2 px of the border, over the share expected.
        correlation_length: Sigma of the filter in pixels that their autocorrelation gives.
        peak: Mean of the largest displacement in pixels.
    """

    rms: float
    corners: float
    edge: float
    correlation_length: float
    peak: float


def homogeneity(fields: Float[np.ndarray, "fields rows columns 2"]) -> Homogeneous:
    """Compare borders with the middle, and measure how far a field is correlated."""
    square = (fields.astype(float) ** 2).mean(axis=(0, 3))
    height, width = square.shape
    middle = square[height // 4 : -(height // 4), width // 4 : -(width // 4)].mean()
    sides = np.concatenate(
        [square[:2].ravel(), square[-2:].ravel(), square[:, :2].ravel(), square[:, -2:].ravel()]
    )
    corners = np.mean(
        [
            square[a, b].mean()
            for a in (slice(2), slice(-2, None))
            for b in (slice(2), slice(-2, None))
        ]
    )
    size = abs(fields).max(axis=3).reshape(len(fields), -1)
    y, x = np.unravel_index(size.argmax(axis=1), (height, width))
    edge = np.minimum.reduce([y, x, height - 1 - y, width - 1 - x]) < 2
    expected = 1 - (height - 4) * (width - 4) / (height * width)
    # A white field filtered by a Gaussian is correlated as exp(-r^2 / (4 sigma^2)).
    lag = 3
    products = [
        (fields[:, lag:] * fields[:, :-lag]).mean(dtype=float),
        (fields[:, :, lag:] * fields[:, :, :-lag]).mean(dtype=float),
    ]
    share = np.mean(products) / (fields.astype(float) ** 2).mean()
    return Homogeneous(
        math.sqrt(sides.mean() / middle),
        math.sqrt(corners / middle),
        float(edge.mean() / expected),
        float(lag / (2 * math.sqrt(-math.log(share)))),
        float(size.max(axis=1).mean()),
    )


class Recorded(NamedTuple):
    """Real images and their labels as they were delivered, and as they were recorded."""

    images: Float[np.ndarray, "2 height width"]
    labels: Float[np.ndarray, "height width 2"]
    recorded: Float[np.ndarray, "2 height width"]


def recorded(
    folder: Path, flow: Linear, *, field_steps: int, renderer: str = "particles", **keys: Any
) -> Recorded:
    """Record a pair of an ideal camera with its flow on a grid of `field_steps` pixels.

    Args:
        folder: Where the file is written.
        flow: Its displacements, in pixels of the image.
        field_steps: Pixels per grid step.
        renderer: As in `SynthPixDataset`.
        keys: Further keys of the configuration.
    """
    shape = (64, 96)
    pair = ideal.shifted_pair(flow.uniform, shape=shape, density=0.02, sigma=1.0, seed=0)
    images = np.stack([np.minimum(np.rint(image), 255).astype(np.uint8) for image in pair])
    y, x = np.meshgrid(
        *(np.arange(0, size, field_steps, dtype=float) for size in shape), indexing="ij"
    )
    values = flow(y, x).astype(np.float32)
    scipy.io.savemat(folder / "0001.mat", {"I0": images[0], "I1": images[1], "V": values})
    config = {
        "scheduler_class": ".mat",
        "file_list": [str(folder)],
        "include_images": True,
        "batch_size": 1,
        "num_threads": 0,
        **keys,
    }
    with SynthPixDataset(config, renderer=renderer, ahead=0) as dataset:
        batch = dataset.batch_at(0)
    return Recorded(batch.images[0].numpy(), batch.flow_fields[0].permute(1, 2, 0).numpy(), images)
