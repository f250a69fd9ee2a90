"""The data source of synthpix that a configuration names, with what it would take amiss refused."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from typing import Any

from synthpix.data_sources import (
    EpisodicDataSource,
    FileDataSource,
    HDF5DataSource,
    KinematicDataSource,
    MATDataSource,
)

from synthpix_torch.config.keys import GENERATED
from synthpix_torch.config.reading import Config
from synthpix_torch.data.kinematic import KinematicFields
from synthpix_torch.data.npy import NumpyFields

_HUB = "hf://"


class _AnyShape(tuple[int, ...]):
    """An output shape that every flow field already has."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = tuple.__hash__


def open_source(config: Config, *, exact: bool) -> Any:
    """The data source of synthpix that the configuration names, or ours with the same records.

    Args:
        config: The configuration.
        exact: Generate kinematic flow fields with synthpix's own filter, for its bits.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: A folder holds no flow fields, or episodes would not run in the order of time.
    """
    scheduler = config["scheduler_class"]
    if scheduler in GENERATED:
        source = KinematicDataSource if exact else KinematicFields
        return source(
            num_examples=config["num_examples"],
            image_shape=config.image_shape,
            filter_sigma_range=config["filter_sigma_range"],
            scale_factor_range=config["scale_factor_range"],
            scale_mode=config["scale_mode"],
            seed=config["seed"],
        )
    paths = [_with_folder(path) for path in config["file_list"]]
    for path in paths:
        if not path.startswith(_HUB) and not os.path.exists(path):
            raise FileNotFoundError(f"file_list names {path!r}, which does not exist.")
    files: FileDataSource
    match scheduler:
        case ".npy":
            pattern, files = "flow_*.npy", _find(NumpyFields, paths, "flow_<t>.npy")
        case ".h5":
            pattern, files = "*.h5", _find(HDF5DataSource, paths, "*.h5")
        case _:
            # Real images are brought to image_shape with their flow field; a flow field alone
            # keeps its shape and values, which synthpix would change (docs/differences.md).
            shape = config.image_shape if config.include_images else _AnyShape((0, 0))
            options = {"include_images": config.include_images, "output_shape": shape}
            pattern, files = "*.mat", _find(MATDataSource, paths, "*.mat", **options)
    _refuse_empty_folders(paths, files.file_list, pattern)
    if not config["episode_length"]:
        return files
    _refuse_other_orders(files.file_list, config["episode_length"])
    try:
        return EpisodicDataSource(
            files,
            batch_size=config.batch_size,
            episode_length=config["episode_length"],
            seed=config["seed"],
        )
    except ValueError as error:
        raise ValueError(
            f"No folder of file_list holds episode_length={config['episode_length']} files: "
            "shorten the episodes, or add files."
        ) from error


def _with_folder(path: str) -> str:
    """A file with its folder, which synthpix looks for to make episodes."""
    return os.path.join(".", path) if os.path.isfile(path) and not os.path.dirname(path) else path


def _find(source: Any, paths: list[str], pattern: str, **options: Any) -> FileDataSource:
    try:
        files: FileDataSource = source(paths, **options)
    except ValueError as error:
        raise ValueError(
            f"file_list {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''} holds no flow "
            f"fields: put files named {pattern} there, "
            "or set the scheduler_class of the files that are there."
        ) from error
    return files


def _refuse_empty_folders(paths: list[str], files: list[str], pattern: str) -> None:
    found = [os.path.abspath(file) for file in files]
    for path in filter(os.path.isdir, paths):
        folder = os.path.join(os.path.abspath(path), "")
        if not any(file.startswith(folder) for file in found):
            raise ValueError(f"The folder {path!r} holds no file that matches {pattern}.")


def _refuse_other_orders(files: list[str], episode_length: int) -> None:
    """Refuse episodes whose order in time is not that of the alphabet, which is synthpix's."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(os.path.dirname(file), []).append(os.path.basename(file))
    for names in folders.values():
        if len(names) < episode_length:
            continue
        for one, other in itertools.pairwise(sorted(names)):
            if _counts_down(one, other):
                raise ValueError(
                    "Episodes go through the files of a folder by the alphabet, in which "
                    f"{one} comes before {other}: give the numbers in the names as many digits, "
                    "with zeros in front."
                )


def _counts_down(one: str, other: str) -> bool:
    """Whether two names differ in one whole number alone, which is larger in the first."""
    parts, others = re.split(r"(\d+)", one), re.split(r"(\d+)", other)
    different = [i for i, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b]
    if len(parts) != len(others) or len(different) != 1:
        return False
    [i] = different
    is_fraction = i >= 2 and parts[i - 1] == "."
    return parts[i].isdecimal() and not is_fraction and int(parts[i]) > int(others[i])


def digest_names(files: list[str]) -> str:
    """Digest of the file names relative to the folder that they share."""
    absolute = [os.path.abspath(file) for file in files]
    common = os.path.commonpath([os.path.dirname(file) for file in absolute])
    names = "\n".join(os.path.relpath(file, common) for file in absolute)
    return "#" + hashlib.sha256(names.encode()).hexdigest()[:10]
