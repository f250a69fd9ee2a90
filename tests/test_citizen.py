"""The package keeps quiet, starts nothing of its own and leaves nothing behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kinds import KINDS, base

from synthpix_torch import SynthPixDataset

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


class Reading:
    """The threads that read and did not before, for other tests may have left datasets open."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def goes_on(self) -> bool:
        threads = set(threading.enumerate()) - self._before
        return any(thread.name.startswith("grain-prefetch") for thread in threads)

    def ends(self) -> bool:
        for _ in range(100):
            if not self.goes_on():
                return True
            time.sleep(0.05)
        return False


@pytest.mark.parametrize("kind", ["kinematic", "npy, repeated", "finite real"])
def test_close_leaves_no_thread(kind: str, data: Path) -> None:
    reading = Reading()
    dataset = SynthPixDataset(KINDS[kind](data))
    next(iter(dataset))
    dataset.batch_at(1)
    assert reading.goes_on()
    dataset.close()
    assert reading.ends()
    assert next(iter(dataset)).number == 1
    dataset.close()
    assert reading.ends()


def test_a_dataset_that_is_forgotten_leaves_no_thread() -> None:
    reading = Reading()
    next(iter(SynthPixDataset(base())))
    gc.collect()
    assert reading.ends()


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
