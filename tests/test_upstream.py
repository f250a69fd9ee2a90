"""Check what this package relies on in others: a test fails when one of them changes it.

A failure after an upgrade is a task: follow the message, then adapt the test.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import synthpix
from torch.utils.data import DataLoader, IterableDataset

from synthpix_torch.config.keys import KEYS

ROOT = Path(__file__).parent.parent

# fmt: off
SYNTHPIX_KEYS = [
    "batch_size", "batches_per_flow_batch", "buffer_size", "device_ids", "diameter_ranges",
    "diameter_var", "dt", "episode_length", "file_list", "filter_sigma_range",
    "flow_field_size", "flow_fields_per_batch", "histogram", "image_shape", "img_offset",
    "include_images", "intensity_ranges", "intensity_var", "loop", "mask", "max_speed_x",
    "max_speed_y", "min_speed_x", "min_speed_y", "noise_gaussian_mean", "noise_gaussian_std",
    "noise_uniform", "num_examples", "num_threads", "output_units", "p_hide_img1",
    "p_hide_img2", "randomize", "resolution", "rho_ranges", "rho_var", "scale_factor_range",
    "scale_mode", "scheduler_class", "seed", "seeding_density_range", "velocities_per_pixel",
    "worker_count",
]
# fmt: on

ONLY_IN_SYNTHPIX = ["output_shape"]
"""Keys of synthpix's schedulers that `synthpix.make` does not read from a configuration."""


def keys_read(path: Path) -> Iterator[str]:
    """Find `config["key"]`, `config.get("key")` and `"key" in config` in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case (
                ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key)))
                | ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr="get" | "pop"),
                    args=[ast.Constant(value=str(key)), *_],
                )
                | ast.Compare(left=ast.Constant(value=str(key)), comparators=[ast.Name(id=name)])
            ) if "config" in name:
                yield key


def test_synthpix_reads_the_keys_that_we_know() -> None:
    """If this fails, add a row to config/*_keys.py for a new key, or drop one that is gone."""
    modules = Path(synthpix.__file__).parent.rglob("*.py")
    read = {key for path in modules for key in keys_read(path)}
    assert sorted(read) == sorted([*SYNTHPIX_KEYS, *ONLY_IN_SYNTHPIX])
    assert set(SYNTHPIX_KEYS) <= KEYS.keys()


def test_torchs_data_loader_has_no_state() -> None:
    """If this fails, a DataLoader around a dataset may now be resumed twice.

    Check what it saves of an iterable dataset, then `integrations/trainer_warnings.py`,
    docs/trainers.md and the rows of tests/matrix.py with a DataLoader.
    """

    class Numbers(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    loader = DataLoader(Numbers(), batch_size=None)
    for stateful in (loader, iter(loader)):
        for name in ("state_dict", "load_state_dict"):
            assert not hasattr(stateful, name)


def test_dependencies_whose_next_version_breaks_are_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounded = [line for line in project["dependencies"] if "<" in line]
    assert bounded == ["synthpix>=0.3.1,<0.4", "orbax-checkpoint>=0.12,<1"]
