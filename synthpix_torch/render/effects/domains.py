"""Random keys of the effects, separate from those of the particles and from each other."""

from enum import IntEnum

import jax
from jaxtyping import Array, UInt32


class Domain(IntEnum):
    """Uses of random keys; the numbers are four ASCII letters and must never change."""

    DEPTH = int.from_bytes(b"dept", "big")
    SEEDING = int.from_bytes(b"seed", "big")
    SHOT_NOISE = int.from_bytes(b"shot", "big")


def effect_key(pair_key: UInt32[Array, "k"], domain: Domain, image: int = 0) -> UInt32[Array, "k"]:
    """Derive the key of one effect from the key of a pair.

    Switching an effect on or off changes no other draw, because the keys of particles are folded
    with small numbers only.

    Args:
        pair_key: Raw key of the pair.
        domain: The effect.
        image: 0 or 1 where the two images of a pair are drawn independently.

    Returns:
        Raw key.
    """
    return jax.random.fold_in(jax.random.fold_in(pair_key, domain), image)
