"""Random keys of image pairs."""

from __future__ import annotations

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, UInt32

_PAIRS: Final = int.from_bytes(b"pair", "big")
"""Separates the keys of pairs from other keys that are made of the same seed."""


class Origin(NamedTuple):
    """The records and numbers of the pairs of a batch.

    Attributes:
        seeds: 32 bits that Grain draws for the record of each pair.
        records: The seed of the configuration, and the number of the record of each pair in the
            stream of pairs: high and low 32 bits.
        pairs: The same with the number of each pair.
    """

    seeds: Int[Array, " n"]
    records: UInt32[Array, "3 n"]
    pairs: UInt32[Array, "3 n"]


class PairKeys(NamedTuple):
    """The random state of each pair of a batch.

    Attributes:
        seeds: 32 random bits of the record that each pair is made from.
        keys: The raw JAX key of each pair.
    """

    seeds: Int[Array, " n"]
    keys: UInt32[Array, "n k"]


def record_keys(seeds: Int[Array, " n"]) -> PairKeys:
    """Make keys from the seeds that Grain draws for records, one key a record."""
    return PairKeys(seeds, jax.vmap(jax.random.PRNGKey)(seeds))


def synthpix_keys(seeds: Int[Array, " n"], repetition: Int[Array, ""]) -> PairKeys:
    """Make the keys of synthpix's sampler from seeds, slots of the batch and the repetition."""
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, 0))
    keys = fold_in(record_keys(seeds).keys, jnp.arange(seeds.shape[0]))
    return PairKeys(seeds, fold_in(keys, jnp.broadcast_to(repetition, seeds.shape)))


def pair_keys(origin: Origin, repetition: Int[Array, ""]) -> PairKeys:
    """Make a key for each pair from the seed, the number of the pair and the repetition.

    Folding in is encryption under the key (Threefry), so other seeds, pairs and repetitions have
    keys without any relation to these. synthpix adds the number of a record to the seed instead:
    there, seeds that differ by less than the length of the data share keys.

    Args:
        origin: Where each pair comes from.
        repetition: How often the flow batch was used before.
    """

    def numbered(number: UInt32[Array, "3"]) -> UInt32[Array, "k"]:
        key: Array = jax.random.PRNGKey(_PAIRS)
        for part in number:
            key = jax.random.fold_in(key, part)
        return key

    def repeated(number: UInt32[Array, "3"]) -> UInt32[Array, "k"]:
        return jax.random.fold_in(numbered(number), repetition)

    bits = jax.vmap(numbered, in_axes=1)(origin.records)[:, 0]
    return PairKeys(
        lax.bitcast_convert_type(bits, jnp.int32), jax.vmap(repeated, in_axes=1)(origin.pairs)
    )
