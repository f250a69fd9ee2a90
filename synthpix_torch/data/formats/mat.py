"""Flow fields and recorded image pairs from MATLAB files, read by synthpix."""

from synthpix.data_sources import FileDataSource, MATDataSource

from synthpix_torch.config.config import Config
from synthpix_torch.data.formats.format import Format


class _AnyShape(tuple[int, ...]):
    """An output shape that every flow field already has."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = tuple.__hash__


def _open(paths: list[str], config: Config, exact: bool) -> FileDataSource:
    # Flow fields and images keep their shape and values, which synthpix would change
    # (docs/differences.md).
    shape = config.image_shape if config.include_images else (0, 0)
    return MATDataSource(
        paths,
        include_images=config.include_images,
        output_shape=shape if config.include_images and exact else _AnyShape(shape),
    )


MAT = Format("*.mat", _open, holds_images=True)
"""The arrays V, and I0 and I1 if there are images, of MATLAB 4 to 7.3."""
