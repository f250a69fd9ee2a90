"""Every kind of pipeline, small: configurations and the files that they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from ruamel.yaml import YAML

Config = dict[str, Any]

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL: Config = YAML(typ="safe").load(EXAMPLES / "small.yaml")


def base(**changes: Any) -> Config:
    """Kinematic flow fields in images of 16 px; four flow batches an epoch."""
    return {
        **SMALL,
        "flow_fields_per_batch": 4,
        "batches_per_flow_batch": 1,
        "num_examples": 14,
        "image_shape": (16, 16),
        "flow_field_size": (24.0, 24.0),
        "seed": 3,
        **changes,
    }


CAMERA: Config = {
    "image_shape": (80, 96),
    "density": 0.006,
    "diameter": 2.5,
    "intensity": 100.0,
    "max_displacement": 6.0,
    "noise": 4.0,
    "lost_pairs": 0.2,
    "resolution": 10.0,
    "dt": 0.01,
    "batch_size": 24,
    "num_examples": 72,
}
"""Arguments of `camera` for particles that can be counted and followed."""


def fields(count: int, shape: Sequence[int] = (24, 24), *, seed: int = 0) -> np.ndarray:
    """Smooth flow fields of at most 2 px."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape) * 2 * np.pi
    phase = rng.uniform(0, 2 * np.pi, (count, 2, 1, 1))
    return np.stack([2 * np.sin(y + phase[:, 0]), 2 * np.cos(x + phase[:, 1])], axis=-1).astype(
        np.float32
    )


def seeded(seed: int, records: Any) -> np.ndarray:
    """Stack the seed and the number of each record, as generators on the device take them."""
    return np.stack([np.full_like(records, seed, np.uint32), records]).astype(np.uint32)


def write_npy(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for t, field in enumerate(fields(count, seed=seed)):
        np.save(folder / f"flow_{t}.npy", field)
    return folder


def write_h5(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for t, field in enumerate(fields(count)):
        with h5py.File(folder / f"{t:03}.h5", "w") as file:
            file["flow"] = field
    return folder


def write_mat(folder: Path, count: int, shape: tuple[int, int], *, seed: int = 0) -> Path:
    """Flow fields with real images of the same shape."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for t, field in enumerate(fields(count, shape, seed=seed)):
        pair = rng.integers(0, 255, (2, *shape), np.uint8)
        path = folder / f"{t:03}.mat"
        scipy.io.savemat(path, {"V": field, "I0": pair[0], "I1": pair[1]})
        # Without the time at which it was written, so that golden states know the file.
        with open(path, "r+b") as file:
            file.write(b"MATLAB 5.0 MAT-file".ljust(116))
    return folder


def write_all(folder: Path) -> None:
    """The files of all kinds below one folder."""
    write_npy(folder / "npy", 14)
    write_h5(folder / "h5", 14)
    write_mat(folder / "mat256", 6, (256, 256))
    write_mat(folder / "real", 10, (20, 16))
    write_mat(folder / "recorded", 10, (16, 16))
    for name, count in (("a", 5), ("b", 4), ("c", 3)):
        write_npy(folder / "episodes" / name, count, seed=ord(name))
        write_mat(folder / "real_episodes" / name, count, (16, 16), seed=ord(name))
    np.save(folder / "mask.npy", np.tri(16, dtype=np.int64))
    histogram = np.zeros(256)
    histogram[10:138] = 2.0
    np.save(folder / "histogram.npy", histogram)


def _files(kind: str, folder: Path, **changes: Any) -> Config:
    changes = {"file_list": [str(folder)], "scheduler_class": kind, **changes}
    return base(**changes)


def _real(folder: Path, **changes: Any) -> Config:
    changes = {"scheduler_class": ".mat", "include_images": True, **changes}
    return {
        "batch_size": 4,
        "flow_fields_per_batch": 4,
        "image_shape": (16, 16),
        "seed": 3,
        "file_list": [str(folder)],
        "num_threads": 2,
        **changes,
    }


def _episodes(folder: Path) -> list[str]:
    return [str(folder / name) for name in "abc"]


few = {"flow_fields_per_batch": 2, "batches_per_flow_batch": 3}

KINDS: dict[str, Callable[[Path], Config]] = {
    "kinematic": lambda d: base(),
    "kinematic, few and repeated": lambda d: base(**few),
    "kinematic, in order, linear": lambda d: base(randomize=False, scale_mode="linear"),
    "kinematic on the device": lambda d: base(scheduler_class="kinematic-device", **few),
    "npy, repeated": lambda d: _files(".npy", d / "npy", batches_per_flow_batch=3),
    "npy, few, in order": lambda d: _files(
        ".npy", d / "npy", flow_fields_per_batch=3, randomize=False
    ),
    "npy, one file after the other": lambda d: _files(
        ".npy", d / "npy", buffer_size=0, batches_per_flow_batch=2
    ),
    "h5, few and repeated": lambda d: _files(".h5", d / "h5", **few),
    "mat, repeated": lambda d: _files(
        ".mat", d / "mat256", flow_field_size=(256.0, 256.0), batches_per_flow_batch=2
    ),
    "units, resolution and offsets": lambda d: _files(
        ".npy",
        d / "npy",
        batch_size=5,
        flow_fields_per_batch=2,
        image_shape=(16, 20),
        flow_field_size=(14.0, 15.0),
        img_offset=(2.1, 2.5),
        resolution=2.0,
        velocities_per_pixel=0.5,
        output_units="measure units per second",
        dt=0.5,
        diameter_ranges=[(0.5, 1.0), (2.0, 3.0)],
        rho_ranges=[(-0.5, -0.1), (0.0, 0.4)],
    ),
    "particles larger than the margin": lambda d: base(
        img_offset=(1.0, 1.0),
        max_speed_x=1.0,
        max_speed_y=0.5,
        diameter_ranges=[(1.0, 3.0)],
        **few,
    ),
    "mask and histogram": lambda d: base(
        mask=str(d / "mask.npy"), histogram=str(d / "histogram.npy"), **few
    ),
    "real": lambda d: _real(d / "recorded"),
    "real, shuffled": lambda d: _real(d / "recorded", randomize=True, batch_size=3),
    "episodes": lambda d: _files(
        ".npy",
        d,
        file_list=_episodes(d / "episodes"),
        episode_length=3,
        randomize=False,
        flow_fields_per_batch=3,
    ),
    "real episodes": lambda d: _real(d, file_list=_episodes(d / "real_episodes"), episode_length=2),
    "finite": lambda d: base(loop=False, num_examples=13, **few),
    "finite, repeated": lambda d: _files(".npy", d / "npy", loop=False, batches_per_flow_batch=3),
    "finite real": lambda d: _real(d / "recorded", loop=False),
    "finite episodes": lambda d: _files(
        ".npy",
        d,
        file_list=_episodes(d / "episodes"),
        episode_length=3,
        randomize=False,
        loop=False,
    ),
}

# Recorded images of another shape than image_shape, which renderer="synthpix" alone resizes.
RESIZED: dict[str, Callable[[Path], Config]] = {
    "real": lambda d: _real(d / "real"),
    "real, shuffled": lambda d: _real(d / "real", randomize=True, batch_size=3),
    "finite real": lambda d: _real(d / "real", loop=False),
}
