"""What the documents say runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_snippets_of_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    assert len(snippets("README.md")) == 3
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    first, second, third = snippets("README.md")
    script = "\n".join([first, second, "assert dataset.position == 21", third])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "a" / "5").is_dir()


def test_the_snippet_on_checkpoints_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    (snippet,) = snippets("docs/checkpoint.md")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for newest in (5, 10):
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True)
        steps = sorted(int(path.name) for path in (tmp_path / "runs" / "a").glob("[0-9]*"))
        assert steps == [newest - 2, newest - 1, newest]


def test_the_opening_of_the_readme_is_ten_lines_and_resume_is_five() -> None:
    first, second, _ = snippets("README.md")
    code = [line for line in first.splitlines() if line.strip()]
    assert len(code) <= 11
    assert len([line for line in second.splitlines() if not line.startswith("#")]) <= 5


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
