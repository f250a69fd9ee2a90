"""Nothing that XLA chooses by time enters the bits of a batch."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from kinds import KINDS, base

from synthpix_torch import SynthPixDataset, render

# What XLA tunes for a GPU.
TUNED = ("stablehlo.dot_general", "stablehlo.convolution")


def lowered(dataset: SynthPixDataset) -> dict[str, str]:
    """The programs of a dataset by name."""
    renderer, flows = dataset._pipeline.renderer, dataset._pipeline.flows
    flow_batch = next(flows.read(lambda index: 0 if index == 0 else None))
    programs: dict[str, Any] = {
        "step": renderer._step.lower(renderer.load(flow_batch), np.int32(0), np.bool_(False))
    }
    if flow_batch.flow_fields is None:
        programs["generate"] = renderer._generate.lower(flow_batch.keys.astype(np.int32))
    elif renderer._adapt is not None:
        programs["adapt"] = jax.jit(renderer._adapt).lower(flow_batch.flow_fields)
    return {name: program.as_text() for name, program in programs.items()}


@pytest.mark.parametrize("kind", ["kinematic", "npy, repeated", "mask and histogram", "real"])
def test_there_is_nothing_to_tune(kind: str, data: Path) -> None:
    with SynthPixDataset(KINDS[kind](data)) as dataset:
        for name, text in lowered(dataset).items():
            assert not [word for word in TUNED if word in text], name


def test_the_matrix_products_of_kinematic_fields_are_not_tuned(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SynthPixDataset(KINDS["kinematic on the device"](data)) as dataset:
        programs = lowered(dataset)
    assert "stablehlo.dot_general" in programs["generate"]
    assert "stablehlo.dot_general" not in programs["step"]
    jit = Mock(wraps=jax.jit)
    monkeypatch.setattr(jax, "jit", jit)
    SynthPixDataset(base(scheduler_class="kinematic-device"))
    (options,) = [
        call.kwargs
        for call in jit.call_args_list
        if getattr(call.args[0], "func", None) is render._generate
    ]
    assert options == {"compiler_options": {"xla_gpu_autotune_level": 0}}
