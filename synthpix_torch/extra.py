"""Optional packages: an error that names the extra to install."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def required_by(need: str, *modules: str, extra: str) -> Iterator[None]:
    """Name the extra if an import within fails because a package is not installed.

    Args:
        need: What needs which package, as the beginning of the error.
        *modules: Names of the modules whose absence the extra ends. The absence of another one, as
            in a broken installation, raises its own error.
        extra: Name of the extra.

    Raises:
        ModuleNotFoundError: A module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in modules:
            raise
        raise ModuleNotFoundError(
            f"{need}: pip install 'synthpix_torch[{extra}]'.", name=error.name
        ) from error


def import_extra(name: str) -> Any:
    """Import a module of the extra `recordings`.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    package = name.partition(".")[0]
    with required_by(f"This needs {package}", package, extra="recordings"):
        return importlib.import_module(name)
