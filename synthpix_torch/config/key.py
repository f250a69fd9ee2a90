"""The description of a key of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from synthpix_torch.config.rules import Rule

REQUIRED: Final = object()
"""The default of a key that must be given."""


@dataclass(frozen=True)
class Key:
    """One row of the table.

    Attributes:
        rule: What the value must be.
        meaning: What the key means, in one sentence.
        unit: Unit of the value; "" if it has none.
        default: Value of a key that is not given, or REQUIRED.
        recorded: The default with recorded image pairs, if it is another one.
        filler: Stands in for the value with recorded image pairs, which do without this key.
        example: A value to show to users, for keys without a default.
        group: Group of the fingerprint; None for keys that do not change the stream.
    """

    rule: Rule
    meaning: str
    unit: str = ""
    default: Any = REQUIRED
    recorded: Any = REQUIRED
    filler: Any = REQUIRED
    example: Any = None
    group: str | None = None

    def default_for(self, *, include_images: bool) -> Any:
        """Return the default for rendered or for recorded image pairs."""
        choices = (self.recorded, self.filler) if include_images else ()
        return next((value for value in choices if value is not REQUIRED), self.default)
