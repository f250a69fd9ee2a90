"""JAX and torch share one device; it is chosen before JAX starts."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import pytest
import torch

from synthpix_torch.interop import device
from synthpix_torch.interop.versions import Installed

HERE = Path(__file__).parent
NO_PLUGIN = Installed(jaxlib="0.11.1", jax_cuda=(), torch_cuda=13, cudnn=())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Simulate a torch that sees two GPUs and a JAX that has not started; return JAX's settings."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(device, "installed", lambda: NO_PLUGIN)
    not_started = SimpleNamespace(backends_are_initialized=lambda: False)
    monkeypatch.setattr(device, "xla_bridge", not_started)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "to be undone")
    for name in (*device.MEMORY_SETTINGS, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    platforms = jax.config.values["jax_platforms"]
    set_platforms(None)
    settings: dict[str, str] = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    yield settings
    set_platforms(platforms)


def set_platforms(names: str | None) -> None:
    """Set jax_platforms, even where `jax.config.update` is replaced."""
    type(jax.config).update(jax.config, "jax_platforms", names)


@pytest.fixture
def gpus(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Simulate a JAX that opens the GPUs that its settings make visible."""
    cpu: list[jax.Device] = jax.local_devices(backend="cpu")

    def devices(backend: str) -> list[jax.Device]:
        if backend == "cpu":
            return cpu
        visible = settings.get("jax_cuda_visible_devices", "0,1")
        numbers = [int(number) for number in visible.split(",")]
        return [Mock(jax.Device, local_hardware_id=n, platform="gpu") for n in numbers]

    monkeypatch.setattr(jax, "local_devices", devices)
    return settings


def torch_uses(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: number)


def test_jax_opens_only_the_requested_gpu(gpus: dict[str, str]) -> None:
    chosen = device.choose_device("cuda:1")
    assert (chosen.platform, chosen.local_hardware_id) == ("gpu", 1)
    assert gpus == {"jax_cuda_visible_devices": "1"}
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_the_default_is_the_gpu_that_torch_uses(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_uses(monkeypatch, 1)
    assert device.choose_device().local_hardware_id == 1


def test_under_torchrun_each_rank_uses_the_gpu_of_its_local_rank(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.choose_device().local_hardware_id == 1


def test_choosing_the_default_does_not_initialize_cuda_in_torch(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", Mock(side_effect=AssertionError))
    assert device.choose_device().local_hardware_id == 0


def test_device_ids_choose_a_gpu(gpus: dict[str, str]) -> None:
    assert device.choose_device(None, (1,)).local_hardware_id == 1


def test_a_gpu_that_does_not_exist_is_refused(gpus: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="There is no GPU 5: torch sees 2"):
        device.choose_device("cuda:5")


def test_a_gpu_that_jax_did_not_open_is_refused(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    only_first = Mock(jax.Device, local_hardware_id=0, platform="gpu")
    monkeypatch.setattr(jax, "local_devices", lambda backend: [only_first])
    with pytest.raises(ValueError, match="JAX has started without GPU 1: build the dataset before"):
        device.choose_device("cuda:1")


def test_only_devices_of_this_process_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = jax.local_devices(backend="cpu")
    monkeypatch.setattr(jax, "devices", lambda _: [Mock(jax.Device, process_index=0), *mine])
    assert device.choose_device("cpu") is mine[0]


def test_device_cpu_keeps_jax_from_preallocating_gpu_memory(gpus: dict[str, str]) -> None:
    assert device.choose_device("cpu").platform == "cpu"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert gpus == {"jax_cuda_visible_devices": "0"}


@pytest.mark.parametrize("name", device.MEMORY_SETTINGS)
def test_memory_settings_of_the_user_are_kept(
    name: str, gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "0.3")
    device.choose_device()
    assert {os.environ.get(other) for other in device.MEMORY_SETTINGS} == {"0.3", None}


def test_jax_cuda_visible_devices_of_the_user_is_kept(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = jax.config._value_holders["jax_cuda_visible_devices"]
    monkeypatch.setattr(holder, "value", "0,1")
    device.choose_device("cuda:1")
    assert gpus == {}


def test_without_a_plugin_one_warning_names_the_extra(settings: dict[str, str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = device.choose_device()
    assert chosen.platform == "cpu"
    (only,) = caught
    assert "install synthpix_torch[cuda13], as torch has CUDA 13" in str(only.message)


def test_the_warning_names_the_extra_for_the_cuda_of_torch(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "installed", lambda: NO_PLUGIN._replace(torch_cuda=12))
    with pytest.warns(UserWarning, match=r"install synthpix_torch\[cuda12\], as torch has CUDA 12"):
        device.choose_device()


def test_a_requested_gpu_is_never_replaced_by_the_cpu(settings: dict[str, str]) -> None:
    with pytest.raises(
        RuntimeError, match=r"JAX has no CUDA plugin: install synthpix_torch\[cuda13\]"
    ):
        device.choose_device("cuda:1")


def test_the_error_of_a_broken_plugin_is_shown(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "installed", lambda: NO_PLUGIN._replace(jax_cuda=(13,)))
    error = RuntimeError("the driver is too old")
    monkeypatch.setattr(jax, "local_devices", Mock(side_effect=error))
    with pytest.raises(RuntimeError, match=r"does not start \(the driver is too old\)"):
        device.choose_device("cuda")


@pytest.fixture
def kept_off_the_gpu(settings: dict[str, str]) -> None:
    set_platforms("cpu")


def test_jax_platforms_cpu_chooses_the_cpu_without_a_warning(kept_off_the_gpu: None) -> None:
    assert device.choose_device().platform == "cpu"


def test_a_requested_gpu_and_jax_platforms_cpu_are_refused(kept_off_the_gpu: None) -> None:
    with pytest.raises(RuntimeError, match="JAX_PLATFORMS=cpu prevents JAX from using the GPU"):
        device.choose_device("cuda")


def test_preallocated_gpu_memory_is_a_warning(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(
        backends_are_initialized=lambda: True, backends=lambda: {"cpu": 0, "cuda": 0}
    )
    monkeypatch.setattr(device, "xla_bridge", started)
    with pytest.warns(UserWarning, match="JAX has already started and preallocated most"):
        device.choose_device()
    assert gpus == {}


def test_building_a_dataset_configures_jax_before_jax_starts() -> None:
    # The settings are written only if JAX has not started, so their values prove the order.
    script = """
import os
import torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
from kinds import base
from synthpix_torch import SynthPixDataset
SynthPixDataset(base(), device="cpu")
import jax
print(os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"], jax.config.values["jax_cuda_visible_devices"])
"""
    unset = {key: value for key, value in os.environ.items() if key not in device.MEMORY_SETTINGS}
    environment = unset | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "LOCAL_RANK": "1"}
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    assert printed.split() == [b"false", b"1"]
