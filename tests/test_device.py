"""JAX and torch share one device, which is settled before JAX starts."""

import json
import os
import subprocess
import sys
import textwrap
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

NO_PLUGIN = Installed(jaxlib="0.11.1", jax_cuda=(), torch_cuda=13, cudnn=())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What is set for JAX on a machine where torch sees two GPUs and JAX has not started."""
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
    """What JAX_PLATFORMS does, also where `jax.config.update` has been replaced."""
    type(jax.config).update(jax.config, "jax_platforms", names)


@pytest.fixture
def gpus(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same with a JAX that opens the GPUs that it was told to open."""
    cpu = jax.devices("cpu")

    def devices(platform: str) -> list[jax.Device]:
        if platform == "cpu":
            return cpu
        visible = settings.get("jax_cuda_visible_devices", "0,1")
        numbers = [int(number) for number in visible.split(",")]
        return [Mock(jax.Device, local_hardware_id=n, platform="gpu") for n in numbers]

    monkeypatch.setattr(jax, "devices", devices)
    return settings


def torch_uses(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: number)


def test_the_gpu_that_was_asked_for_is_the_only_one_that_jax_opens(gpus: dict[str, str]) -> None:
    chosen = device.choose_device("cuda:1")
    assert (chosen.platform, chosen.local_hardware_id) == ("gpu", 1)
    assert gpus == {"jax_cuda_visible_devices": "1"}
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_the_gpu_that_torch_uses_is_the_default(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_uses(monkeypatch, 1)
    assert device.choose_device().local_hardware_id == 1


def test_under_torchrun_each_rank_takes_its_own(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.choose_device().local_hardware_id == 1


def test_the_default_starts_nothing_of_torch(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", Mock(side_effect=AssertionError))
    assert device.choose_device().local_hardware_id == 0


def test_device_ids_name_a_gpu(gpus: dict[str, str]) -> None:
    assert device.choose_device(None, (1,)).local_hardware_id == 1


def test_a_gpu_that_is_not_there_is_refused(gpus: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="There is no GPU 5, torch sees 2"):
        device.choose_device("cuda:5")


def test_a_gpu_that_jax_did_not_open_is_refused(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    only_first = Mock(jax.Device, local_hardware_id=0, platform="gpu")
    monkeypatch.setattr(jax, "devices", lambda _: [only_first])
    with pytest.raises(ValueError, match="JAX has started without GPU 1: build the dataset before"):
        device.choose_device("cuda:1")


def test_asking_for_the_cpu_leaves_the_gpu_to_torch(gpus: dict[str, str]) -> None:
    assert device.choose_device("cpu").platform == "cpu"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert gpus == {"jax_cuda_visible_devices": "0"}


@pytest.mark.parametrize("name", device.MEMORY_SETTINGS)
def test_what_the_user_set_for_memory_stays(
    name: str, gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "0.3")
    device.choose_device()
    assert {os.environ.get(other) for other in device.MEMORY_SETTINGS} == {"0.3", None}


def test_which_gpus_the_user_let_jax_see_stays(
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


def test_the_extra_is_that_of_torchs_cuda(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "installed", lambda: NO_PLUGIN._replace(torch_cuda=12))
    with pytest.warns(UserWarning, match=r"install synthpix_torch\[cuda12\], as torch has CUDA 12"):
        device.choose_device()


def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu(settings: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match=r"JAX has no CUDA: install synthpix_torch\[cuda13\]"):
        device.choose_device("cuda:1")


def test_a_plugin_that_does_not_start_shows_its_own_error(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "installed", lambda: NO_PLUGIN._replace(jax_cuda=(13,)))
    error = RuntimeError("the driver is too old")
    monkeypatch.setattr(jax, "devices", Mock(side_effect=error))
    with pytest.raises(RuntimeError, match=r"does not start \(the driver is too old\)"):
        device.choose_device("cuda")


@pytest.fixture
def kept_off_the_gpu(settings: dict[str, str]) -> None:
    set_platforms("cpu")


def test_jax_platforms_keeps_batches_on_the_cpu_without_a_word(kept_off_the_gpu: None) -> None:
    assert device.choose_device().platform == "cpu"


def test_jax_platforms_is_named_when_a_gpu_was_asked_for(kept_off_the_gpu: None) -> None:
    with pytest.raises(RuntimeError, match="JAX_PLATFORMS=cpu keeps JAX off the GPU"):
        device.choose_device("cuda")


def test_a_gpu_that_jax_has_filled_already_is_a_warning(
    gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(
        backends_are_initialized=lambda: True, backends=lambda: {"cpu": 0, "cuda": 0}
    )
    monkeypatch.setattr(device, "xla_bridge", started)
    with pytest.warns(UserWarning, match="JAX has started and taken most of the GPU's memory"):
        device.choose_device()
    assert gpus == {}


def test_jax_starts_after_the_settings_and_with_them(tmp_path: Path) -> None:
    script = """
    import json
    from kinds import base
    import torch
    import synthpix_torch
    from synthpix_torch import dataset
    from synthpix_torch.interop import device
    from jax._src import xla_bridge
    from jaxlib import xla_client

    settings = {}
    choose = dataset.choose_device

    def watched(*arguments):
        settings["started before"] = xla_bridge.backends_are_initialized()
        torch.cuda.is_available = lambda: True
        torch.cuda.device_count = lambda: 2
        chosen = choose("cpu")
        torch.cuda.is_available = lambda: False
        settings.update(xla_client.generate_pjrt_gpu_plugin_options())
        settings["visible"] = xla_bridge.CUDA_VISIBLE_DEVICES.value
        return chosen

    dataset.choose_device = watched
    synthpix_torch.SynthPixDataset(base())
    print(json.dumps(settings))
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *path()])
    }
    environment = {k: v for k, v in environment.items() if k not in device.MEMORY_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment | {"LOCAL_RANK": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    settings = json.loads(done.stdout)
    assert not settings["started before"]
    assert settings["preallocate"] is False
    assert settings["visible"] == "1"


def path() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
