"""Share the memory of JAX arrays with torch tensors, and keep it until torch has finished."""

from __future__ import annotations

import functools
import threading
from collections import deque
from typing import Any, Final, NamedTuple

import jax
import numpy as np
import torch
import torch.utils.dlpack
from jaxtyping import Shaped
from torch.multiprocessing.reductions import StorageWeakRef

MOST_WAITING: Final = 1
"""Number of freed batches whose kernels may still be queued before the host waits.

With 1 the host is at most one step ahead of torch when it requests a batch, and at most two freed
batches are kept: one that waits here, and one that was freed since the last call.
"""

_NOT_IN_DLPACK = ("int2", "int4", "uint2", "uint4")


class _Lease(NamedTuple):
    """Hold an array whose memory a tensor shares."""

    storage: StorageWeakRef
    array: Any
    device: torch.device
    stream: Any


class _Freed(NamedTuple):
    """Hold arrays whose tensors are freed, and events after the kernels that may use them."""

    events: list[Any]
    arrays: list[Any]


class Bridge:
    """Lend the memory of JAX arrays to torch, and return it to JAX when torch has finished.

    DLPack makes torch wait for JAX, but nothing makes JAX wait for torch: when the last tensor on a
    block is freed, JAX may reuse the block while kernels that torch has queued still read it. So on
    a GPU the bridge leases memory: it keeps the array until torch has freed the storage, and then
    until the work queued at that time has finished. It records CUDA events for that work on three
    CUDA streams: the one that was current when the array was shared, the current one and the
    default one. On a CPU torch computes synchronously, so nothing is kept.

    A bridge stays alive as long as torch holds memory from it, even if its owner was deleted. Call
    `release` before sharing the arrays of each batch.
    """

    def __init__(self, *, cuda: Any = None) -> None:
        """Create a bridge.

        Args:
            cuda: Replaces `torch.cuda` in tests, so that they lease memory of a CPU.
        """
        self._cuda = cuda or torch.cuda
        self._everything_leased = cuda is not None
        self._leases: list[_Lease] = []
        self._freed: deque[_Freed] = deque()

    def to_torch(self, x: Shaped[jax.Array, "..."]) -> Shaped[torch.Tensor, "..."]:
        """View a JAX array as a torch tensor on the same device.

        No bytes are copied: the tensor aliases the memory of `x` and keeps it alive, and so do its
        views, `.data`, `.numpy()` and parameters. Writing into the tensor changes `x`.

        Args:
            x: Committed to a single device; any dtype that DLPack can carry.

        Returns:
            Same shape, dtype and device as `x`. On a GPU torch's current CUDA stream waits for JAX;
            the host does not.

        Raises:
            ValueError: `x` is spread over several devices.
            TypeError: torch has no dtype for `x`.
        """
        _check(x)
        tensor = torch.utils.dlpack.from_dlpack(x)
        if self._everything_leased or tensor.is_cuda:
            stream = self._cuda.current_stream(tensor.device)
            storage = StorageWeakRef(tensor.untyped_storage())
            with _LOCK:
                self._leases.append(_Lease(storage, x, tensor.device, stream))
                _LENDERS.add(self)
        return tensor

    def refuse_capture(self) -> None:
        """Refuse to make a batch during the capture of a CUDA graph.

        Raises:
            RuntimeError: A CUDA graph is being captured; work of JAX would invalidate it.
        """
        if self._is_capturing():
            raise RuntimeError(
                "A batch cannot be made while a CUDA graph is captured: copy a batch into static "
                "memory before the capture (static = batch.images.clone()) and capture its use."
            )

    def release(self) -> None:
        """Return to JAX the memory that torch has finished with, in this and all other bridges.

        Wait for torch only if more than `MOST_WAITING` freed batches would be kept.
        """
        collect()
        with _LOCK:
            while len(self._freed) > MOST_WAITING:
                for event in self._freed[0].events:
                    event.synchronize()
                self._freed.popleft()

    @property
    def held(self) -> int:
        """Return the number of arrays that torch may still use."""
        return len(self._leases) + sum(len(freed.arrays) for freed in self._freed)

    def _is_capturing(self) -> bool:
        return bool(self._cuda.is_initialized() and self._cuda.is_current_stream_capturing())

    def _collect(self) -> None:
        if self._is_capturing():
            # An event would become part of the graph.
            return
        freed = [lease for lease in self._leases if lease.storage.expired()]
        if freed:
            self._freed.append(_Freed(self._record(freed), [lease.array for lease in freed]))
            # Filter the current list: the garbage collector may have run code that adds leases.
            gone = set(map(id, freed))
            self._leases = [lease for lease in self._leases if id(lease) not in gone]
        while self._freed and all(event.query() for event in self._freed[0].events):
            self._freed.popleft()
        if not self.held:
            _LENDERS.discard(self)

    def _record(self, freed: list[_Lease]) -> list[Any]:
        """Record events after the work queued on the CUDA streams that may use freed memory."""
        streams = {lease.stream for lease in freed}
        for device in {lease.device for lease in freed}:
            streams |= {self._cuda.current_stream(device), self._cuda.default_stream(device)}
        events = []
        for stream in streams:
            # Blocking: while the host waits, its core is free for the threads that read.
            event = self._cuda.Event(blocking=True)
            event.record(stream)
            events.append(event)
        return events


_LENDERS: Final[set[Bridge]] = set()
_LOCK: Final = threading.RLock()


def collect() -> None:
    """Return to JAX the memory that torch has finished with; never wait."""
    with _LOCK:
        for bridge in tuple(_LENDERS):
            bridge._collect()


def _check(x: jax.Array) -> None:
    if x.sharding.num_devices != 1:
        raise ValueError(
            f"The array is spread over {x.sharding.num_devices} devices, a tensor needs one: "
            "pass x.addressable_shards[i].data."
        )
    _check_dtype(x.dtype)


@functools.cache
def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, np.dtype):
        raise TypeError(
            f"torch has no dtype for typed keys ({dtype}): pass jax.random.key_data(x)."
        )
    if dtype.name in _NOT_IN_DLPACK or not hasattr(torch, dtype.name):
        raise TypeError(
            f"torch has no dtype for {dtype.name}: convert the array first, for example "
            "x.astype('float32')."
        )
