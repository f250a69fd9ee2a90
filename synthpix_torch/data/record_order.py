"""The order of records, which is that of Grain's IndexSampler, computed for whole epochs.

Grain encrypts the place of a record in its epoch with a small block cipher, four rounds of Simon
(Beaulieu et al., "The SIMON and SPECK families of lightweight block ciphers", IACR ePrint
2013/404), and encrypts the result again until it is the number of a record, which is called cycle
walking (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). The cipher has at
least 2^16 values, so that a walk to one of 10 records takes 6,500 steps. Here all walks of an epoch
share one table of the cipher.
"""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import Final

import grain.python as grain
import numpy as np
from jaxtyping import Int, UInt8, UInt16

_TABLE: Final = 2**16
"""Values of Grain's smallest cipher; with more records a walk takes four steps or less."""

_EPOCHS: Final = 16
"""Orders of epochs that are kept, of at most 128 KiB each, for all threads of all datasets."""


class RecordOrder:
    """The numbers and the random seeds of the records that synthpix would read, by index."""

    def __init__(self, records: int, *, shuffle: bool, seed: int, loop: bool) -> None:
        """Describe the order; nothing is computed before it is used.

        Args:
            records: Number of records in an epoch.
            shuffle: Whether each epoch has another order.
            seed: From 0 to 2^32 - 1.
            loop: Whether epochs follow without end.
        """
        self._records = records
        self._shuffle = shuffle
        self._seed = seed
        self._loop = loop
        self._grain = grain.IndexSampler(
            num_records=records,
            shuffle=shuffle,
            seed=seed,
            shard_options=grain.NoSharding(),
            num_epochs=None if loop else 1,
        )

    def __len__(self) -> int:
        """Return the number of indices, `sys.maxsize` if epochs follow without end."""
        return sys.maxsize if self._loop else self._records

    @property
    def name_in_grain(self) -> str:
        """Name of this order in the checkpoints of synthpix."""
        return repr(self._grain)

    def number(self, index: int) -> int:
        """Return the number of the record with an index."""
        epoch, place = divmod(index, self._records)
        if not self._shuffle:
            return place
        if self._records > _TABLE:
            return int(self._grain[index].record_key)
        return int(epoch_order(self._records, (self._seed + epoch) % 2**32)[place])

    def draw(self, index: int) -> int:
        """Return the 32 random bits that synthpix's AddJAXSeed draws for an index."""
        rng = np.random.Generator(np.random.Philox(key=self._seed + index))
        return int(rng.integers(0, 2**32 - 1))


@lru_cache(_EPOCHS)
def epoch_order(records: int, seed: int) -> UInt16[np.ndarray, " records"]:
    """Return the numbers of all records in the order of an epoch.

    Args:
        records: Number of records, at most 2^16.
        seed: Seed of the epoch, from 0 to 2^32 - 1.

    Returns:
        What Grain's `index_shuffle` returns with four rounds for each place; read-only.
    """
    encrypted = _encrypt_all(_round_keys(seed))
    # Step from a value to the next, but stay at numbers of records. Each turn doubles the steps.
    steps = np.where(np.arange(_TABLE) < records, np.arange(_TABLE), encrypted)
    order = encrypted[:records]
    while order.max() >= records:
        order = steps[order]
        steps = steps[steps]
    order = order.astype(np.uint16)
    order.flags.writeable = False
    return order


def _encrypt_all(keys: list[int]) -> Int[np.ndarray, "65536"]:
    """Encrypt every number of 16 bits; its upper byte is the left word, its lower the right."""
    left = np.arange(256, dtype=np.uint8)[:, None]
    right = left.T
    mixed = _mixed_bytes()
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = left ^ mixed[right] ^ np.uint8(first % 256)
        right = right ^ mixed[left] ^ np.uint8(second % 256)
    encrypted: Int[np.ndarray, "65536"] = (left.astype(np.intp) << 8 | right).reshape(-1)
    return encrypted


@cache
def _mixed_bytes() -> UInt8[np.ndarray, "256"]:
    """Apply Simon's round function to every byte; its rotation by 8 bits changes no byte."""
    byte = np.arange(256, dtype=np.uint8)
    once, twice = ((byte << n) | (byte >> (8 - n)) for n in (1, 2))
    mixed: UInt8[np.ndarray, "256"] = (once & byte) ^ twice
    return mixed


def _round_keys(seed: int) -> list[int]:
    """Return the four numbers of `std::seed_seq{seed}` (C++ standard, [rand.util.seedseq])."""
    state = [0x8B8B8B8B] * 4
    for k in range(4):
        r1 = 1664525 * _scrambled(state[k] ^ state[(k + 1) % 4] ^ state[k - 1])
        r2 = r1 + (1, 1 + seed, 2, 3)[k]
        state[(k + 1) % 4] = (state[(k + 1) % 4] + r1) % 2**32
        state[(k + 2) % 4] = (state[(k + 2) % 4] + r2) % 2**32
        state[k] = r2 % 2**32
    for k in range(4):
        r3 = 1566083941 * _scrambled((state[k] + state[(k + 1) % 4] + state[k - 1]) % 2**32)
        r4 = r3 - k
        state[(k + 1) % 4] ^= r3 % 2**32
        state[(k + 2) % 4] ^= r4 % 2**32
        state[k] = r4 % 2**32
    return state


def _scrambled(word: int) -> int:
    return word ^ (word >> 27)
