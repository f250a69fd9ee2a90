"""Tests that need a GPU: python -m pytest -m gpu. docs/gpu.md says which of them have been run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import pytest
import torch
from kinds import base, few

from synthpix_torch import Batch, SynthPixDataset
from synthpix_torch.interop.device import choose_device
from synthpix_torch.interop.dlpack import Bridge

pytestmark = pytest.mark.gpu

HERE = Path(__file__).parent
SLOW = 2_000_000
"""GPU cycles in about a millisecond."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> jax.Device:
    """Choose the GPU that torch uses and configure JAX before any test uses it."""
    return choose_device("cuda")


# Lifetime --------------------------------------------------------------------------------------

BLOCK = 1 << 20

Use: TypeAlias = Callable[[torch.Tensor, int, torch.Tensor], None]


def late(tensor: torch.Tensor, number: int, wrong: torch.Tensor) -> None:
    """Count the elements that are not `number`, on the current CUDA stream after slow work."""
    torch.cuda._sleep(SLOW)
    wrong += (tensor != number).sum()


def wrong_elements(bridge: Bridge | None, use: Use, *, batches: int, views: int = 0) -> int:
    """Count the elements that torch reads wrongly in batches freed before it reads them."""
    fill = jax.jit(lambda value: jnp.full((BLOCK,), value, jnp.int32))
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    # Allocate torch's own memory first: a later allocation could wait for the device.
    late(torch.zeros(BLOCK, dtype=torch.int32, device="cuda"), 0, wrong)
    torch.cuda.synchronize()
    kept: deque[torch.Tensor] = deque(maxlen=views)
    for number in range(batches):
        if bridge is not None:
            bridge.release()
        array = fill(number)
        tensor = torch.utils.dlpack.from_dlpack(array) if bridge is None else bridge.to_torch(array)
        del array
        use(tensor, number, wrong)
        kept.append(tensor.view(2, -1)[1:].T)
        del tensor
    torch.cuda.synchronize()
    for offset, view in enumerate(kept):
        wrong += (view != batches - len(kept) + offset).sum()
    return int(wrong.item())


def test_without_leases_jax_reuses_memory_that_torch_still_reads() -> None:
    assert wrong_elements(None, late, batches=100) > 0, "no block was reused: this shows nothing"


def test_no_element_is_wrong_on_the_current_stream() -> None:
    assert wrong_elements(Bridge(), late, batches=10_000) == 0


def test_no_element_is_wrong_in_views_that_outlive_their_tensors() -> None:
    assert wrong_elements(Bridge(), late, batches=2_000, views=5) == 0


def test_no_element_is_wrong_on_a_side_stream_that_is_waited_for() -> None:
    side = torch.cuda.Stream()

    def use(tensor: torch.Tensor, number: int, wrong: torch.Tensor) -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            late(tensor, number, wrong)
        torch.cuda.current_stream().wait_stream(side)

    assert wrong_elements(Bridge(), use, batches=2_000) == 0


def test_no_element_is_wrong_if_a_side_stream_requests_for_the_default_stream() -> None:
    fetching, using = torch.cuda.Stream(), torch.cuda.default_stream()

    def use(tensor: torch.Tensor, number: int, wrong: torch.Tensor) -> None:
        using.wait_stream(fetching)
        with torch.cuda.stream(using):
            late(tensor, number, wrong)

    with torch.cuda.stream(fetching):
        assert wrong_elements(Bridge(), use, batches=2_000) == 0


