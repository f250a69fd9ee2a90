"""Wheel and sdist work without the repository, and in the environments of docs/install.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import environments
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BUILD = """
import json, os, sys, tarfile
from pathlib import Path
from setuptools import build_meta
out = Path(sys.argv[1])
sdist = build_meta.build_sdist(out)
with tarfile.open(out / sdist) as archive:
    archive.extractall(out, filter="data")
os.chdir(out / sdist.removesuffix(".tar.gz"))
wheel = build_meta.build_wheel(out)
(out / "built.json").write_text(json.dumps([sdist, wheel]))
"""

CONSUMER = """
from typing import assert_type

import torch
from synthpix_torch import Batch, SynthPixDataset


def train(dataset: SynthPixDataset) -> None:
    for batch in dataset:
        assert_type(batch, Batch)
        assert_type(batch.images, torch.Tensor)
    dataset.load_state_dict(dataset.state_dict())
    dataset.batch_at("three")
"""
"""Correct but for the last line."""

SMOKE = """
import json, sys
from pathlib import Path
import synthpix_torch
assert Path(sys.argv[1]) in Path(synthpix_torch.__file__).parents, synthpix_torch.__file__
config = json.loads(sys.argv[2])
with synthpix_torch.SynthPixDataset(config) as dataset:
    batch = next(iter(dataset))
    print(list(batch.images.shape), dataset.position)
"""


class Built(NamedTuple):
    """The files that were built, the wheel from the sdist."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("setuptools", "77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    shutil.copytree(
        ROOT / "synthpix_torch",
        source / "synthpix_torch",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD, str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    sdist, wheel = json.loads((out / "built.json").read_text())
    return Built(out / sdist, out / wheel)


def test_the_wheel_holds_the_package_with_its_types_and_license(built: Built) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "synthpix_torch").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "synthpix_torch/py.typed" in files
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == files
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_version_comes_from_pyproject_alone(built: Built) -> None:
    version = PROJECT["version"]
    assert built.wheel.name == f"synthpix_torch-{version}-py3-none-any.whl"
    assert built.sdist.name == f"synthpix_torch-{version}.tar.gz"
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = archive.read(f"synthpix_torch-{version}.dist-info/METADATA").decode()
    assert f"\nVersion: {version}\n" in metadata
    sources = [path.read_text() for path in (ROOT / "synthpix_torch").rglob("*.py")]
    assert not any("__version__" in text for text in sources)


def test_the_wheel_can_be_imported_without_the_repository(built: Built, tmp_path: Path) -> None:
    """With the dependencies of this environment, the package from the wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys, synthpix_torch as s, synthpix_torch.cli.main; print(s.__file__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.strip() == str(tmp_path / "site" / "synthpix_torch" / "__init__.py")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    from kinds import base

    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    install = run(python, "-m", "pip", "install", *constraints, str(built.wheel), "mypy")
    assert install.returncode == 0, install.stderr
    smoke = run(python, "-c", SMOKE, str(folder), json.dumps(base()))
    assert smoke.stdout == "[4, 2, 16, 16] 1\n", smoke.stderr
    command = run(str(folder / "bin" / "synthpix-torch"), "--help")
    assert command.returncode == 0
    assert "inspect" in command.stdout
    (tmp_path / "consumer.py").write_text(CONSUMER)
    checked = run(python, "-m", "mypy", "--strict", "consumer.py")
    (error,) = (line for line in checked.stdout.splitlines() if "error:" in line)
    assert error.startswith(f"consumer.py:{CONSUMER.count(chr(10))}: error: Argument 1")
    assert 'incompatible type "str"; expected "int"' in error


def test_all_tested_environments_pass_and_the_lowest_versions_are_the_bounds() -> None:
    rows = environments.table_rows(environments.PAGE.read_text())
    lowest = (environments.LOWEST_PYTHON, environments.LOWEST)
    newest = {(python, environments.NEWEST) for python in ("3.11", "3.12", "3.13")}
    assert rows.keys() >= {lowest, *newest}
    for row in rows.values():
        assert re.fullmatch(r"\d+ passed", row[-2])
    tested = dict(zip(environments.PACKAGES, rows[lowest][2:], strict=False))
    for requirement in environments.lowest():
        package, _, bound = requirement.partition("==")
        if package in tested:
            assert f"{tested[package]}.".startswith(f"{bound}.")
