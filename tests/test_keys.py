"""Keys of pairs: none is used twice, and no two data sets share any."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from kinds import base

from synthpix_torch import SynthPixDataset
from synthpix_torch.render.keys import Origin, pair_keys


def keys(seed: int, *, pairs: range, repetition: int = 0) -> np.ndarray:
    numbers = jnp.asarray([(seed, *divmod(pair, 2**32)) for pair in pairs], jnp.uint32).T
    origin = Origin(jnp.zeros(len(pairs), jnp.int32), numbers, numbers)
    return np.asarray(pair_keys(origin, jnp.int32(repetition)).keys)


def as_set(array: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in array}


def test_seeds_share_no_key_however_near_they_are() -> None:
    pairs = range(500)
    seen: set[bytes] = set()
    for seed in (0, 1, 2, 3, 8, 16, 64, 500, 2**31, 2**32 - 1):
        new = as_set(keys(seed, pairs=pairs))
        assert len(new) == len(pairs)
        assert not seen & new
        seen |= new


def test_pairs_and_repetitions_share_no_key() -> None:
    near = as_set(keys(0, pairs=range(500)))
    far = as_set(keys(0, pairs=range(2**32, 2**32 + 500)))
    again = as_set(keys(0, pairs=range(500), repetition=1))
    assert len(near | far | again) == 1500


def test_keys_are_not_those_of_other_uses_of_the_seed() -> None:
    plain = np.asarray(jax.vmap(jax.random.PRNGKey)(jnp.arange(500)))
    folded = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.PRNGKey(0), jnp.arange(500))
    ours = as_set(keys(0, pairs=range(500)))
    assert not ours & as_set(plain)
    assert not ours & as_set(np.asarray(folded))


def test_data_sets_of_near_seeds_have_nothing_in_common() -> None:
    config = base(noise_uniform=0.0, noise_gaussian_std=0.0, randomize=False)
    with SynthPixDataset(config) as one:
        images = [one.batch_at(n).images[:, 0].flatten(1) for n in range(3)]
    for step in (1, config["batch_size"]):
        with SynthPixDataset({**config, "seed": config["seed"] + step}) as other:
            for n in range(3):
                for image in other.batch_at(n).images[:, 0].flatten(1):
                    assert all((image != old).any(1).all() for old in images)


def test_bits_of_a_record_are_shared_by_its_pairs_and_repetitions() -> None:
    config = base(flow_fields_per_batch=2, batches_per_flow_batch=2)
    with SynthPixDataset(config) as dataset:
        first, again = dataset.batch_at(0), dataset.batch_at(1)
    assert first.seeds.tolist() == again.seeds.tolist()
    assert first.seeds[:2].tolist() == first.seeds[2:].tolist()
    assert len(set(first.seeds.tolist())) == 2
    assert (first.keys != again.keys).any(1).all()
