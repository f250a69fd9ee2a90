"""Name what is suspicious about measured images and flow fields.

Settings and single records have rules of their own: `config.plausibility`, `data.plausibility`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from synthpix_torch.config.plausibility import LARGEST_DIAMETER, SMALLEST_DIAMETER
from synthpix_torch.describe.report import Report

_QUARTER: Final = 0.25
"""Displacement in windows beyond which a single correlation loses too many pairs (Keane and Adrian,
Appl. Sci. Res. 49, 1992)."""

_FEWEST_PAIRS: Final = 5.0
"""Pairs of particles in a window below which its correlation peak is often a wrong one (ibid.)."""

_MOST_SATURATED: Final = 0.05
_MOST_DARK: Final = 0.98
_MOST_FOLDED: Final = 0.25


def suspicions(report: Report) -> Iterator[str]:
    """Name what is possible but odd, a sentence with a number each."""
    yield from _of_flow_fields(report)
    yield from _of_images(report)
    if report.used_ever < 1:
        yield (
            f"Only {report.used_ever:.0%} of the {report.records} records are ever used, "
            f"{report.records_per_flow_batch} of each {report.batch_size}: set "
            f"flow_fields_per_batch: {report.batch_size}, or randomize: true and loop: true."
        )


def _of_flow_fields(report: Report) -> Iterator[str]:
    quarter = _QUARTER * report.window
    if report.displacement_99 > quarter:
        yield (
            f"1 % of the displacements are larger than {report.displacement_99:.3g} px, a quarter "
            f"of a window of {report.window} px is {quarter:g} px: a single correlation loses such "
            "pairs. Use larger windows or several passes, or smaller displacements."
        )
    if report.folded_fields > _MOST_FOLDED and "kinematic" not in report.source:
        yield (
            f"{report.folded_fields:.0%} of the flow fields fold, on {report.folded_area:.2%} of "
            "their area: particles overtake each other there, which no flow does. Check the unit "
            "of the flow fields, dt and noise in the data."
        )


def _of_images(report: Report) -> Iterator[str]:
    if report.particles_per_window is not None and report.lost_pairs is not None:
        pairs = report.particles_per_window * (1 - report.lost_pairs)
        if pairs < _FEWEST_PAIRS:
            yield (
                f"A window of {report.window} px holds {pairs:.2g} pairs of particles, fewer than "
                f"{_FEWEST_PAIRS:g}: raise seeding_density_range, or use larger windows."
            )
    if report.saturated > _MOST_SATURATED:
        yield (
            f"{report.saturated:.0%} of the pixels are saturated (255): lower intensities, noise "
            "or seeding density."
        )
    if report.dark > _MOST_DARK:
        yield (
            f"{report.dark:.1%} of the pixels are dark (0): raise intensities or seeding density."
        )
    if not report.recorded:
        return
    if round(report.brightest_level) > 255:
        yield (
            f"Grey levels reach {report.brightest_level:.5g}, not 255: recorded images are served "
            "as they are, so scale 12-bit images to 255, and those of a network alike."
        )
    measured = report.diameter_measured
    if measured is not None and not 2 * SMALLEST_DIAMETER <= measured <= 2 * LARGEST_DIAMETER:
        yield (
            f"Particle images have an e^-2 diameter of {measured:.2g} px: below "
            f"{2 * SMALLEST_DIAMETER:g} px displacements lock to whole pixels, above "
            f"{2 * LARGEST_DIAMETER:g} px windows hold few particles."
        )
