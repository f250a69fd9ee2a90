"""Seeds, pairs and exposures share nothing."""

import pytest

from . import measures


@pytest.mark.parametrize("step", [1, 8, 16, 24])
def test_images_of_seeds_that_are_near_are_uncorrelated(step: int) -> None:
    # Two independent images of 250 particles' worth: 0.06 is one standard deviation.
    assert measures.seed_correlation(step) < 0.4


def test_images_of_pairs_batches_and_repetitions_are_uncorrelated() -> None:
    assert measures.pair_correlation() < 0.4
