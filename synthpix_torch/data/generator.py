"""What a generator of flow fields is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from synthpix_torch.config.config import Config


class Generator(NamedTuple):
    """A generator of flow fields.

    Attributes:
        shape: Height and width in nodes of the fields of a configuration.
        open: Open the records of a configuration for random access on the host. The second
            argument selects synthpix's own bits.
        generate: Make fields, shape (records, H, W, 2), from their record numbers within a jitted
            function; None for a generator that works on the host.
    """

    shape: Callable[[Config], tuple[int, int]]
    open: Callable[[Config, bool], Any]
    generate: Callable[[Config, Int[Array, " f"]], Float[Array, "f h w 2"]] | None = None
