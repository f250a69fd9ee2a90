"""Measure a flow field in a real experiment and save it as files that synthpix reads.

    python examples/measured.py FOLDER

The experiment is the image pair exp1_001 that the package openpiv contains. Its flow field is cut
into overlapping squares of 96 px, which are saved as flow_<t>.npy.
"""

import sys
from pathlib import Path

import numpy as np
import openpiv
from openpiv import filters, pyprocess, tools, validation
from scipy.interpolate import RectBivariateSpline

SIZE = 96
PAIR = ("exp1_001_a.bmp", "exp1_001_b.bmp")


def measure() -> np.ndarray:
    """Measure the displacement in pixels at every pixel: (H, W, 2), to the right and down."""
    folder = Path(openpiv.__file__).parent / "data" / "test1"
    first, second = (tools.imread(folder / name).astype(np.int32) for name in PAIR)
    right, down, ratio = pyprocess.extended_search_area_piv(
        first, second, window_size=32, overlap=16, search_area_size=32, sig2noise_method="peak2peak"
    )
    outliers = validation.sig2noise_val(ratio, threshold=1.2)
    outliers |= validation.local_median_val(right, down, u_threshold=2, v_threshold=2)
    right, down = filters.replace_outliers(right, down, outliers, max_iter=10, kernel_size=2)
    columns, rows = pyprocess.get_coordinates(first.shape, 32, 16)
    pixels = [np.arange(length) for length in first.shape]
    components = [
        RectBivariateSpline(rows[:, 0], columns[0], np.asarray(component), s=component.size * 0.02)(
            *pixels
        )
        for component in (right, down)
    ]
    return np.stack(components, axis=-1).astype(np.float32)


def save(folder: Path) -> int:
    """Save the squares of the measured flow field and return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    field = measure()
    height, width, _ = field.shape
    corners = [
        (y, x)
        for y in range(0, height - SIZE + 1, SIZE // 2)
        for x in range(0, width - SIZE + 1, SIZE // 2)
    ]
    for t, (y, x) in enumerate(corners):
        np.save(folder / f"flow_{t}.npy", field[y : y + SIZE, x : x + SIZE])
    return len(corners)


if __name__ == "__main__":
    print(save(Path(sys.argv[1])), "flow fields")
