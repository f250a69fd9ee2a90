"""A dataset on a GPU warns once about versions that fail or are slow together."""

import tomllib
import warnings
from pathlib import Path
from unittest.mock import Mock

import jax
import pytest
from kinds import base

from synthpix_torch import SynthPixDataset, dataset
from synthpix_torch.interop import versions
from synthpix_torch.interop.versions import Installed, problems
from synthpix_torch.stream import stream

ROOT = Path(__file__).parent.parent
GOOD = Installed(jaxlib="0.11.1", jax_cuda=(13,), torch_cuda=13, cudnn=(13,))


@pytest.mark.parametrize("renderer", ["particles", "synthpix"])
@pytest.mark.parametrize(
    "found",
    [
        GOOD,
        GOOD._replace(jax_cuda=(12,), torch_cuda=12, cudnn=(12,)),
        GOOD._replace(cudnn=()),
        GOOD._replace(torch_cuda=None),
    ],
)
def test_working_combinations_have_no_problem(found: Installed, renderer: str) -> None:
    assert problems(found, renderer=renderer) == []


@pytest.mark.parametrize("plugins", [(12,), (12, 13)])
def test_a_plugin_for_another_cuda_is_a_problem(plugins: tuple[int, ...]) -> None:
    (clause,) = problems(GOOD._replace(jax_cuda=plugins), renderer="particles")
    assert clause.startswith("torch is built for CUDA 13 and JAX for CUDA 12")


def test_two_cudnn_in_one_folder_are_a_problem() -> None:
    (clause,) = problems(GOOD._replace(cudnn=(12, 13)), renderer="particles")
    assert "cuDNN packages for CUDA 12 and 13 overwrite each other" in clause


@pytest.mark.parametrize(
    ("jaxlib", "slow"), [("0.10.1", 0), ("0.10.2", 1), ("0.11.0", 1), ("0.11.1", 0), ("0.12.0", 0)]
)
def test_a_jaxlib_with_a_slow_float_scatter_is_a_problem_of_the_synthpix_renderer(
    jaxlib: str, slow: int
) -> None:
    found = GOOD._replace(jaxlib=jaxlib)
    assert len(problems(found, renderer="synthpix")) == slow
    assert problems(found, renderer="particles") == []


def test_all_problems_are_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Installed(jaxlib="0.10.2", jax_cuda=(12,), torch_cuda=13, cudnn=(12, 13))
    monkeypatch.setattr(versions, "installed", lambda: bad)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        versions.warn_of_problems(renderer="synthpix")
    (only,) = caught
    for words in ("torch is built", "cuDNN", "very slow", "docs/install.md"):
        assert words in str(only.message)


@pytest.mark.parametrize(("platform", "times"), [("cpu", 0), ("gpu", 1)])
def test_versions_are_checked_only_on_a_gpu(
    platform: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    chosen = Mock(wraps=jax.devices("cpu")[0], platform=platform)
    monkeypatch.setattr(dataset, "choose_device", lambda *_: chosen)
    monkeypatch.setattr(stream, "Renderer", Mock())
    monkeypatch.setattr(dataset, "warn_of_problems", lambda *, renderer: asked.append(renderer))
    SynthPixDataset(base())
    assert asked == ["particles"] * times


def test_the_installed_versions_can_be_read() -> None:
    found = versions.installed()
    assert found.jaxlib.count(".") >= 2
    assert isinstance(problems(found, renderer="synthpix"), list)


def test_the_table_in_install_md_has_the_ranges_of_the_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = (ROOT / "docs" / "install.md").read_text()
    for major in versions.CUDA_MAJORS:
        requirements = extras["optional-dependencies"][f"cuda{major}"]
        row = " | ".join([f"`cuda{major}`", *requirements, str(major)])
        assert f"| {row} |" in table
