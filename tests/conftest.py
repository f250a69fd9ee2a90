"""Shapes and types of everything that the tests call are checked while they run."""

import ast
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

# Each kind of pipeline is compiled once for all tests and for the processes that they start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# synthpix's own sampler reads .npy files in many threads. Before 3.11.8, when two threads parse at
# once, one of them fails (synthpix_torch/npy.py), be it pytest's own that describes a failure.
if sys.version_info < (3, 11, 8):
    _parse, _parsing = ast.parse, threading.RLock()

    def _parse_alone(*args: Any, **options: Any) -> Any:
        with _parsing:
            return _parse(*args, **options)

    mock.patch.object(ast, "parse", _parse_alone).start()

import jaxtyping
import pytest

# Not where what users pass is checked by ourselves, as that is what is tested:
CHECKED = (
    "batch",
    "data.flow_batches",
    "data.memory",
    "data.record_order",
    "interop.device",
    "interop.dlpack",
    "render.effects",
    "render.keys",
    "render.output",
    "render.particles",
    "render.programs",
    "render.splat",
    "render.step",
    "render.synthpix",
    "render.synthpix_geometry",
    "stream.order",
    "stream.run",
)
jaxtyping.install_import_hook([f"synthpix_torch.{name}" for name in CHECKED], "beartype.beartype")

import kinds  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that all kinds of pipelines read. Not to be written to."""
    folder = tmp_path_factory.mktemp("data")
    kinds.write_all(folder)
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("-m")
    if "gpu" not in chosen and not _gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU that JAX and torch can use"))
    if "long" not in chosen:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make long"))


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
