"""Opening files of flow fields, and refusing those that synthpix would misread."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from typing import Final

from synthpix.data_sources import EpisodicDataSource, FileDataSource

from synthpix_torch.checks import reason, shown
from synthpix_torch.config.array_file import require_file
from synthpix_torch.config.config import Config
from synthpix_torch.data.formats.flo import FLO
from synthpix_torch.data.formats.format import Format
from synthpix_torch.data.formats.h5 import H5
from synthpix_torch.data.formats.mat import MAT
from synthpix_torch.data.formats.npy import NPY

FORMATS: Final[dict[str, Format]] = {".npy": NPY, ".h5": H5, ".mat": MAT, ".flo": FLO}
"""File formats by the name that a configuration gives as `scheduler_class`."""

_HUB: Final = "hf://"
_HUB_ADDRESS: Final = re.compile(r"hf://[^/@:\s]+/[^/@:\s]+(@[^:\s]+)?(:[^/].*)?")
_BLOCK: Final = 2**16


def open_files(
    config: Config, file_format: Format, *, exact: bool
) -> FileDataSource | EpisodicDataSource:
    """Open the files of `file_list`, as episodes if the configuration has episodes.

    Addresses on the Hugging Face Hub (hf://) are downloaded.

    Args:
        config: The configuration.
        file_format: Format of the files.
        exact: Resize recorded images as synthpix does.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        OSError: A data set cannot be downloaded.
        ValueError: A folder holds no flow fields, an address is malformed, or episodes would not
            run in the order of time.
    """
    if not config.file_list:
        raise ValueError(
            f"scheduler_class {config.scheduler_class!r} needs file_list, a list of files or "
            "folders."
        )
    given = [_with_folder(path) for path in config.file_list]
    paths = [_download(path) if path.startswith(_HUB) else path for path in given]
    for path in paths:
        if not os.path.exists(path):
            raise FileNotFoundError(f"file_list names {shown(path)}, which does not exist.")
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
    return "#" + hashlib.sha256(os.fsencode(names)).hexdigest()[:10]


def digest_contents(files: list[str]) -> str:
    """Return a digest of samples of what files hold, which cost the same for any number of them.

    The sizes of at most 1024 files, evenly spaced in their order, and 64 KiB from the middle of at
    most 16 of them.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in _spaced(files, 1024):
        digest.update(b"%d\n" % os.stat(path).st_size)
    for path in _spaced(files, 16):
        require_file(path)
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, (os.fstat(file.fileno()).st_size - _BLOCK) // 2))
            digest.update(file.read(_BLOCK))
    return "#" + digest.hexdigest()[:10]


def _spaced(files: list[str], most: int) -> list[str]:
    """Return at most so many files, evenly spaced, with the first and the last."""
    count = min(len(files), most)
    return [files[i * (len(files) - 1) // max(1, count - 1)] for i in range(count)]


def _download(address: str) -> str:
    """Download a data set of the Hugging Face Hub as synthpix does; return its folder.

    Raises:
        ValueError: The address is malformed.
        ImportError: The package huggingface_hub is not installed.
        OSError: The data set cannot be downloaded.
    """
    if not _HUB_ADDRESS.fullmatch(address) or ".." in re.split("[/@:\\\\]", address):
        raise ValueError(
            f"file_list names {shown(address)}, which is no address on the Hugging Face Hub: write "
            "hf://owner/name, hf://owner/name@revision or hf://owner/name:folder."
        )
    # Imported here, because it imports more than local data needs.
    from synthpix.data_sources.hf_resolver import resolve_to_directory

    try:
        return str(resolve_to_directory(address))
    except (OSError, ImportError) as error:
        error.add_note(f"file_list names {address}.")
        raise
    # The clients of the hub and of HTTP raise errors of many kinds.
    except Exception as error:
        raise OSError(
            f"file_list names {shown(address)}, which cannot be read: {reason(error)}."
        ) from error


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
