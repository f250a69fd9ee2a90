"""The table of all keys of a configuration.

Everything that is known about a key is in its row: checks, defaults, error messages and the
fingerprint read this table. A new key is one row in one of the parts below and one attribute of
`Config`.
"""

from __future__ import annotations

from typing import Final

from synthpix_torch.config.effect_keys import EFFECT_KEYS
from synthpix_torch.config.generator_keys import GENERATOR_KEYS
from synthpix_torch.config.image_keys import IMAGE_KEYS
from synthpix_torch.config.key import Key
from synthpix_torch.config.stream_keys import STREAM_KEYS

KEYS: Final[dict[str, Key]] = {**STREAM_KEYS, **IMAGE_KEYS, **GENERATOR_KEYS, **EFFECT_KEYS}
