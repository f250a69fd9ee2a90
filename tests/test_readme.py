"""README and docs: their snippets run and their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import reference

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_snippets_of_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    first, second, third = snippets("README.md")
    script = "\n".join([first, second, "assert dataset.position == 21", third])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "a" / "5").is_dir()


def test_the_snippet_on_checkpoints_resumes_when_it_is_run_again(tmp_path: Path) -> None:
    (snippet,) = snippets("docs/checkpoint.md")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for newest in (5, 10):
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True)
        steps = sorted(int(path.name) for path in (tmp_path / "runs" / "a").glob("[0-9]*"))
        assert steps == [newest - 2, newest - 1, newest]


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


def test_every_page_of_docs_is_listed_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name
