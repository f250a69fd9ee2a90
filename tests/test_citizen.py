"""The package keeps quiet, starts nothing of its own and leaves nothing behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import torch
from kinds import KINDS, base

from synthpix_torch import SynthPixDataset, device

HERE = Path(__file__).parent


def run(script: str, tmp_path: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own that has `base` and an empty temporary folder."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(HERE)}
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.run(
        [sys.executable, path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **changes,
    )


def test_building_and_using_a_dataset_prints_starts_and_opens_nothing(tmp_path: Path) -> None:
    done = run(
        """
        import os, sys
        import synthpix
        # synthpix's logger imports it; nothing else may.
        theirs = "matplotlib" in sys.modules
        import synthpix_torch
        from kinds import base

        heavy = {"lightning", "torchdata", "accelerate", "transformers", "openpiv"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
        assert ("matplotlib" in sys.modules) == theirs
        with synthpix_torch.SynthPixDataset(base()) as dataset:
            batches = iter(dataset)
            for _ in range(3):
                next(batches)
            children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read()
            assert children == "", children
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                     if os.path.islink(f"/proc/self/fd/{fd}")]
            assert not [link for link in links if link.startswith("socket:")], links
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
    assert list((tmp_path / "tmp").iterdir()) == []


def reading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


def wait_for_no_reading_threads() -> bool:
    for _ in range(100):
        if not reading_threads():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kind", ["kinematic", "npy, repeated", "finite real"])
def test_close_leaves_no_thread(kind: str, data: Path) -> None:
    dataset = SynthPixDataset(KINDS[kind](data))
    next(iter(dataset))
    dataset.batch_at(1)
    assert reading_threads()
    dataset.close()
    assert wait_for_no_reading_threads()
    assert next(iter(dataset)).number == 1
    dataset.close()
    assert wait_for_no_reading_threads()


def test_a_dataset_that_is_forgotten_leaves_no_thread() -> None:
    next(iter(SynthPixDataset(base())))
    gc.collect()
    assert wait_for_no_reading_threads()


def test_ctrl_c_ends_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    script = "from synthpix_torch import SynthPixDataset\nfrom kinds import base\n"
    script += "for batch in SynthPixDataset(base()):\n    print(batch.number, flush=True)\n"
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(HERE)}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "5":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (130, -signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_refused_with_the_way_out(method: str, tmp_path: Path) -> None:
    done = run(
        f"""
        from torch.utils.data import DataLoader
        from synthpix_torch import SynthPixDataset
        from kinds import base

        if __name__ == "__main__":
            dataset = SynthPixDataset(base())
            if {method!r} == "spawn":
                next(iter(dataset))
                dataset.close()
            loader = DataLoader(
                dataset, batch_size=None, num_workers=1, multiprocessing_context={method!r}
            )
            try:
                next(iter(loader))
            except RuntimeError as error:
                assert "num_workers=0" in str(error), error
                print("refused")
        """,
        tmp_path,
        timeout=120,
    )
    assert done.stdout == "refused\n", done.stderr


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine where torch sees two GPUs and JAX has not started."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    not_started = SimpleNamespace(backends_are_initialized=lambda: False)
    monkeypatch.setattr(device, "xla_bridge", not_started)
    for name in (*device.MEMORY_SETTINGS, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    settings: dict[str, str] = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    return settings


def test_jax_takes_memory_as_needed_and_opens_one_gpu(
    gpu: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.warns(UserWarning, match=r"install synthpix_torch\[cuda13\]"):
        chosen = device.choose_device()
    assert chosen.platform == "cpu"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert gpu == {"jax_cuda_visible_devices": "1"}


def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu(gpu: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match=r"JAX has no CUDA: install synthpix_torch\[cuda13\]"):
        device.choose_device("cuda:1")


def test_what_the_user_set_for_memory_stays(
    gpu: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.3")
    with pytest.warns(UserWarning, match="install"):
        device.choose_device()
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ


def test_a_gpu_that_jax_has_filled_already_is_a_warning(
    gpu: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(
        backends_are_initialized=lambda: True, backends=lambda: {"cpu": 0, "cuda": 0}
    )
    monkeypatch.setattr(device, "xla_bridge", started)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device.choose_device()
    assert "JAX has started and taken most of the GPU's memory" in str(caught[0].message)
    assert gpu == {}


def test_a_gpu_that_is_not_there_is_refused(gpu: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="There is no GPU 5, torch sees 2"):
        device.choose_device("cuda:5")
