"""Flow fields from .npy files, whose header is parsed once and not for each record.

np.load parses the header of each file as Python. Before 3.11.8 CPython counts the depth of what it
parses for all threads together (its issue 106905), so that a thread that reads in the background
makes another fail: `ast.parse`, which triton calls to compile, raises SystemError.
"""

from typing import Any

from synthpix.data_sources import NumpyDataSource

from synthpix_torch.config.array_file import Header, read_array
from synthpix_torch.data.formats.format import Format


class NumpyFields(NumpyDataSource):  # type: ignore[misc]
    """synthpix's source of .npy files, with the same records."""

    _header: Header | None = None

    def load_file(self, file_path: str) -> dict[str, Any]:
        """Load a flow field; overrides synthpix's reading.

        Args:
            file_path: Path to the .npy file.

        Returns:
            `flow_fields`, what np.load makes of the file, and `file`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a .npy file of numbers, or holds less than its header says.
        """
        flow_field, header = read_array(file_path, self._header)
        self._header = self._header or header
        return {"flow_fields": flow_field, "file": file_path}


NPY = Format("flow_*.npy", lambda paths, config, exact: NumpyFields(paths))
"""One array of shape (H, W, 2) a file."""
