"""README and docs: their code runs, their links lead somewhere, the site builds."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import reference
import torch

from synthpix_torch.config.keys import KEYS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# A block that cannot run here says why in a comment above: <!-- not run: needs a GPU -->
BLOCK = re.compile(r"(<!-- not run: .* -->\n)?```(\w*)\n(.*?)```", re.DOTALL)


def code(page: Path) -> list[str]:
    """Return the Python blocks of a page that run."""
    found = BLOCK.findall(page.read_text())
    return [text for skipped, language, text in found if language == "python" and not skipped]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder with the examples, as if the package had been cloned there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: Path) -> None:
    """Run the blocks of a page one after another, as a reader would type them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(code(page)):
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if code(page)], ids=lambda p: p.name)
def test_the_code_of_a_page_runs_as_it_stands(page: Path, folder: Path) -> None:
    run(page)


def test_the_readme_resumes_at_the_batch_that_it_names(folder: Path) -> None:
    assert "the next batch is batch 101" in (ROOT / "README.md").read_text()
    run(ROOT / "README.md")
    state = torch.load(folder / "last.pt", weights_only=True)["data"]
    assert state["sampler"]["position"] == 101


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_trains_and_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text())["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert sum(names["errors"][-10:]) < 0.9 * sum(names["errors"][:10])


def test_the_code_on_checkpoints_resumes_when_it_is_run_again(folder: Path) -> None:
    for newest in (5, 10):
        run(ROOT / "docs" / "checkpoint.md")
        steps = sorted(int(path.name) for path in (folder / "runs" / "a").glob("[0-9]*"))
        assert steps == [newest - 2, newest - 1, newest]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "site" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.build(tmp_path / "site")
    api = (tmp_path / "site" / "docs" / "api" / "index.html").read_text()
    assert 'id="synthpix_torch.SynthPixDataset.load_state_dict"' in api


def test_links_between_pages_lead_to_files_and_headings() -> None:
    for page in PAGES:
        for path, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text()):
            if "://" in path:
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} links to {path}"
            if heading:
                assert heading in headings(target), f"{page.name} links to {path}#{heading}"


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def test_the_reference_of_configuration_keys_is_current() -> None:
    page = ROOT / "docs" / "configuration.md"
    assert page.read_text() == "\n".join([*reference.lines(), ""])
    assert {name for part in reference.PARTS.values() for name in part} == KEYS.keys()


def test_every_page_of_docs_is_listed_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name
