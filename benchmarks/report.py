"""Measure contestants interleaved; report the results with the machine and the versions."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from synthpix_torch.interop.versions import version_of

PACKAGES = ("synthpix_torch", "synthpix", "jax", "jaxlib", "torch", "grain", "orbax-checkpoint")


def interleaved(
    contestants: Mapping[str, Callable[[], float]], *, rounds: int
) -> dict[str, list[float]]:
    """Let the contestants take turns, so that a disturbance of the machine affects all of them.

    Args:
        contestants: Each runs one round and returns its time in seconds.
        rounds: Rounds of each contestant, after one that is discarded.

    Returns:
        The times of each contestant in seconds.
    """
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            seconds = contestant()
            if turn:
                measured[name].append(seconds)
    return measured


def spread(seconds: Sequence[float], *, unit: float = 1e-3) -> str:
    """Format median and quartiles in a unit (default: milliseconds)."""
    low, middle, high = (value / unit for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the ratio of the medians."""
    return statistics.median(slow) / statistics.median(fast)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Create the parser of a benchmark with the option that all share, `--output`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write the dated page of results to this folder; default: only print it",
    )
    return parser


def write(name: str, title: str, body: str, *, folder: Path | None) -> None:
    """Print a page of results, and write it to a folder if one is given."""
    module = Path(sys.argv[0]).stem
    command = " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]])
    versions = ", ".join(f"{package} {version_of(package)}" for package in PACKAGES)
    page = f"""# {title}

{date.today().isoformat()}, `{command}`

{machine()}; Python {platform.python_version()}, {versions}.

{body}
"""
    print(page)
    if folder is not None:
        folder.mkdir(exist_ok=True, parents=True)
        (folder / f"{date.today().isoformat()}-{name}.md").write_text(page)


def machine() -> str:
    """Return processor, cores and accelerator of this machine."""
    import torch

    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {gpu}"
