"""Image pairs of known flows, made through the public interface of the library alone."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from synthpix_torch import SynthPixDataset

from .flows import Grids, Linear

Range = tuple[float, float]


@dataclass(frozen=True)
class Particles:
    """Appearance of particles; by default all alike and without noise.

    Attributes:
        density: Smallest and largest seeding density in particles per pixel.
        diameters: Ranges of the diameter (two standard deviations) in pixels.
        intensity: Range of the peak intensity in grey levels.
        keys: Further keys of the configuration, as pairs of name and value.
    """

    density: Range = (0.004, 0.004)
    diameters: tuple[Range, ...] = ((2.5, 2.5),)
    intensity: Range = (200.0, 200.0)
    keys: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Scene:
    """Flows, one to a record, on one geometry with one kind of particles.

    Attributes:
        flows: The flow of each record; pair i of a batch moves with flow i % len(flows).
        grids: Where everything lies.
        particles: How particles look.
        pairs: Pairs of a batch.
        units: `output_units` of the configuration.
        bound: Speed bounds in pixels, plus and minus; those of the flows if None.
        seed: Seed of the configuration.
    """

    flows: tuple[Linear, ...]
    grids: Grids = field(default_factory=Grids)
    particles: Particles = field(default_factory=Particles)
    pairs: int = 16
    units: str = "pixels"
    bound: float | None = None
    seed: int = 0


class Pairs(NamedTuple):
    """Batches of a scene as NumPy arrays.

    Attributes:
        first: First images.
        second: Second images.
        labels: Flow fields as delivered, components (x, y) last.
        densities: Seeding density that was drawn for each pair.
        diameters: Range of diameters that was drawn for each pair.
        flow: Number of the flow of each pair.
    """

    first: Float[np.ndarray, "pairs height width"]
    second: Float[np.ndarray, "pairs height width"]
    labels: Float[np.ndarray, "pairs rows columns 2"]
    densities: Float[np.ndarray, " pairs"]
    diameters: Float[np.ndarray, "pairs 2"]
    flow: Float[np.ndarray, " pairs"]


def configuration(scene: Scene) -> dict[str, Any]:
    """The keys that a user would write for a scene."""
    grids, particles = scene.grids, scene.particles
    speeds = np.stack([grids.sample(flow) for flow in scene.flows])
    if scene.bound is not None:
        bound = scene.bound / (grids.resolution * grids.dt)
        assert abs(speeds).max() <= bound
        limits = {f"{end}_speed_{axis}": sign * bound for end, sign in ENDS for axis in "xy"}
    else:
        limits = {
            f"{end}_speed_{axis}": float(sign * (sign * speeds[..., i]).max())
            for end, sign in ENDS
            for i, axis in enumerate("xy")
        }
    return {
        "batch_size": scene.pairs,
        "flow_fields_per_batch": len(scene.flows),
        "batches_per_flow_batch": 1,
        "image_shape": grids.image_shape,
        "flow_field_size": grids.field_size,
        "img_offset": grids.offset,
        "resolution": grids.resolution,
        "velocities_per_pixel": grids.velocities_per_pixel,
        "dt": grids.dt,
        "output_units": scene.units,
        **limits,
        "seeding_density_range": particles.density,
        "p_hide_img1": 0.0,
        "p_hide_img2": 0.0,
        "diameter_ranges": list(particles.diameters),
        "diameter_var": 0.0,
        "intensity_ranges": [particles.intensity],
        "intensity_var": 0.0,
        "rho_ranges": [(0.0, 0.0)],
        "rho_var": 0.0,
        "noise_uniform": 0.0,
        "noise_gaussian_mean": 0.0,
        "noise_gaussian_std": 0.0,
        "seed": scene.seed,
        "num_threads": 0,
        **dict(particles.keys),
    }


ENDS = (("max", 1.0), ("min", -1.0))


@functools.lru_cache(maxsize=8)
def render(scene: Scene, *, renderer: str = "particles", batches: int = 1, start: int = 0) -> Pairs:
    """Render consecutive batches of a scene."""
    source = np.stack([scene.grids.sample(flow) for flow in scene.flows])
    return collect(
        configuration(scene), source=source, renderer=renderer, batches=batches, start=start
    )


def collect(
    config: Mapping[str, Any],
    *,
    source: Sequence[Any] | np.ndarray | None = None,
    renderer: str = "particles",
    batches: int = 1,
    start: int = 0,
) -> Pairs:
    """Concatenate consecutive batches of a configuration."""
    with warnings.catch_warnings():
        # What makes a judge sharp is rare in an experiment: few, many, small or dark particles.
        warnings.filterwarnings(
            "ignore", "(diameter_ranges|seeding_density_range|intensity_ranges) "
        )
        with SynthPixDataset(config, source=source, renderer=renderer, ahead=0) as dataset:
            parts = [dataset.batch_at(start + n) for n in range(batches)]
    images = np.concatenate([part.images.numpy() for part in parts])
    pairs = len(images)
    fields = config.get("flow_fields_per_batch", pairs)
    params = [part.params for part in parts if part.params is not None]
    none = np.empty((0, 2), np.float32)
    return Pairs(
        first=images[:, 0],
        second=images[:, 1],
        labels=np.concatenate([part.flow_fields.numpy() for part in parts]).transpose(0, 2, 3, 1),
        densities=np.concatenate([none[:, 0], *(p.seeding_densities.numpy() for p in params)]),
        diameters=np.concatenate([none, *(p.diameter_ranges.numpy() for p in params)]),
        flow=np.arange(pairs) % config["batch_size"] % fields,
    )
