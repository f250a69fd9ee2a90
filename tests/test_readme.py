"""What the documents say runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_snippets_of_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "\n".join([*snippets, "assert dataset.position == 21"])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_the_opening_of_the_readme_is_ten_lines_and_resume_is_five() -> None:
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = [line for line in first.splitlines() if line.strip()]
    assert len(code) <= 11
    assert len([line for line in second.splitlines() if not line.startswith("#")]) <= 5


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
