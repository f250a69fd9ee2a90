"""Benchmarks have --help and write where they are told; those of GPUs run on a CPU, too."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).parent.parent
TINY = ["--sizes", "16", "--batch-sizes", "2", "--rounds", "2"]
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text()
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_a_benchmark_and_runs_nothing(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(report, "write", lambda *_, **__: pytest.fail("The benchmark has run."))
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith("usage:")
    assert f"python -m benchmarks.{name}" in page


def test_a_page_is_written_only_to_the_given_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report.command_line("").parse_args([]).output is None
    given = report.command_line("").parse_args(["--output", str(tmp_path / "new")]).output
    monkeypatch.chdir(tmp_path)
    report.write("speed", "Speed", "fast", folder=None)
    assert list(tmp_path.iterdir()) == []
    report.write("speed", "Speed", "fast", folder=given)
    (page,) = given.iterdir()
    assert page.name.endswith("-speed.md")
    assert capsys.readouterr().out == 2 * f"{page.read_text()}\n"


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
def test_gpu_trace_records_a_trace(tmp_path: Path) -> None:
    tiny = ("--size", "16", "--batch-size", "2")
    assert "no streams to draw" in output("gpu_trace", str(tmp_path / "trace.png"), *tiny)


@pytest.mark.long
def test_gpu_bits_compares_equal_batches_as_equal(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("here.npz", "there.npz")]
    for path in paths:
        output("gpu_bits", "make", path, "--batches", "3", "--kept", "2", "--size", "16")
    assert output("gpu_bits", "compare", *paths).count("3 of 3 batches have the same bits") == 2
