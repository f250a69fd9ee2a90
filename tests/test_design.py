"""docs/design.md says which module may import which."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "synthpix_torch"


def rows() -> dict[str, int]:
    """The row of each room, counted from the top."""
    text = (ROOT / "docs" / "design.md").read_text()
    lines = re.findall(r"^    ([a-z_ ]+?) *\| ", text, re.MULTILINE)
    return {room: row for row, line in enumerate(lines) for room in line.split()}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The rooms that a module imports when it is imported itself."""
    found = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.ImportFrom):
            module = statement.module or ""
            if module == PACKAGE.name:
                found |= {alias.name for alias in statement.names}
            elif module.startswith(f"{PACKAGE.name}."):
                found.add(module.split(".")[1])
    return found


def test_every_module_has_a_room_and_imports_from_below_alone() -> None:
    row = rows()
    modules = [path for path in PACKAGE.rglob("*.py") if room(path)[:2] != "__"]
    assert {room(path) for path in modules} == row.keys()
    for path in modules:
        upwards = {name for name in imported(path) - {room(path)} if row[name] <= row[room(path)]}
        assert not upwards, f"{path} imports {upwards}"
