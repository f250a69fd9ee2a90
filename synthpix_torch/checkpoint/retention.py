"""Choose the steps of a folder to keep, and the best one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from synthpix_torch.checkpoint.folder import CheckpointError, Folder
from synthpix_torch.checkpoint.step import Manifest, is_ours, read_manifest
from synthpix_torch.checks import check_integer


class Retention(NamedTuple):
    """The newest steps, multiples of a number, and the best steps are kept.

    Attributes:
        keep: How many of the newest steps, None for all.
        keep_every: Keep multiples of it for ever.
        best: The metric by which steps are compared.
        best_mode: "min" or "max": whether a small or a large metric is good.
        keep_best: How many of the best steps.
    """

    keep: int | None
    keep_every: int | None
    best: str | None
    best_mode: str
    keep_best: int

    def check(self) -> None:
        """Raise unless the values are possible.

        Raises:
            TypeError: A number is not an integer, or the metric is not a string.
            ValueError: A number is not positive, or the mode is unknown.
        """
        for name, value in (("keep", self.keep), ("keep_every", self.keep_every)):
            if value is not None:
                check_integer(name, value, 1)
        check_integer("keep_best", self.keep_best, 1)
        if not isinstance(self.best, str | None):
            raise TypeError(f"best must be the name of a metric, not {self.best!r}.")
        if self.best_mode not in ("min", "max"):
            raise ValueError(f"best_mode must be 'min' or 'max', not {self.best_mode!r}.")

    def read(self, metrics: Mapping[str, Any] | None) -> dict[str, float]:
        """Return the metrics of a step, numbers or tensors of one element, as numbers.

        Raises:
            TypeError: They are no mapping, a name is not a string, or a value not a number.
            ValueError: There are metrics without `best`.
        """
        if not isinstance(metrics, Mapping | None):
            raise TypeError(f"metrics must be numbers by name, not {metrics!r}.")
        numbers = {}
        for name, value in (metrics or {}).items():
            try:
                if not isinstance(name, str) or isinstance(value, str | bytes):
                    raise TypeError
                numbers[name] = float(value)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                raise TypeError(
                    f"A metric must be a number with a name, not {name!r}: {value!r}."
                ) from None
        if numbers and self.best is not None and self.best not in numbers:
            raise ValueError(
                f"The metrics {', '.join(numbers)} lack {self.best}, by which steps are compared: "
                "pass it, too, or pass another name as best."
            )
        return numbers

    def outdated(self, folder: Folder, objects: Mapping[str, str]) -> list[int]:
        """Return the steps to delete: none of them holds more than these objects.

        Raises:
            OSError: This process cannot read a step now.
        """
        if self.keep is None:
            return []
        ours = [number for number in folder.steps() if is_ours(folder.step(number))]
        manifests = {number: _read(folder, number) for number in ours}
        kept = {*ours[-self.keep :], *self._rank(manifests)[: self.keep_best]}
        return [
            number
            for number, manifest in manifests.items()
            if number not in kept
            and not (self.keep_every and number % self.keep_every == 0)
            and manifest is not None
            and manifest.objects.items() <= objects.items()
        ]

    def ranked(self, folder: Folder, numbers: Iterable[int]) -> list[int]:
        """Return the steps that have the metric, the best first and of equal ones the newest.

        Raises:
            CheckpointError: This process cannot read a step now.
        """
        return self._rank({number: _read(folder, number) for number in numbers})

    def _rank(self, manifests: Mapping[int, Manifest | None]) -> list[int]:
        sign = 1 if self.best_mode == "min" else -1
        values = {
            number: sign * manifest.metrics[self.best]
            for number, manifest in manifests.items()
            if manifest is not None and self.best in manifest.metrics
        }
        numbers = [number for number, value in values.items() if not math.isnan(value)]
        return sorted(numbers, key=lambda number: (values[number], -number))


def _read(folder: Folder, number: int) -> Manifest | None:
    try:
        return read_manifest(folder.step(number))
    except OSError as error:
        raise CheckpointError(f"Step {number} in {folder.path} cannot be read: {error}.") from error
    except ValueError:
        # A newer version wrote it.
        return None
