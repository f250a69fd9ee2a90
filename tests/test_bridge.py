"""Memory goes from JAX to torch without a copy, and back only when torch is done with it."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from kinds import KINDS

from synthpix_torch import SynthPixDataset
from synthpix_torch.bridge import Bridge


class StandIn:
    """An event that passes when it is told to."""

    def __init__(self) -> None:
        self.passed = False
        self.waited = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.waited = self.passed = True


@pytest.fixture
def events() -> list[StandIn]:
    return []


@pytest.fixture
def bridge(events: list[StandIn]) -> Bridge:
    def record(*_: Any) -> list[StandIn]:
        events.append(StandIn())
        return events[-1:]

    return Bridge(max_pending=2, record=record)


def test_a_tensor_has_the_memory_of_its_array() -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    tensor = Bridge().to_torch(x)
    assert tensor.data_ptr() == x.unsafe_buffer_pointer()
    assert tensor.shape == x.shape


@pytest.mark.parametrize("kind", ["kinematic, few and repeated", "real", "episodes"])
@pytest.mark.parametrize("layout", ["torch", "synthpix"])
def test_no_array_of_a_batch_is_copied(
    kind: str, layout: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointers: list[int] = []

    def to_torch(self: Bridge, x: jax.Array) -> torch.Tensor:
        pointers.append(x.unsafe_buffer_pointer())
        return torch.utils.dlpack.from_dlpack(x)

    monkeypatch.setattr(Bridge, "to_torch", to_torch)
    with SynthPixDataset(KINDS[kind](data), layout=layout) as dataset:
        made = dataset.batch_at(0)
        tensors = [leaf for leaf in jax.tree.leaves(tuple(made)) if isinstance(leaf, torch.Tensor)]
        assert sorted(tensor.data_ptr() for tensor in tensors) == sorted(pointers)
        assert len(set(pointers)) == len(pointers)


def test_the_images_of_a_pair_are_views(data: Path) -> None:
    with SynthPixDataset(KINDS["kinematic"](data)) as dataset:
        made = dataset.batch_at(0)
    assert made.images1.shape == made.images2.shape == (4, 1, 16, 16)
    assert made.images1.data_ptr() == made.images.data_ptr()
    assert made.images2.data_ptr() == made.images[:, 1].data_ptr()


def test_an_array_is_held_until_torch_has_freed_it(bridge: Bridge, events: list[StandIn]) -> None:
    tensor = bridge.to_torch(jnp.zeros(8))
    bridge.release()
    assert (bridge.held, len(events)) == (1, 0)
    del tensor
    bridge.release()
    assert (bridge.held, len(events)) == (1, 1)
    events[0].passed = True
    bridge.release()
    assert bridge.held == 0


@pytest.mark.parametrize(
    "keep",
    [
        lambda tensor: tensor[2:],
        lambda tensor: tensor.data,
        lambda tensor: tensor.numpy(),
        lambda tensor: torch.nn.Parameter(tensor),
        lambda tensor: tensor.view(torch.int32),
        lambda tensor: tensor.detach().reshape(2, 4).mT,
    ],
)
def test_whatever_shares_the_memory_holds_the_array(bridge: Bridge, keep: Any) -> None:
    kept = keep(bridge.to_torch(jnp.zeros(8)))
    gc.collect()
    bridge.release()
    assert not bridge._pending
    del kept
    gc.collect()
    bridge.release()
    assert len(bridge._pending) == 1


def test_freed_arrays_wait_in_order_and_within_bounds(
    bridge: Bridge, events: list[StandIn]
) -> None:
    for _ in range(3):
        bridge.to_torch(jnp.zeros(8))
        bridge.release()
    assert [event.waited for event in events] == [True, False, False]
    assert bridge.held == 2
    events[2].passed = True
    bridge.release()
    assert bridge.held == 2
    events[1].passed = True
    bridge.release()
    assert bridge.held == 0


def test_an_owner_outlives_its_tensor_until_the_event_has_passed(
    bridge: Bridge, events: list[StandIn]
) -> None:
    x = jnp.zeros(8)
    owner = id(x)
    tensor = bridge.to_torch(x)
    del x, tensor
    bridge.release()
    assert id(bridge._pending[0][1]) == owner


def test_on_a_cpu_nothing_is_held() -> None:
    bridge = Bridge()
    tensor = bridge.to_torch(jnp.zeros(8))
    bridge.release()
    assert bridge.held == 0
    assert tensor.sum() == 0


def test_typed_keys_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"jax\.random\.key_data"):
        Bridge().to_torch(jax.random.key(0))


@pytest.mark.parametrize("dtype", ["int4", "uint2", "float8_e3m4", "float8_e4m3b11fnuz"])
def test_dtypes_that_torch_lacks_are_refused_with_the_way_out(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"torch has no dtype for {dtype}: convert"):
        Bridge().to_torch(jnp.zeros(4, dtype))


def test_arrays_on_several_devices_are_refused_with_the_way_out() -> None:
    script = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from synthpix_torch.bridge import Bridge

mesh = Mesh(jax.devices(), ("n",))
x = jax.device_put(np.arange(4.0), NamedSharding(mesh, PartitionSpec("n")))
try:
    Bridge().to_torch(x)
except ValueError as error:
    print(error)
print(Bridge().to_torch(x.addressable_shards[1].data).tolist())
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert "spread over 2 devices" in output
    assert "pass x.addressable_shards[i].data" in output
    assert "[2.0, 3.0]" in output
