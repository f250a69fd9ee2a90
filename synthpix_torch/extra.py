"""Optional packages of recordings and collectors."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(name: str) -> Any:
    """Import a module of the extra `recordings`.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"This needs {package}: pip install 'synthpix_torch[recordings]'.", name=package
        ) from error
