"""Test each Python with the lowest, the developers' and the newest dependencies: make versions.

Installs a wheel of the package and its dependencies into a new environment, runs `TESTS` there,
deletes the environment, and writes a row of the table in docs/install.md. Rows of environments that
are not run again remain. Takes minutes and some gigabytes per environment.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "install.md"
BEGIN, END = "<!-- begin: make versions -->\n", "<!-- end: make versions -->\n"
HEAD = ["Python", "dependencies", "jax", "torch", "numpy", "scipy", "grain", "orbax", "lightning"]
PACKAGES = [*HEAD[2:7], "orbax-checkpoint", "lightning"]

LOWEST, DEVELOPERS, NEWEST = "lowest", "constraints.txt, jax 0.10.2", "newest"
LOWEST_PYTHON = "3.11"
"""The lowest versions have wheels for this Python alone."""

SAME_AS_SYNTHPIX = "test_batches_are_those_of_synthpix_in_any_order_and_across_an_epoch"
TESTS = (
    *(f"{name}.py" for name in ("device", "npy", "recipes", "state", "upstream", "versions")),
    f"bits.py::{SAME_AS_SYNTHPIX}[mat, repeated]",
    f"bits.py::{SAME_AS_SYNTHPIX}[units, resolution and offsets]",
    "bits.py::test_our_own_renderer_uses_the_records_of_synthpix_in_its_order[kinematic]",
    "orbax.py::test_a_run_of_synthpix_goes_on_exactly[h5 files]",
    "orbax.py::test_save_checkpoint_and_load_from_are_as_short_as_those_of_synthpix",
    "orbax.py::test_state_and_composite_are_two_forms_of_one_state",
    "orbax.py::test_synthpix_itself_cannot_restore_what_it_saved",
)
"""Tests that use JAX, torch, Grain, Orbax, NumPy, SciPy and Lightning most."""

TOOLS = ("beartype", "hypothesis", "psutil", "pytest", "pytest-timeout", "torchdata")


def requirements() -> list[str]:
    """Return the dependencies of the package, of its extra `lightning` included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["lightning"]]


def lowest() -> list[str]:
    """Return the least version of each dependency as a requirement."""
    return [re.sub(r"^([\w.-]+)>=([\w.]+).*$", r"\1==\2", line) for line in requirements()]


def dependencies(kind: str) -> list[str]:
    """Return what one kind of environment pins."""
    if kind == LOWEST:
        return lowest()
    if kind == DEVELOPERS:
        return ["--constraint", str(ROOT / "constraints.txt"), "jax==0.10.2"]
    return []


def build_wheel(python: str, folder: Path) -> Path:
    """Build the wheel of the package in a folder, from a copy without files of earlier builds."""
    source = folder / "source"
    shutil.copytree(ROOT / "synthpix_torch", source / "synthpix_torch")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = folder.glob("synthpix_torch-*.whl")
    return wheel


def python_version(python: str) -> str:
    """Return the feature version of an interpreter, such as 3.12."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [python, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def check(python: str, kind: str, wheel: Path, folder: Path, *, whole: bool) -> list[str]:
    """Install and test one environment, and return its cells of the table."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = str(folder / "bin" / "python")
    install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, f"{wheel}[lightning]", *TOOLS, *dependencies(kind)])
    if done.returncode:
        return ["" for _ in PACKAGES] + ["cannot be installed"]
    code = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    found = subprocess.run([inside, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    files = ["tests"] if whole else [f"tests/test_{name}" for name in TESTS]
    command = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *files]
    # Nothing of a user's own site, and no GPU.
    environment = os.environ | {"PYTHONNOUSERSITE": "1", "JAX_PLATFORMS": "cpu"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
    summary = line.strip()
    counts = re.findall(r"\d+ (?:passed|failed|errors?)", summary)
    return [*found.stdout.split(), ", ".join(counts) or summary]


def table_rows(page: str) -> dict[tuple[str, str], list[str]]:
    """Read the rows of the table in the page by Python and kind."""
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {(row[0], row[1]): row for row in cells[2:]}


def with_row(page: str, row: list[str]) -> str:
    """Replace or add one row of the table in the page."""
    before, _, rest = page.partition(BEGIN)
    rows = table_rows(page) | {(row[0], row[1]): row}
    head = [*HEAD, "tests", "date"]
    lines = [head, ["---"] * len(head), *(rows[key] for key in sorted(rows))]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return before + BEGIN + table + END + rest.partition(END)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="+", help="interpreters, such as python3.12")
    parser.add_argument("--only", choices=["lowest", "developers", "newest"], help="one kind")
    parser.add_argument("--whole", action="store_true", help="run all tests")
    options = parser.parse_args()
    kinds = {"lowest": LOWEST, "developers": DEVELOPERS, "newest": NEWEST}
    chosen = [kinds[options.only]] if options.only else list(kinds.values())
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for python in options.pythons:
            if shutil.which(python) is None:
                sys.exit(f"There is no interpreter {python}: name others with PYTHONS.")
        wheel = build_wheel(options.pythons[0], Path(temporary))
        for python in options.pythons:
            version = python_version(python)
            for kind in chosen:
                if kind == LOWEST and version != LOWEST_PYTHON:
                    continue
                folder = Path(temporary) / "environment"
                cells = check(python, kind, wheel, folder, whole=options.whole)
                shutil.rmtree(folder)
                row = [version, kind, *cells, date.today().isoformat()]
                print(" | ".join(row), flush=True)
                PAGE.write_text(with_row(PAGE.read_text(), row))
                failed |= re.fullmatch(r"\d+ passed", cells[-1]) is None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