def wrong_pixels(*, leased: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """Count the pixels that torch reads wrongly in batches that are freed before it reads them."""
    if not leased:
        monkeypatch.setattr(Bridge, "to_torch", lambda _, x: torch.utils.dlpack.from_dlpack(x))
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    with SynthPixDataset(base(**few)) as dataset:
        expected = [batch.images.clone() for batch in dataset.window(0, 200)]
        torch.cuda.synchronize()
        batches = iter(dataset)
        for images in expected:
            torch.cuda._sleep(20 * SLOW)
            wrong += (next(batches).images != images).sum()
    return int(wrong.item())


def test_without_leases_batches_change_while_slow_kernels_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = wrong_pixels(leased=False, monkeypatch=monkeypatch)
    assert wrong > 0, "no block was reused: this shows nothing"


def test_no_batch_of_a_dataset_changes_while_slow_kernels_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert wrong_pixels(leased=True, monkeypatch=monkeypatch) == 0


def test_a_graph_reads_batches_that_are_copied_into_static_memory() -> None:
    def compute(images: torch.Tensor) -> torch.Tensor:
        return (images.double() ** 2).sum()

    with SynthPixDataset(base(**few)) as dataset:
        static = dataset.batch_at(0).images.clone()
        compute(static)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # JAX's own threads may allocate memory, which a capture in the default mode forbids.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = compute(static)
        for batch in dataset:
            static.copy_(batch.images)
            graph.replay()
            assert result.item() == compute(batch.images).item()
            if batch.number == 50:
                break


def test_a_batch_is_refused_during_the_capture_of_a_graph() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = iter(dataset)
        static = next(batches).images.clone()
        next(batches)
        torch.cuda.synchronize()

        def capture(ask: Callable[[], Batch]) -> None:
            with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
                static.mul_(2)
                ask()

        with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
            capture(lambda: next(batches))
        with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
            capture(lambda: dataset.batch_at(7))
        assert dataset.position == 2
        assert next(batches).number == 2


def live_bytes(gpu: jax.Device) -> int:
    return sum(array.nbytes for array in jax.live_arrays() if gpu in array.devices())


@pytest.mark.parametrize("keep", [0, 20])
def test_at_most_two_freed_batches_are_on_the_device(keep: int, gpu: jax.Device) -> None:
    size = {"image_shape": (64, 64), "flow_field_size": (80.0, 80.0), "img_offset": (8.0, 8.0)}
    # One flow batch for all batches: a batch can only wait for torch.
    config = base(**size, batches_per_flow_batch=10**6)
    kept: list[Batch] = []
    with SynthPixDataset(config, ahead=0) as dataset:
        batches = iter(dataset)
        # The first batch loads the flow batch.
        kept.extend(next(batches) for _ in range(1 + keep))
        before = live_bytes(gpu)
        kept.append(next(batches))
        one = live_bytes(gpu) - before
        most = 0
        for _ in range(200):
            torch.cuda._sleep(20 * SLOW)
            batch = next(batches)
            most = max(most, live_bytes(gpu) - before - one)
        assert batch.number == keep + 201
    assert most >= 2 * one, "torch never fell behind: this shows nothing"
    assert most <= (1 + 2) * one
    kept.clear()


def test_close_returns_the_memory_of_freed_batches() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = [batch for batch, _ in zip(dataset, range(20), strict=False)]
        batches.clear()
    torch.cuda.synchronize()
    dataset.close()
    assert dataset.stream.bridge.held == 0


# Streams ---------------------------------------------------------------------------------------


def waits(work: Callable[[], Any], folder: Path) -> Counter[str]:
    """Count the CUDA calls by which the host waits while `work` runs, by name.

    The calls are those of torch in this thread; the profile does not contain those of JAX.
    """
    config = torch._C._profiler._ExperimentalConfig(enable_cuda_sync_events=True)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, experimental_config=config) as profile:
        work()
    path = folder / "trace.json"
    profile.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    calls = Counter(
        event["name"]
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver")
        and event["tid"] == threading.get_native_id()
    )
    # The name of the call that launches a kernel depends on the version of CUDA.
    assert calls.total() >= 100, "the profile has too few calls of CUDA: this shows nothing"
    return Counter({name: count for name, count in calls.items() if "Sync" in name})


@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler")
def test_the_host_never_waits_while_the_device_keeps_up(tmp_path: Path) -> None:
    total = torch.zeros((), device="cuda")
    with SynthPixDataset(base(batches_per_flow_batch=10**6)) as dataset:
        batches = iter(dataset)

        def steps() -> None:
            for _ in range(50):
                total.add_(next(batches).images.sum())
                time.sleep(0.01)

        steps()
        counted = waits(steps, tmp_path)
    # Closing the profile waits once or twice.
    assert counted.total() < 5, counted


def ready(dataset: SynthPixDataset) -> Iterator[Batch]:
    """Begin a pass whose next batches need no new flow batch, on an idle device."""
    batches = iter(dataset)
    for _ in range(3):
        next(batches)
    torch.cuda.synchronize()
    return batches


def test_a_batch_is_delivered_while_torch_is_busy() -> None:
    with SynthPixDataset(base(batches_per_flow_batch=10**6)) as dataset:
        batches = ready(dataset)
        torch.cuda._sleep(500 * SLOW)
        busy = torch.cuda.Event()
        busy.record()
        next(batches)
        assert not busy.query()


