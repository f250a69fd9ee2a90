"""Opening the source of flow fields that a configuration names."""

from __future__ import annotations

from synthpix.data_sources import EpisodicDataSource, FileDataSource

from synthpix_torch.checks import shown
from synthpix_torch.config.config import Config
from synthpix_torch.data.files import FORMATS, open_files
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
    if name in FORMATS:
        return open_files(config, FORMATS[name], exact=exact)
    return GENERATORS[name](config, exact)
