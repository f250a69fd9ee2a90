"""Copy a state dict to the memory of the host, as it is now."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from typing import Any

import torch

_PLAIN = (int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device)
_SHARDED = ("DTensor", "ShardedTensor")
_READABLE_BITS = 2000
"""Longer integers are pickled in a way that torch does not read with weights_only=True."""

_Storages = dict[Any, tuple[torch.UntypedStorage, torch.dtype, str]]
"""Copied memory, and dtype and name of the first tensor in it, by where the original is."""


def snapshot(state: Any, name: str) -> Any:
    """Copy a state dict to the memory of the host; tensors that share memory still share it.

    Raises:
        TypeError: A value could be saved, but not be read with `weights_only=True`.
    """
    return _copy(state, name, {})


def _copy(value: Any, where: str, storages: _Storages) -> Any:
    kind = type(value)
    if kind in _PLAIN and not (kind is int and value.bit_length() > _READABLE_BITS):
        return value
    if kind in (torch.Tensor, torch.nn.Parameter) and _is_simple(value):
        return _copy_tensor(value.detach(), where, storages)
    if kind in (dict, OrderedDict):
        items = {
            _copy(key, f"a key of {where}", storages): _copy(item, f"{where}[{key!r}]", storages)
            for key, item in value.items()
        }
        copied = kind(items)
        if hasattr(value, "_metadata"):
            # Versions of modules, which load_state_dict reads.
            vars(copied)["_metadata"] = copy.deepcopy(value._metadata)
        return copied
    if kind in (list, tuple):
        return kind(_copy(item, f"{where}[{i}]", storages) for i, item in enumerate(value))
    if kind.__name__ in _SHARDED:
        raise TypeError(
            f"{where} is a {kind.__name__}, of which each rank holds a part: register an object "
            "whose state_dict() returns full tensors, or use torch.distributed.checkpoint, which "
            "saves the dataset as it is."
        )
    return _copy_through_torch(value, where)


def _is_simple(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _copy_tensor(tensor: torch.Tensor, where: str, storages: _Storages) -> torch.Tensor:
    storage = tensor.untyped_storage()
    key = (tensor.device, storage.data_ptr(), storage.nbytes())
    extent = sum((n - 1) * step for n, step in zip(tensor.size(), tensor.stride(), strict=True))
    end = (tensor.storage_offset() + extent + 1) * tensor.element_size()
    if tensor.numel() and end > storage.nbytes():
        raise TypeError(f"The memory of {where} was freed: save before that, or leave it out.")
    if key not in storages:
        # As a tensor, because torch copies tensors with all threads.
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        copied = (whole.cpu() if whole.is_cuda else whole.clone()).untyped_storage()
        storages[key] = copied, tensor.dtype, where
    copied, dtype, other = storages[key]
    if dtype != tensor.dtype and storage.nbytes():
        raise TypeError(
            f"{where} ({tensor.dtype}) and {other} ({dtype}) share memory, which torch.save cannot "
            "write: clone one of them in state_dict()."
        )
    empty = torch.empty(0, dtype=tensor.dtype, device="cpu")
    return empty.set_(copied, tensor.storage_offset(), tensor.size(), tensor.stride())


def _copy_through_torch(value: Any, where: str) -> Any:
    """Copy a rare type by saving and loading it, which shows at once whether torch can."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True, map_location="cpu")
    except (pickle.PickleError, AttributeError, RuntimeError, TypeError, IndexError) as error:
        raise TypeError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which torch.load "
            "refuses to read with weights_only=True: make it a tensor, a number or a string in "
            "state_dict(), or allow its type with torch.serialization.add_safe_globals."
        ) from error
