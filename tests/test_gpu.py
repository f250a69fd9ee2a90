"""What only a GPU can show. Not run yet: docs/gpu.md."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import torch
from kinds import base, few
from oracle import digest

from synthpix_torch import SynthPixDataset
from synthpix_torch.bridge import Bridge

pytestmark = pytest.mark.gpu

ELEMENTS = 16 << 20


def corrupted_reads(bridge: Bridge | None) -> int:
    """How often torch reads what JAX wrote into a block that torch had dropped before it read."""
    fill = jax.jit(lambda value: jnp.full((ELEMENTS,), value, jnp.int32))
    fill(1).block_until_ready()
    wrong = 0
    for _ in range(20):
        array = fill(1)
        to_torch = torch.utils.dlpack.from_dlpack if bridge is None else bridge.to_torch
        tensor = to_torch(array)
        del array
        # A slow kernel, behind which the read of the tensor has to wait.
        torch.cuda._sleep(200_000_000)
        differences = (tensor != 1).sum()
        del tensor
        if bridge is not None:
            bridge.release()
        other = fill(2)
        wrong += int(differences.item() > 0)
        del other
    return wrong


def test_memory_dropped_by_torch_is_reused_too_early_without_leases_and_not_with_them() -> None:
    assert corrupted_reads(None) > 0, "JAX did not reuse the block: this shows nothing"
    assert corrupted_reads(Bridge()) == 0


def test_batches_are_made_on_the_gpu_that_torch_uses() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batch = dataset.batch_at(0)
    assert dataset.device.type == "cuda"
    assert batch.images.device == batch.flow_fields.device == dataset.device


def test_device_memory_is_let_go_when_batches_are() -> None:
    with SynthPixDataset(base(**few), ahead=1) as dataset:
        batches = iter(dataset)
        for _ in range(100):
            next(batches)
        torch.cuda.synchronize()
        next(batches)
        # The arrays of two batches, and of one that is being let go.
        assert dataset._bridge.held <= 3 * 11


def test_two_processes_make_the_same_bits(tmp_path: Path) -> None:
    script = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import hashlib
from kinds import base, few
from synthpix_torch import SynthPixDataset

digests = []
for batch in SynthPixDataset(base(**few)):
    digests.append(hashlib.sha256(batch.images.cpu().numpy().tobytes()).hexdigest())
    if len(digests) == 1000:
        break
print(json.dumps(digests))
"""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", script], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_a_gpu_and_a_cpu_agree_on_everything_but_rounding() -> None:
    config = base(**few)
    with SynthPixDataset(config) as here, SynthPixDataset(config, device="cpu") as there:
        on_gpu, on_cpu = here.batch_at(3), there.batch_at(3)
    assert on_gpu.keys.cpu().equal(on_cpu.keys)
    assert abs(on_gpu.images.cpu() - on_cpu.images).max() < 0.1
    assert digest(on_cpu) == digest(there.batch_at(3))
