"""JAX lends memory to torch without a copy, and reuses it only when torch has finished."""

import gc
import os
import random
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import pytest
import torch
from kinds import KINDS
from standin import Cuda

from synthpix_torch import SynthPixDataset
from synthpix_torch.interop.dlpack import Bridge, collect

Kernel: TypeAlias = Callable[[], object]


@pytest.fixture
def cuda() -> Cuda:
    return Cuda()


@pytest.fixture
def bridge(cuda: Cuda) -> Bridge:
    return Bridge(cuda=cuda)


def test_a_tensor_shares_the_memory_of_its_array() -> None:
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
        assert sorted(tensor.data_ptr() for tensor in tensors(made)) == sorted(pointers)
        assert len(set(pointers)) == len(pointers)


def test_the_images_of_a_pair_are_views(data: Path) -> None:
    with SynthPixDataset(KINDS["kinematic"](data)) as dataset:
        made = dataset.batch_at(0)
    assert made.images1.shape == made.images2.shape == (4, 1, 16, 16)
    assert made.images1.data_ptr() == made.images.data_ptr()
    assert made.images2.data_ptr() == made.images[:, 1].data_ptr()


def test_an_array_is_held_until_torch_has_freed_it_and_finished_its_work(
    bridge: Bridge, cuda: Cuda
) -> None:
    tensor = bridge.to_torch(jnp.zeros(8))
    bridge.release()
    cuda.synchronize()
    bridge.release()
    assert bridge.held == 1
    del tensor
    bridge.release()
    assert bridge.held == 1
    cuda.synchronize()
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
def test_whatever_shares_the_memory_holds_the_array(bridge: Bridge, cuda: Cuda, keep: Any) -> None:
    kept = keep(bridge.to_torch(jnp.zeros(8)))
    gc.collect()
    settle(bridge, cuda)
    assert bridge.held == 1
    del kept
    gc.collect()
    settle(bridge, cuda)
    assert bridge.held == 0


def settle(bridge: Bridge, cuda: Cuda) -> None:
    bridge.release()
    cuda.synchronize()
    bridge.release()


BLOCK = 4096
make = jax.jit(lambda value: jnp.full(BLOCK, value, jnp.int32))


def corrupted_reads(
    bridge: Bridge | None, cuda: Cuda, use: Callable[[Cuda, torch.Tensor, Kernel], Any]
) -> int:
    """Count the late kernels that find another batch than their own in the memory they read.

    JAX really reuses the memory of a CPU here; only torch's kernels are simulated. Each looks up
    which batch JAX has written last to the address that it reads.
    """
    holds: dict[int, int] = {}
    kept: deque[Any] = deque()
    wrong = 0
    rng = random.Random(0)

    def kernel(place: int, number: int) -> Kernel:
        def read() -> None:
            nonlocal wrong
            wrong += holds[place] != number

        return read

    for number in range(10_000):
        if bridge is not None:
            bridge.release()
        array = make(number)
        place = array.unsafe_buffer_pointer()
        holds[place] = number
        tensor = torch.utils.dlpack.from_dlpack(array) if bridge is None else bridge.to_torch(array)
        del array
        kept.append(use(cuda, tensor, kernel(place, number)))
        del tensor
        while len(kept) > rng.randrange(4):
            kept.popleft()
        for _ in range(rng.randrange(6)):
            cuda.step()
    cuda.synchronize()
    return wrong


