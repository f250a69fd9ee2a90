"""A batch as tensors to store, and its digest."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import torch

from synthpix_torch.batch import Batch
from synthpix_torch.tensor_files import memory

# Integers per grey level of 255.
LEVELS: Final = {"uint8": 1, "uint16": 257}


def to_tensors(batch: Batch, *, images: str, scale: float) -> dict[str, torch.Tensor]:
    """Return the tensors of the pairs of a batch, without its empty slots, on the CPU.

    Args:
        batch: The batch.
        images: Storage of grey levels: "given", "uint8" or "uint16".
        scale: The grey level of the batch that stands for 255.
    """
    tensors = {
        "images": encode(batch.images, images, scale),
        "flow_fields": batch.flow_fields,
        "epoch": batch.epoch,
        "seeds": batch.seeds,
        "keys": batch.keys.view(torch.int32),
        "slot": torch.arange(len(batch.mask)),
        "number": torch.full((len(batch.mask),), batch.number),
    }
    if batch.valid_flow_mask is not None:
        tensors["valid_flow_mask"] = batch.valid_flow_mask
    if batch.params is not None:
        for name, values in batch.params._asdict().items():
            tensors[f"params.{name}"] = values
    filled = batch.mask.cpu()
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    if filled.all():
        return on_cpu
    return {name: tensor[filled] for name, tensor in on_cpu.items()}


def digest(batch: Batch) -> str:
    """Return 128 bits of the SHA-256 of what a network sees: images, flow fields and masks."""
    total = hashlib.sha256()
    for tensor in (batch.images, batch.flow_fields, batch.mask, batch.valid_flow_mask):
        if tensor is not None:
            hash_tensor(total, tensor)
    return total.hexdigest()[:32]


def hash_tensor(total: hashlib._Hash, tensor: torch.Tensor) -> None:
    """Add dtype, shape and bytes of a tensor to a hash."""
    array = tensor.detach().cpu().contiguous()
    total.update(f"{array.dtype}{tuple(array.shape)}".encode())
    total.update(memory(array))


def encode(images: torch.Tensor, storage: str, scale: float) -> torch.Tensor:
    """Round grey levels to the integers in which they are stored, on the CPU.

    Args:
        images: Grey levels, of which `scale` stands for 255.
        storage: "uint8" rounds to whole grey levels of 255, "uint16" to 1/257 of one, "given"
            changes nothing. Levels outside 0 to 255 are clipped.
        scale: See `images`.
    """
    if storage == "given":
        return images
    factor, most = 255 / scale * LEVELS[storage], 255 * LEVELS[storage]
    given = images.cpu().float().numpy()
    encoded = np.empty(given.shape, storage)
    levels = np.empty(given.shape[1:], np.float32)
    # Pair by pair in the cache, and in this thread: torch would wait for the cores that render.
    for pair, target in zip(given, encoded, strict=True):
        np.multiply(pair, factor, out=levels)
        np.rint(levels, out=levels)
        np.clip(levels, 0, most, out=levels)
        np.copyto(target, levels, casting="unsafe")
    return torch.from_numpy(encoded)


def decode(images: torch.Tensor, storage: str, scale: float) -> torch.Tensor:
    """Return grey levels as float32 on the scale of the dataset that was recorded."""
    if storage == "given":
        return images
    return images.to(torch.float32) * (scale / 255 / LEVELS[storage])