def test_batches_are_delivered_while_jax_is_busy(gpu: jax.Device) -> None:
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 100_000, lambda _, y: jnp.sin(y) + 1.0, x))
    x = jax.device_put(jnp.ones(1 << 20), gpu)
    work(x).block_until_ready()
    with SynthPixDataset(base(batches_per_flow_batch=10**6), ahead=1) as dataset:
        batches = ready(dataset)
        busy = work(x)
        # The first batch was dispatched before; the others are queued after the work.
        for _ in range(3):
            next(batches)
        assert not busy.is_ready()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_makes_torch_synchronize() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batches = iter(dataset)
        next(batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                next(batches).images.sum()
        finally:
            torch.cuda.set_sync_debug_mode("default")


# Bits ------------------------------------------------------------------------------------------


def digests(**changes: Any) -> subprocess.Popen[str]:
    """Start a process that prints the digests of 1,000 batches."""
    script = """
import json, sys
from kinds import base, few
from oracle import digest
from synthpix_torch import SynthPixDataset

def on_host(batch):
    params = type(batch.params)(*(p.cpu() for p in batch.params))
    host = {k: v.cpu() for k, v in batch._asdict().items() if hasattr(v, "cpu")}
    # Without the number, which would make equal batches differ.
    return batch._replace(params=params, number=0, **host)

with SynthPixDataset(base(**few, **json.loads(sys.argv[1]))) as dataset:
    batches = iter(dataset)
    print(json.dumps([digest(on_host(next(batches))) for _ in range(1000)]))
"""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    # Each process must compile for itself, else the second would reuse the code of the first.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", script, json.dumps(changes)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=580)
    assert process.returncode == 0
    return list(json.loads(output.splitlines()[-1]))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheduler", ["kinematic", "kinematic-device"])
def test_two_processes_make_the_same_bits(scheduler: str) -> None:
    first = finished(digests(scheduler_class=scheduler))
    assert first == finished(digests(scheduler_class=scheduler))
    assert len(set(first)) == 1000


@pytest.fixture
def another_job() -> Iterator[None]:
    script = """
import torch
a = torch.randn(4096, 4096, device="cuda")
def work():
    global a
    a = torch.nn.functional.normalize(a @ a)
    torch.cuda.synchronize()
work()
print("busy", flush=True)
while True:
    work()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        yield
        process.kill()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheduler", ["kinematic", "kinematic-device"])
def test_another_job_on_the_gpu_changes_no_bit(
    scheduler: str, request: pytest.FixtureRequest
) -> None:
    alone = finished(digests(scheduler_class=scheduler))
    request.getfixturevalue("another_job")
    assert finished(digests(scheduler_class=scheduler)) == alone


def test_a_gpu_and_a_cpu_differ_only_in_rounding() -> None:
    config = base(**few)
    with SynthPixDataset(config) as here, SynthPixDataset(config, device="cpu") as there:
        on_gpu, on_cpu = here.batch_at(3), there.batch_at(3)
    for name in ("keys", "seeds", "epoch", "mask"):
        assert getattr(on_gpu, name).cpu().equal(getattr(on_cpu, name)), name
    assert on_gpu.files == on_cpu.files
    torch.testing.assert_close(on_gpu.flow_fields.cpu(), on_cpu.flow_fields, rtol=0, atol=1e-4)
    torch.testing.assert_close(on_gpu.images.cpu(), on_cpu.images, rtol=0, atol=0.1)


# One process, one device -----------------------------------------------------------------------


def test_batches_are_made_on_the_gpu_that_torch_uses() -> None:
    with SynthPixDataset(base(**few)) as dataset:
        batch = dataset.batch_at(0)
    assert dataset.device == torch.device("cuda", torch.cuda.current_device())
    assert batch.images.device == batch.flow_fields.device == dataset.device


def fresh(script: str, **environment: str) -> Any:
    """Return the JSON that a script prints in a process where JAX is not configured."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_jax_does_not_preallocate_gpu_memory() -> None:
    share = fresh(
        """
import json, torch
from kinds import base
from synthpix_torch import SynthPixDataset
free, total = torch.cuda.mem_get_info()
next(iter(SynthPixDataset(base())))
torch.cuda.synchronize()
print(json.dumps((free - torch.cuda.mem_get_info()[0]) / total))
"""
    )
    # By default JAX preallocates three quarters. Contexts and libraries take less than 2 GiB.
    assert share < 0.1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_dataset_on_the_second_gpu_does_not_touch_the_first() -> None:
    found = fresh(
        """
import json, torch, jax
from kinds import base
from synthpix_torch import SynthPixDataset
torch.cuda.set_device(1)
before = torch.cuda.mem_get_info(0)[0]
batch = next(iter(SynthPixDataset(base(), device="cuda:1")))
torch.cuda.synchronize()
taken = before - torch.cuda.mem_get_info(0)[0]
print(json.dumps([str(batch.images.device), len(jax.devices("cuda")), taken]))
"""
    )
    assert found[:2] == ["cuda:1", 1]
    assert found[2] < 2**20
