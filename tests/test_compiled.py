"""Nothing that XLA chooses by time enters the bits of a batch."""

from pathlib import Path
from unittest.mock import Mock

import jax
import pytest
from kinds import KINDS

from synthpix_torch import SynthPixDataset
from synthpix_torch.render import programs


@pytest.mark.parametrize("kind", ["kinematic", "kinematic on the device", "real"])
def test_what_makes_batches_is_compiled_without_tuning(
    kind: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs._programs.cache_clear()
    jit = Mock(wraps=jax.jit)
    monkeypatch.setattr(jax, "jit", jit)
    with SynthPixDataset(KINDS[kind](data)) as dataset:
        dataset.batch_at(0)
    options = {
        call.args[0].func.__name__: call.kwargs
        for call in jit.call_args_list
        if getattr(getattr(call.args[0], "func", None), "__module__", "").startswith(
            "synthpix_torch.render"
        )
    }
    assert options == {
        name: {"compiler_options": {"xla_gpu_autotune_level": 0}}
        for name in ("_step", "_adapt", "_generate")
    }
