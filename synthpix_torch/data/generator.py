"""The contract of a generator of flow fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, UInt32

from synthpix_torch.data.plausibility import Remark


class Generator(NamedTuple):
    """The flow fields that a generator makes for one configuration.

    Attributes:
        records: Random access to the fields on the host.
        shape: Height and width in nodes of each field.
        name_in_grain: What synthpix's checkpoints call its own fields of this configuration.
        slowest: Lower bounds of both components (x, y), in length units per second.
        fastest: Upper bounds.
        remarks: Look for oddities in the distribution of the fields; may generate some.
        generate: Make fields, shape (records, H, W, 2), from the seed of the configuration and the
            number of each record within a jitted function; None for a generator that works on the
            host.
    """

    records: Any
    shape: tuple[int, int]
    name_in_grain: str
    slowest: tuple[float, float]
    fastest: tuple[float, float]
    remarks: Callable[[], Iterable[Remark]] = tuple
    generate: Callable[[UInt32[Array, "2 f"]], Float[Array, "f h w 2"]] | None = None
