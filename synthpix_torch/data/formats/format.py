"""The contract of a file format."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from synthpix.data_sources import FileDataSource

from synthpix_torch.config.config import Config


class Format(NamedTuple):
    """A file format of flow fields.

    Attributes:
        pattern: Glob pattern of the files that are read from a folder.
        open: Open files and folders as records in the order of the paths. The third argument tells
            whether recorded images are resized, as synthpix does it.
        holds_images: Whether recorded image pairs can be read with the flow fields.
        has_variables: Whether a file holds variables by name (`flow_variables`).
        resizes: Whether recorded images can be resized as synthpix does it.
    """

    pattern: str
    open: Callable[[list[str], Config, bool], FileDataSource]
    holds_images: bool = False
    has_variables: bool = False
    resizes: bool = False
