"""Flow fields from HDF5 files, read by synthpix."""

from synthpix.data_sources import HDF5DataSource

from synthpix_torch.data.formats.format import Format

H5 = Format("*.h5", lambda paths, config, exact: HDF5DataSource(paths))
"""The first data set of each file, shape (H, W, 2)."""
