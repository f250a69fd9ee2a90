"""Opening files of flow fields, and refusing those that synthpix would misread."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from typing import Final

from synthpix.data_sources import EpisodicDataSource, FileDataSource

from synthpix_torch.config.config import Config
from synthpix_torch.data.formats.format import Format
from synthpix_torch.data.formats.h5 import H5
from synthpix_torch.data.formats.mat import MAT
from synthpix_torch.data.formats.npy import NPY

FORMATS: Final[dict[str, Format]] = {".npy": NPY, ".h5": H5, ".mat": MAT}
"""File formats by the name that a configuration gives as `scheduler_class`."""

_HUB = "hf://"


def open_files(
    config: Config, file_format: Format, *, exact: bool
) -> FileDataSource | EpisodicDataSource:
    """Open the files of `file_list`, as episodes if the configuration has episodes.

    Args:
        config: The configuration.
        file_format: Format of the files.
        exact: Resize recorded images as synthpix does.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: A folder holds no flow fields, or episodes would not run in the order of time.
    """
    if not config.file_list:
        raise ValueError(
            f"scheduler_class {config.scheduler_class!r} needs file_list, a list of files or "
            "folders."
        )
    paths = [_with_folder(path) for path in config.file_list]
    for path in paths:
        if not path.startswith(_HUB) and not os.path.exists(path):
            raise FileNotFoundError(f"file_list names {path!r}, which does not exist.")
    try:
        files = file_format.open(paths, config, exact)
    except ValueError as error:
        raise ValueError(
            f"file_list {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''} holds no flow "
            f"fields: put files named {file_format.pattern} there, "
            "or set the scheduler_class of the files that are there."
        ) from error
    _refuse_empty_folders(paths, files.file_list, file_format.pattern)
    if not config.episode_length:
        return files
    _refuse_other_orders(files.file_list, config.episode_length)
    try:
        return EpisodicDataSource(
            files,
            batch_size=config.batch_size,
            episode_length=config.episode_length,
            seed=config.seed,
        )
    except ValueError as error:
        raise ValueError(
            f"No folder of file_list holds episode_length={config.episode_length} files: "
            "shorten the episodes, or add files."
        ) from error


def digest_names(files: list[str]) -> str:
    """Return a digest of the file names relative to the folder that they share."""
    absolute = [os.path.abspath(file) for file in files]
    common = os.path.commonpath([os.path.dirname(file) for file in absolute])
    names = "\n".join(os.path.relpath(file, common) for file in absolute)
    return "#" + hashlib.sha256(names.encode()).hexdigest()[:10]


def _with_folder(path: str) -> str:
    """Write a file with its folder, which synthpix needs to make episodes."""
    return os.path.join(".", path) if os.path.isfile(path) and not os.path.dirname(path) else path


def _refuse_empty_folders(paths: list[str], files: list[str], pattern: str) -> None:
    found = [os.path.abspath(file) for file in files]
    for path in filter(os.path.isdir, paths):
        folder = os.path.join(os.path.abspath(path), "")
        if not any(file.startswith(folder) for file in found):
            raise ValueError(f"The folder {path!r} holds no file that matches {pattern}.")


def _refuse_other_orders(files: list[str], episode_length: int) -> None:
    """Refuse episodes whose alphabetical order, which synthpix uses, is not their order in time."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(os.path.dirname(file), []).append(os.path.basename(file))
    for names in folders.values():
        if len(names) < episode_length:
            continue
        for one, other in itertools.pairwise(sorted(names)):
            if _counts_down(one, other):
                raise ValueError(
                    "Episodes read the files of a folder in alphabetical order, in which "
                    f"{one} comes before {other}: give the numbers in the names as many digits, "
                    "with leading zeros."
                )


def _counts_down(one: str, other: str) -> bool:
    """Tell whether two names differ in one integer alone, which is larger in the first."""
    parts, others = re.split(r"(\d+)", one), re.split(r"(\d+)", other)
    different = [i for i, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b]
    if len(parts) != len(others) or len(different) != 1:
        return False
    [i] = different
    is_fraction = i >= 2 and parts[i - 1] == "."
    return parts[i].isdecimal() and not is_fraction and int(parts[i]) > int(others[i])
