"""Datasets share compiled functions exactly if these would be equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from kinds import base

from synthpix_torch import SynthPixDataset
from synthpix_torch.config.config import Config
from synthpix_torch.config.reading import read_config
from synthpix_torch.render import programs as module
from synthpix_torch.render.output import Appearance
from synthpix_torch.render.programs import Programs, programs
from synthpix_torch.render.renderers import RENDERERS

SHAPE = (24, 24, 2)
WIDE = {"min_speed_x": -4.0, "max_speed_x": 4.0, "min_speed_y": -4.0, "max_speed_y": 4.0}


def made(changes: dict[str, Any], **arguments: Any) -> Programs:
    config: Config = read_config(base(**changes))
    device = jax.devices("cpu")[0]
    appearance = Appearance(**arguments)
    renderer = RENDERERS[appearance.renderer](config, SHAPE, device)
    return programs(config, renderer, flow_field_shape=SHAPE, appearance=appearance, device=device)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 4},
        {"randomize": False},
        {"loop": False},
        {"num_examples": 3},
        {"num_threads": 1, "buffer_size": 5},
        {"scheduler_class": ".npy", "file_list": ["somewhere.npy"]},
    ],
    ids=lambda changes: " ".join(changes) or "nothing",
)
def test_what_decides_only_which_records_are_read_compiles_nothing_again(
    changes: dict[str, Any],
) -> None:
    kinematic = {"scheduler_class": ".npy"} if "file_list" in changes else {}
    assert made(changes) is made(kinematic)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 8},
        {"batches_per_flow_batch": 2},
        {"flow_fields_per_batch": 2},
        {"image_shape": (16, 12)},
        {"img_offset": (4.0, 4.000001)},
        {"dt": 0.5},
        {"rho_ranges": [[-0.2, 0.3]]},
        {"noise_gaussian_std": 1.0000001},
        {"diameter_definition": "e^-2"},
        {"filter_sigma_range": [2.0, 4.5]},
        {"scheduler_class": "shear"},
        {"bit_depth": 8},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_decides_the_images_compiles_again(changes: dict[str, Any]) -> None:
    assert made(changes) is not made({})


def test_layout_range_and_renderer_compile_again() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"layout": "synthpix"},
        {"scale_images": True},
        {"image_dtype": "float16"},
        {"renderer": "synthpix"},
    ]
    assert len({id(made({}, **change)) for change in changes}) == len(changes)


def test_other_contents_of_the_same_file_compile_again(tmp_path: Path) -> None:
    mask = tmp_path / "mask.npy"
    np.save(mask, np.ones((16, 16), np.int32))
    ones = made({"mask": str(mask)})
    assert made({"mask": str(mask)}) is ones
    np.save(mask, np.eye(16, dtype=np.int32))
    assert made({"mask": str(mask)}) is not ones


def test_other_random_flags_compile_again() -> None:
    before = made({})
    with jax.threefry_partitionable(False):
        assert made({}) is not before


def alone(config: dict[str, Any]) -> list[Any]:
    """Make batches with functions that were compiled for this dataset."""
    module._programs.cache_clear()
    return batches(config)


def batches(config: dict[str, Any]) -> list[Any]:
    with SynthPixDataset(config) as dataset:
        return [dataset.batch_at(number) for number in (0, 5)]


@pytest.mark.parametrize("kind", ["kinematic-device", "rotation-noise-device"])
def test_shared_functions_make_the_batches_of_each_seed(kind: str) -> None:
    configs = [base(scheduler_class=kind, seed=seed, **WIDE) for seed in (0, 2**32 - 1)]
    expected = [alone(config) for config in configs]
    module._programs.cache_clear()
    shared = [batches(config) for config in configs]
    assert module._programs.cache_info().misses == 1
    for one, other in zip(expected, shared, strict=True):
        for batch, again in zip(one, other, strict=True):
            assert all(
                getattr(batch, name).equal(getattr(again, name))
                for name in ("images", "flow_fields", "keys", "seeds")
            )
    assert not expected[0][0].images.equal(expected[1][0].images)


def compilations(work: Callable[[], object]) -> int:
    """Count what XLA compiles, or loads from its cache, meanwhile."""
    counted = 0

    def count(event: str, duration_secs: float, **_: str | int) -> None:
        nonlocal counted
        counted += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        work()
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return counted


def test_a_dataset_of_another_seed_compiles_nothing() -> None:
    config = base(noise_gaussian_std=1.25)
    assert compilations(lambda: batches(config)) > 0
    assert compilations(lambda: batches(config | {"seed": 4})) == 0