def on_the_current_stream(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> None:
    cuda.current_stream().launch(kernel)


def through_a_view_that_is_kept(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    cuda.current_stream().launch(kernel)
    return tensor.view(2, -1)[1:].T


def on_a_side_stream_that_is_waited_for(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> None:
    cuda.side.wait_stream(cuda.current_stream())
    with cuda.stream(cuda.side):
        cuda.current_stream().launch(kernel)
    cuda.current_stream().wait_stream(cuda.side)


USES = [on_the_current_stream, through_a_view_that_is_kept, on_a_side_stream_that_is_waited_for]


@pytest.mark.parametrize("use", USES)
def test_late_kernels_read_their_own_batch(bridge: Bridge, cuda: Cuda, use: Any) -> None:
    assert corrupted_reads(bridge, cuda, use) == 0


@pytest.mark.parametrize("use", USES)
def test_without_leases_late_kernels_read_a_later_batch(cuda: Cuda, use: Any) -> None:
    assert corrupted_reads(None, cuda, use) > 0


def test_a_batch_requested_on_a_side_stream_may_be_used_on_the_default_stream(
    bridge: Bridge, cuda: Cuda
) -> None:
    def used(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> None:
        cuda.default.wait_stream(cuda.side)
        cuda.default.launch(kernel)

    with cuda.stream(cuda.side):
        assert corrupted_reads(bridge, cuda, used) == 0


def test_a_batch_may_be_used_on_the_stream_it_was_requested_on(bridge: Bridge, cuda: Cuda) -> None:
    with cuda.stream(cuda.side):
        tensor = bridge.to_torch(make(0))
        for _ in range(3):
            cuda.current_stream().launch(lambda: None)
    del tensor
    bridge.release()
    cuda.step()
    bridge.release()
    assert bridge.held == 1
    cuda.synchronize()
    bridge.release()
    assert bridge.held == 0


def test_a_side_stream_that_is_never_waited_for_is_not_protected(
    bridge: Bridge, cuda: Cuda
) -> None:
    def used(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> None:
        for work in (*[lambda: None] * 3, kernel):
            cuda.side.launch(work)

    assert corrupted_reads(bridge, cuda, used) > 0


def test_a_batch_may_be_kept_until_a_side_stream_has_used_it(bridge: Bridge, cuda: Cuda) -> None:
    kept: deque[tuple[Any, torch.Tensor]] = deque()

    def used(cuda: Cuda, tensor: torch.Tensor, kernel: Kernel) -> None:
        for work in (*[lambda: None] * 3, kernel):
            cuda.side.launch(work)
        event = cuda.Event()
        event.record(cuda.side)
        kept.append((event, tensor))
        while kept and kept[0][0].query():
            kept.popleft()

    assert corrupted_reads(bridge, cuda, used) == 0


def give(bridge: Bridge, count: int = 3) -> list[torch.Tensor]:
    """Share a batch of `count` tensors."""
    bridge.release()
    return [bridge.to_torch(jnp.zeros(8)) for _ in range(count)]


def test_at_most_two_freed_batches_are_kept(bridge: Bridge, cuda: Cuda) -> None:
    kept = []
    batch = None
    for number in range(3_000):
        cuda.current_stream().launch(lambda: None)
        batch = give(bridge)
        if number % 300 == 0:
            kept.append(batch)
        held_by_user = sum(map(len, kept)) + 3 * (batch is not kept[-1])
        assert bridge.held <= held_by_user + 2 * 3


def test_freed_tensors_of_a_batch_are_returned_while_others_are_kept(
    bridge: Bridge, cuda: Cuda
) -> None:
    kept = [give(bridge)[0] for _ in range(100)]
    settle(bridge, cuda)
    assert bridge.held == len(kept)


def test_the_host_does_not_wait_for_a_device_that_keeps_up(bridge: Bridge, cuda: Cuda) -> None:
    for _ in range(1000):
        batch = give(bridge)
        cuda.current_stream().launch(batch[0].sum)
        cuda.synchronize()
    assert cuda.waits == 0


def test_a_waiting_host_leaves_one_step_of_work_queued(bridge: Bridge, cuda: Cuda) -> None:
    done: list[int] = []
    for step in range(100):
        batch = give(bridge)
        # The kernels of the step before are still queued.
        assert done == list(range(max(0, step - 1))) or not cuda.waits
        cuda.current_stream().launch(partial(done.append, step))
        del batch
    assert cuda.waits > 90


def test_two_alternating_bridges_leave_one_step_of_work_queued(cuda: Cuda) -> None:
    bridges = Bridge(cuda=cuda), Bridge(cuda=cuda)
    done: list[int] = []
    batches = [give(bridge) for bridge in bridges]
    for step in range(100):
        for i, bridge in enumerate(bridges):
            batches[i] = give(bridge)
        cuda.current_stream().launch(partial(done.append, step))
        assert step == 0 or step - 1 not in done


def test_a_tensor_outlives_its_bridge_and_stays_leased(cuda: Cuda) -> None:
    bridge = Bridge(cuda=cuda)
    x = jnp.zeros(8)
    array = weakref.ref(x)
    tensor = bridge.to_torch(x)
    del bridge, x
    cuda.current_stream().launch(lambda: None)
    del tensor
    gc.collect()
    collect()
    assert array() is not None
    cuda.synchronize()
    collect()
    assert array() is None


def test_a_batch_is_refused_during_the_capture_of_a_graph(bridge: Bridge, cuda: Cuda) -> None:
    cuda.capturing = True
    with pytest.raises(RuntimeError, match=r"while a CUDA graph is captured: .*\.clone\(\)"):
        bridge.refuse_capture()


def test_no_work_is_dispatched_to_jax_during_the_capture_of_a_graph(
    data: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda
) -> None:
    with SynthPixDataset(KINDS["kinematic"](data), ahead=0) as dataset:
        monkeypatch.setattr(dataset.stream, "bridge", Bridge(cuda=cuda))
        batches, window = iter(dataset), iter(dataset.window(0, 4))
        next(batches)
        cuda.capturing = True
        work = Mock(wraps=dataset.stream.renderer.render)
        monkeypatch.setattr(dataset.stream.renderer, "render", work)
        for ask in (lambda: next(batches), lambda: dataset.batch_at(5), lambda: next(window)):
            with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
                ask()
        work.assert_not_called()
        assert dataset.position == 1


def test_memory_freed_during_a_capture_is_returned_after_it(bridge: Bridge, cuda: Cuda) -> None:
    tensor = bridge.to_torch(jax.numpy.zeros(4))
    cuda.capturing = True
    del tensor
    collect()
    assert (bridge.held, len(cuda.current_stream().queue)) == (1, 0)
    cuda.capturing = False
    collect()
    cuda.synchronize()
    collect()
    assert bridge.held == 0


def test_a_lease_is_kept_if_its_event_cannot_be_recorded(
    bridge: Bridge, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = bridge.to_torch(jax.numpy.zeros(4))
    del tensor
    with monkeypatch.context() as patch:
        patch.setattr(cuda, "Event", Mock(side_effect=RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            bridge.release()
    assert bridge.held == 1
    bridge.release()
    cuda.synchronize()
    bridge.release()
    assert bridge.held == 0


def test_close_returns_the_memory_of_freed_batches(
    data: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda
) -> None:
    with SynthPixDataset(KINDS["kinematic"](data)) as dataset:
        monkeypatch.setattr(dataset.stream, "bridge", Bridge(cuda=cuda))
        batches = [next(iter(dataset)) for _ in range(3)]
        assert dataset.stream.bridge.held == 3 * len(tensors(batches[0]))
        batches.clear()
        dataset.close()
        cuda.synchronize()
    assert dataset.stream.bridge.held == 0


def test_a_dataset_keeps_at_most_two_freed_batches(
    data: Path, monkeypatch: pytest.MonkeyPatch, cuda: Cuda
) -> None:
    with SynthPixDataset(KINDS["kinematic"](data)) as dataset:
        monkeypatch.setattr(dataset.stream, "bridge", Bridge(cuda=cuda))
        for batch in dataset:
            cuda.current_stream().launch(lambda: None)
            if batch.number == 200:
                break
            assert dataset.stream.bridge.held <= 3 * len(tensors(batch))


def tensors(batch: Any) -> list[torch.Tensor]:
    return [leaf for leaf in jax.tree.leaves(tuple(batch)) if isinstance(leaf, torch.Tensor)]


def test_on_a_cpu_nothing_is_held() -> None:
    bridge = Bridge()
    tensor = bridge.to_torch(jnp.zeros(8))
    bridge.release()
    assert bridge.held == 0
    assert tensor.sum() == 0


def test_typed_keys_are_refused_and_the_error_says_key_data() -> None:
    with pytest.raises(TypeError, match=r"jax\.random\.key_data"):
        Bridge().to_torch(jax.random.key(0))


@pytest.mark.parametrize("dtype", ["int4", "uint2", "float8_e3m4", "float8_e4m3b11fnuz"])
def test_dtypes_that_torch_lacks_are_refused_and_the_error_says_convert(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"torch has no dtype for {dtype}: convert"):
        Bridge().to_torch(jnp.zeros(4, dtype))


def test_arrays_on_several_devices_are_refused_and_the_error_says_shards() -> None:
    script = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from synthpix_torch.interop.dlpack import Bridge

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
