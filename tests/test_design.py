"""The structure of the package: the direction of imports, private names, and the size of files."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "synthpix_torch"
MOST_LINES = 400
MOST_LINES_OF_THE_FACADE = 300


def rows(text: str) -> dict[str, int]:
    """The row of each module in the table of docs/design.md, counted from the top."""
    lines = re.findall(r"^    ([a-z_./ ]+?) *\| ", text, re.MULTILINE)
    return {module: row for row, line in enumerate(lines) for module in line.split()}


def module_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: Path) -> dict[str, ast.Module]:
    """The syntax trees of all modules but those with names of Python's own."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        if path.name == "__main__.py" or path == package / "__init__.py":
            continue
        found[module_of(path, package)] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module, modules: set[str], package: str) -> Iterator[tuple[str, str | None]]:
    """Modules of the package that a module imports anywhere, each with the imported name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{package}."):
                    yield alias.name.removeprefix(f"{package}."), None
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module != package and not node.module.startswith(f"{package}."):
                continue
            base = node.module.removeprefix(package).removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                if inner in modules:
                    yield inner, None
                else:
                    yield base, alias.name


def graph(trees: dict[str, ast.Module], package: str) -> dict[str, set[str]]:
    names = set(trees)
    return {
        module: {target for target, _ in imports(tree, names, package)} - {module, ""}
        for module, tree in trees.items()
    }


def check_no_cycle(trees: dict[str, ast.Module], package: str) -> None:
    try:
        TopologicalSorter(graph(trees, package)).prepare()
    except CycleError as error:
        raise AssertionError(f"import cycle: {' -> '.join(error.args[1])}") from error


def check_rows(trees: dict[str, ast.Module], package: str, row: dict[str, int]) -> None:
    """Raise if a module has no row in the table, or imports from its own row or one above."""

    def row_of(module: str) -> int:
        found = [row[name] for name in (module, module.split(".")[0]) if name in row]
        assert found, f"{module} is not in the table of docs/design.md"
        return found[0]

    for module, targets in graph(trees, package).items():
        for target in targets:
            same_room = module.split(".")[0] == target.split(".")[0]
            if not same_room and row_of(target) <= row_of(module):
                raise AssertionError(f"{module} imports {target}, which is not below it")
    unknown = {
        name
        for name in row
        if name not in trees and not any(module.startswith(f"{name}.") for module in trees)
    }
    assert not unknown, f"docs/design.md names {unknown}"


def check_private_names(trees: dict[str, ast.Module], package: str) -> None:
    """Raise if a module imports or reads a private name of another module of the package.

    An attribute is private to a module if a name of that kind is assigned or defined there alone.
    """
    names = set(trees)
    defined: dict[str, set[str]] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.setdefault(node.name, set()).add(module)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                defined.setdefault(node.attr, set()).add(module)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        defined.setdefault(target.id, set()).add(module)
    classes = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    for module, tree in trees.items():
        for _, name in imports(tree, names, package):
            if name is not None and is_private(name):
                raise AssertionError(f"{module} imports {name}")
        # A base class of another library may give `self` names of its own.
        foreign = {
            id(attribute)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and node.bases
            and not {base.id for base in node.bases if isinstance(base, ast.Name)} & classes
            for attribute in ast.walk(node)
            if isinstance(attribute, ast.Attribute)
            and isinstance(attribute.value, ast.Name)
            and attribute.value.id == "self"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr):
                continue
            homes = defined.get(node.attr, set())
            if homes and module not in homes and id(node) not in foreign:
                raise AssertionError(f"{module} uses {node.attr} of {', '.join(sorted(homes))}")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def check_sizes(package: Path) -> None:
    for path in package.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        most = MOST_LINES_OF_THE_FACADE if path.name == "dataset.py" else MOST_LINES
        assert lines <= most, f"{path.relative_to(package)} has {lines} lines, at most {most}"


def test_modules_import_from_rows_below_alone() -> None:
    table = rows((ROOT / "docs" / "design.md").read_text())
    check_rows(sources(PACKAGE), PACKAGE.name, table)


def test_there_is_no_import_cycle() -> None:
    check_no_cycle(sources(PACKAGE), PACKAGE.name)


def test_no_module_uses_private_names_of_another() -> None:
    check_private_names(sources(PACKAGE), PACKAGE.name)


def test_no_file_is_long() -> None:
    check_sizes(PACKAGE)


LOW = "TYPE_CHECKING = False\n"
HIGH = "from house.low.stones import Stone\n"


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "house"


@pytest.mark.parametrize(
    ("files", "check", "message"),
    [
        (
            {"low/stones.py": "def f():\n    from house import high\n", "high.py": HIGH},
            check_no_cycle,
            "import cycle",
        ),
        (
            {"low/stones.py": "if TYPE_CHECKING:\n    import house.high\n", "high.py": HIGH},
            check_no_cycle,
            "import cycle",
        ),
        (
            {"low/stones.py": "from house.low import mortar\n", "low/mortar.py": HIGH},
            check_no_cycle,
            "import cycle",
        ),
        (
            {"low/stones.py": "def f():\n    import house.high\n", "high.py": ""},
            lambda trees, package: check_rows(trees, package, {"high": 0, "low": 1}),
            "low.stones imports high, which is not below it",
        ),
        (
            {"low/stones.py": "", "high.py": HIGH},
            lambda trees, package: check_rows(trees, package, {"low": 0}),
            "high is not in the table",
        ),
        (
            {"low/stones.py": "", "high.py": "from house.low.stones import _hidden\n"},
            check_private_names,
            "high imports _hidden",
        ),
        (
            {
                "low/stones.py": "class Stone:\n    def __init__(self):\n        self._size = 1\n",
                "high.py": "def f(stone):\n    return stone._size\n",
            },
            check_private_names,
            "high uses _size of low.stones",
        ),
    ],
)
def test_the_checks_can_fail(
    tmp_path: Path, files: dict[str, str], check: Callable[..., None], message: str
) -> None:
    package = written(tmp_path, files)
    with pytest.raises(AssertionError, match=message):
        check(sources(package), package.name)


def test_the_check_of_sizes_can_fail(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"long.py has 401 lines"):
        check_sizes(written(tmp_path, {"long.py": "\n" * 401}))
    with pytest.raises(AssertionError, match=r"dataset.py has 301 lines"):
        check_sizes(written(tmp_path, {"dataset.py": "\n" * 301}))
