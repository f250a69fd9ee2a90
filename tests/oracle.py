"""Synthpix's own sampler as the oracle, and batches as comparable values."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import synthpix

from synthpix_torch import Batch, SynthPixBatch

# synthpix's logger starts a process that outlives the tests; its messages are of no use here.
for name in ("make", "sampler.base", "sampler.synthetic", "sampler.real"):
    sys.modules[f"synthpix.{name}"].logger = logging.getLogger("oracle")  # type: ignore[attr-defined]


def sampler(config: dict[str, Any]) -> Any:
    """synthpix's sampler, without the banner that it prints."""
    module = sys.modules["synthpix.make"]
    console, module.Console = module.Console, _Silent  # type: ignore[attr-defined]
    try:
        return synthpix.make({**config})
    finally:
        module.Console = console  # type: ignore[attr-defined]


class _Silent:
    def print(self, *_: object) -> None: ...


def stream(config: dict[str, Any]) -> Iterator[Any]:
    """synthpix's batches in its own order, episode after episode if there are any."""
    source = sampler(config)
    episode = config.get("episode_length", 0)
    while True:
        for _ in range(episode or 1):
            yield next(source)
        if episode:
            source.next_episode()


def theirs(batch: Any) -> dict[str, Any]:
    """The values of a batch of synthpix by name."""
    values: dict[str, Any] = {
        name: None if getattr(batch, name) is None else np.asarray(getattr(batch, name))
        for name in ("images1", "images2", "flow_fields", "done", "mask", "epoch", "seeds", "keys")
    }
    values["files"] = batch.files
    if batch.params is not None:
        for name in ("seeding_densities", "diameter_ranges", "intensity_ranges", "rho_ranges"):
            values[name] = np.asarray(getattr(batch.params, name))
    return values


def ours(batch: Batch | SynthPixBatch) -> dict[str, Any]:
    """The values of a batch of ours by synthpix's names and in its layout."""
    values: dict[str, Any] = {
        name: None if getattr(batch, name) is None else getattr(batch, name).numpy()
        for name in ("flow_fields", "done", "mask", "epoch", "seeds", "keys")
    }
    if isinstance(batch, SynthPixBatch):
        values |= {"images1": batch.images1.numpy(), "images2": batch.images2.numpy()}
    else:
        values["images1"], values["images2"] = batch.images.unbind(1)
        values = {
            k: v if v is None or isinstance(v, np.ndarray) else v.numpy() for k, v in values.items()
        }
        values["flow_fields"] = np.moveaxis(values["flow_fields"], 1, 3)
    values["files"] = batch.files
    if batch.params is not None:
        values |= {name: value.numpy() for name, value in batch.params._asdict().items()}
    return values


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the values that are not equal to the last bit."""
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    return [name for name in a if not _equal(a[name], b[name])]


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None or isinstance(a, tuple):
        return bool(a is b if a is None or b is None else a == b)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def digest(batch: Batch | SynthPixBatch) -> str:
    """One digest of everything in a batch."""
    total = hashlib.sha256(str((batch.number, list(batch.files))).encode())
    for name, value in sorted(ours(batch).items()):
        if isinstance(value, np.ndarray):
            total.update(name.encode() + value.dtype.str.encode() + value.tobytes())
    return total.hexdigest()[:16]
