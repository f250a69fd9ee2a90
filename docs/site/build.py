"""Build the documentation as a site: `make docs`, or `python docs/site/build.py FOLDER`.

The pages link to files of the repository, so they are staged in its structure. The page of the API
is generated from `__all__` of the public modules and the docstrings.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

from mkdocs.commands.build import build as build_site
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]
STAGED = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs",
    "examples",
    "benchmarks/results",
    "synthpix_torch/batch.py",
)
API = {
    "Datasets, states and checkpoints": "synthpix_torch",
    "Presets": "synthpix_torch.presets",
    "Metrics": "synthpix_torch.metrics",
    "Metrics over batches and ranks": "synthpix_torch.torchmetrics",
    "Lightning": "synthpix_torch.lightning",
    "Collectors": "synthpix_torch.collecting",
}


def build(site: Path) -> None:
    """Write the site to a folder.

    Raises:
        mkdocs.exceptions.Abort: A page has a link to nothing, or is missing in the navigation.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        for name in STAGED:
            target = stage / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", "site", "*.md.tmp")
                shutil.copytree(ROOT / name, target, ignore=unwanted)
            else:
                shutil.copyfile(ROOT / name, target)
        (stage / "docs" / "api.md").write_text(api_page())
        config_file = Path(__file__).with_name("mkdocs.yml")
        build_site(load_config(str(config_file), docs_dir=str(stage), site_dir=str(site)))


def api_page() -> str:
    """Return the page that lists every public name; mkdocstrings fills in the docstrings."""
    lines = ["# API", ""]
    for title, module in API.items():
        lines += [f"## {title}", "", f"`import {module}`", ""]
        for name in public_names(module):
            lines += [f"::: {module}.{name}", ""]
    return "\n".join(lines)


def public_names(module: str) -> list[str]:
    """Return `__all__` of a module, or the functions and classes that it defines."""
    members = vars(importlib.import_module(module))
    defined = [
        name
        for name, value in members.items()
        if getattr(value, "__module__", None) == module and not name.startswith("_")
    ]
    return sorted(members.get("__all__", defined))


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
