"""The package prints nothing, starts no process and leaves no thread or file behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import KINDS, base, write_npy

from synthpix_torch import SynthPixDataset

HERE = Path(__file__).parent
IMPORTABLE = os.pathsep.join([str(HERE), str(HERE.parent)])


def run(script: str, tmp_path: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process, with the tests importable and an empty temporary folder."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": IMPORTABLE}
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


def test_a_dataset_prints_nothing_starts_no_process_and_opens_no_socket(tmp_path: Path) -> None:
    done = run(
        """
        import os, sys
        import synthpix
        # synthpix's logger imports matplotlib; nothing else may.
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
    """Watch the reading threads that start from now on; other tests may have left some running."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def active(self) -> bool:
        threads = set(threading.enumerate()) - self._before
        return any(thread.name.startswith("grain-prefetch") for thread in threads)

    def ends(self) -> bool:
        for _ in range(100):
            if not self.active():
                return True
            time.sleep(0.05)
        return False


@pytest.mark.parametrize("kind", ["kinematic", "npy, repeated", "finite real"])
def test_close_leaves_no_thread(kind: str, data: Path) -> None:
    reading = Reading()
    dataset = SynthPixDataset(KINDS[kind](data))
    next(iter(dataset))
    dataset.batch_at(1)
    assert reading.active()
    dataset.close()
    assert reading.ends()
    assert next(iter(dataset)).number == 1
    dataset.close()
    assert reading.ends()


def test_a_deleted_dataset_is_freed_at_once_and_leaves_no_thread() -> None:
    reading = Reading()
    dataset = SynthPixDataset(base())
    list(islice(dataset, 3))
    deleted = weakref.ref(dataset)
    gc.disable()
    try:
        del dataset
        assert deleted() is None
        assert reading.ends()
    finally:
        gc.enable()


def test_close_stops_the_windows_of_a_dataset() -> None:
    reading = Reading()
    with SynthPixDataset(base()) as dataset:
        batches = iter(dataset.window(0, 8))
        next(batches)
        assert reading.active()
    assert reading.ends()
    with pytest.raises(RuntimeError, match="closed under way: begin a new iteration"):
        next(batches)


def test_abandoned_iterations_leave_no_thread(tmp_path: Path) -> None:
    reading = Reading()
    folder = write_npy(tmp_path, 8)
    np.save(folder / "flow_6.npy", np.zeros(3))
    config = base(scheduler_class=".npy", file_list=str(folder), randomize=False, batch_size=2)
    with SynthPixDataset(config | {"flow_fields_per_batch": 2}) as dataset:
        for _ in dataset.window(0, 2):
            pass
        assert reading.ends()
        list(islice(dataset, 2))
        dataset.seek(3)
        with pytest.raises(ValueError, match="flow_6"):
            next(iter(dataset))
        assert reading.ends()
        dataset.seek(0)
        next(iter(dataset))
        before = threading.active_count()
        for position in (2, 1, 0):
            dataset.seek(position)
            next(iter(dataset))
        for _ in range(100):
            # A stopped thread may take a moment to end.
            if threading.active_count() > before:
                time.sleep(0.05)
        assert threading.active_count() <= before


def test_ctrl_c_ends_the_process_and_leaves_no_child_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    script = "from synthpix_torch import SynthPixDataset\nfrom kinds import base\n"
    script += "for batch in SynthPixDataset(base()):\n    print(batch.number, flush=True)\n"
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": IMPORTABLE}
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
def test_dataloader_workers_are_refused_and_the_error_says_num_workers_0(
    method: str, tmp_path: Path
) -> None:
    done = run(
        f"""
        from torch.utils.data import DataLoader
        from synthpix_torch import SynthPixDataset
        from counting import Looks
        from kinds import base

        if __name__ == "__main__":
            dataset = SynthPixDataset(base())
            if {method!r} == "spawn":
                next(iter(dataset))
                dataset.close()
            wrapped = dataset.window(0, 4), Looks(dataset)
            # A spawned worker takes seconds to start.
            for data in (dataset, *(wrapped if {method!r} == "fork" else ())):
                loader = DataLoader(
                    data, batch_size=None, num_workers=1, multiprocessing_context={method!r}
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
    assert done.stdout == "refused\n" * (3 if method == "fork" else 1), done.stderr


def test_the_end_of_a_program_drops_queued_reads_and_ends_daemon_threads_silently(
    tmp_path: Path,
) -> None:
    done = run(
        """
        import os, threading, time
        import numpy as np
        from synthpix_torch import SynthPixDataset
        from kinds import base

        class Slow:
            def __len__(self):
                return 1000

            def __getitem__(self, index):
                os.write(1, b".")
                time.sleep(0.1)
                return np.zeros((24, 24, 2), np.float32)

        config = base(num_threads=1, buffer_size=200)
        del config["scheduler_class"]
        dataset = SynthPixDataset(config, source=Slow())
        enough = threading.Event()

        def iterate():
            for batch in dataset:
                if batch.number == 2:
                    enough.set()

        threading.Thread(target=iterate, daemon=True).start()
        enough.wait()
        os.write(1, b"end")
        """,
        tmp_path,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, reads = done.stdout.split("end")
    # Those under way, not the 200 that are queued.
    assert len(reads) < 50
