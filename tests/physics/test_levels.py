"""Grey levels that are matched to a histogram have its mean."""

from pathlib import Path

import pytest

from . import measures


def test_matching_a_histogram_keeps_its_mean_though_most_pixels_are_alike(tmp_path: Path) -> None:
    assert measures.matched_mean(tmp_path) == pytest.approx(24.5, abs=0.75)
