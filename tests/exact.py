"""Compare a resumed run with the uninterrupted one, and name the first difference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


class NotExact(Exception):
    """A resumed run differs from the uninterrupted run; the message names the first difference."""


def check_batches(found: Sequence[int], expected: Sequence[int], where: str) -> None:
    """Compare the numbers of the delivered batches.

    Raises:
        NotExact: They differ.
    """
    for step, (number, wanted) in enumerate(zip_longest(found, expected)):
        if number != wanted:
            came = "no batch" if number is None else f"batch {number}"
            instead = "none" if wanted is None else f"batch {wanted}"
            raise NotExact(
                f"{where}: {came} came instead of {instead} at step {step + 1}; "
                f"delivered {list(found)}, expected {list(expected)}."
            )


def check_equal(found: object, expected: object, where: str) -> None:
    """Compare anything else that training leaves behind: losses, weights.

    Raises:
        NotExact: They differ.
    """
    if found != expected:
        raise NotExact(f"{where}: {found!r} instead of {expected!r}.")
