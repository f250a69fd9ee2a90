"""The GPU benchmarks also run on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = ["--sizes", "16", "--batch-sizes", "2", "--rounds", "2", "--print"]


def output(module: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.long
def test_gpu_measures_pairs_per_second() -> None:
    assert "| 16 | 2 |" in output("gpu", *TINY)


@pytest.mark.long
def test_gpu_memory_measures_working_sets() -> None:
    assert "| 16 | 2 | 1 |" in output("gpu_memory", *TINY, "--bounds", "1", "2")


@pytest.mark.long
def test_gpu_trace_records_a_trace() -> None:
    assert "no streams to draw" in output("gpu_trace", "--size", "16", "--batch-size", "2")


@pytest.mark.long
def test_gpu_bits_compares_equal_batches_as_equal(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("here.npz", "there.npz")]
    for path in paths:
        output("gpu_bits", "make", path, "--batches", "3", "--kept", "2", "--size", "16")
    assert output("gpu_bits", "compare", *paths).count("3 of 3 batches have the same bits") == 2
