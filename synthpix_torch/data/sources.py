"""Opening the source of flow fields that a configuration names."""

from __future__ import annotations

from synthpix.data_sources import EpisodicDataSource, FileDataSource

from synthpix_torch.checks import shown
from synthpix_torch.config.config import Config
from synthpix_torch.data.files import FORMATS, open_files
from synthpix_torch.data.formats.format import Format
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.generators import GENERATORS


def open_source(config: Config, *, exact: bool) -> FileDataSource | EpisodicDataSource | Generator:
    """Open the configured files or the configured generator.

    Args:
        config: The configuration, with a `scheduler_class`.
        exact: Make and resize records as synthpix does, for its bits.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: There is no such format or generator, a folder holds no flow fields, or episodes
            would not run in the order of time.
    """
    name = config.scheduler_class
    assert name is not None
    if name not in {**FORMATS, **GENERATORS}:
        choices = ", ".join(map(repr, (*FORMATS, *GENERATORS)))
        raise ValueError(f"scheduler_class must be one of {choices}, not {shown(name)}.")
    if config.include_images and not (name in FORMATS and FORMATS[name].holds_images):
        choices = ", ".join(repr(name) for name, one in FORMATS.items() if one.holds_images)
        raise ValueError(
            f"Only scheduler_class {choices} holds real images: set it, or include_images: false."
        )
    if exact and config.crop is not None:
        raise ValueError(
            "renderer='synthpix' resizes recorded images to image_shape: leave out crop, or use "
            "renderer='particles'."
        )
    _check_format(config, FORMATS.get(name), exact=exact)
    if name in FORMATS:
        return open_files(config, FORMATS[name], exact=exact)
    return GENERATORS[name](config, exact)


def _check_format(config: Config, file_format: Format | None, *, exact: bool) -> None:
    """Raise unless files of a format, None for a generator, can be read as configured.

    Raises:
        ValueError: They hold no variables by name, or synthpix cannot read their images.
    """
    given = [key for key in ("flow_variables", "image_variables") if getattr(config, key)]
    if given and not (file_format and file_format.has_variables):
        choices = ", ".join(repr(name) for name, one in FORMATS.items() if one.has_variables)
        raise ValueError(
            f"{given[0]} names variables of files: leave it out, or use scheduler_class {choices}."
        )
    if exact and config.include_images and not (file_format and file_format.resizes):
        raise ValueError(
            f"synthpix reads no recorded images from {config.scheduler_class} files: use "
            "renderer='particles'."
        )
