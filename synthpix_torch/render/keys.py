"""Random keys of image pairs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32


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
