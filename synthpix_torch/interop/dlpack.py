"""One jax.Array to one torch.Tensor without a copy, kept safe until torch is done with it."""

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
"""Batches that torch holds no more and that wait for its kernels, before the host waits.

The host then is at most one step ahead of torch when it asks for a batch, and never more than two
batches are kept that torch has finished with: one waits here, one was dropped since the last call.
"""

_NOT_IN_DLPACK = ("int2", "int4", "uint2", "uint4")


class _Lease(NamedTuple):
    """An array whose memory a tensor shares."""

    storage: StorageWeakRef
    array: Any
    device: torch.device
    stream: Any


class _Freed(NamedTuple):
    """Arrays whose tensors are gone, and events behind the work that may still use them."""

    events: list[Any]
    arrays: list[Any]


class Bridge:
    """Hands memory of JAX to torch, and back only when torch has finished with it.

    DLPack makes torch wait for JAX, but nothing makes JAX wait for torch: once the last tensor on a
    block is gone, JAX may give the block to its next computation while kernels that torch has
    queued still read it. So the bridge leases the memory of a GPU: it keeps the array until torch
    has freed the storage, and then until events behind the work queued by then have passed. They
    are recorded on the stream that was current when the array was handed over, on the current one
    and on the default one. On a CPU torch computes before it returns, so nothing is kept.

    A bridge lives on while torch has memory from it, whoever made it is gone or not. Call `release`
    before the arrays of each batch are handed over.
    """

    def __init__(self, *, cuda: Any = None) -> None:
        """Make a bridge.

        Args:
            cuda: Stands in for `torch.cuda` in tests, which lease the memory of a CPU with it.
        """
        self._cuda = cuda or torch.cuda
        self._everything_leased = cuda is not None
        self._leases: list[_Lease] = []
        self._freed: deque[_Freed] = deque()

    def to_torch(self, x: Shaped[jax.Array, "..."]) -> Shaped[torch.Tensor, "..."]:
        """View a JAX array as a torch tensor on the same device.

        No bytes are copied: the tensor aliases the memory of `x` and keeps it alive, through views,
        `.data`, `.numpy()` and parameters made from it. Writing into the tensor changes `x`.

        Args:
            x: Committed to a single device; any dtype that DLPack can carry.

        Returns:
            Same shape, dtype and device as `x`. On a GPU torch's current stream waits for JAX, the
            host does not.

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
        """Raise where JAX must not be asked for anything.

        Raises:
            RuntimeError: A CUDA graph is being captured, which JAX's work would spoil.
        """
        if self._is_capturing():
            raise RuntimeError(
                "A batch cannot be made while a CUDA graph is captured: copy a batch into memory "
                "of the graph's own first (static = batch.images.clone()) and capture its use."
            )

    def release(self) -> None:
        """Give back to JAX what torch has finished with, in this and in all other bridges.

        Waits for torch only if it has fallen so far behind that the device would fill up.
        """
        collect()
        with _LOCK:
            while len(self._freed) > MOST_WAITING:
                for event in self._freed[0].events:
                    event.synchronize()
                self._freed.popleft()

    @property
    def held(self) -> int:
        """Number of arrays that torch may still use."""
        return len(self._leases) + sum(len(freed.arrays) for freed in self._freed)

    def _is_capturing(self) -> bool:
        return bool(self._cuda.is_initialized() and self._cuda.is_current_stream_capturing())

    def _collect(self) -> None:
        if self._is_capturing():
            # An event would become a part of the graph.
            return
        freed = [lease for lease in self._leases if lease.storage.expired()]
        if freed:
            self._freed.append(_Freed(self._record(freed), [lease.array for lease in freed]))
            # Of the list as it is now: the garbage collector may have run code that leases.
            gone = set(map(id, freed))
            self._leases = [lease for lease in self._leases if id(lease) not in gone]
        while self._freed and all(event.query() for event in self._freed[0].events):
            self._freed.popleft()
        if not self.held:
            _LENDERS.discard(self)

    def _record(self, freed: list[_Lease]) -> list[Any]:
        """Events behind the work that is queued on the streams that may use freed memory."""
        streams = {lease.stream for lease in freed}
        for device in {lease.device for lease in freed}:
            streams |= {self._cuda.current_stream(device), self._cuda.default_stream(device)}
        events = []
        for stream in streams:
            # Blocking: a host that has to wait leaves its core to the threads that read.
            event = self._cuda.Event(blocking=True)
            event.record(stream)
            events.append(event)
        return events


_LENDERS: Final[set[Bridge]] = set()
_LOCK: Final = threading.RLock()


def collect() -> None:
    """Give back to JAX what torch has finished with, without waiting for it."""
    with _LOCK:
        for bridge in tuple(_LENDERS):
            bridge._collect()


def _check(x: jax.Array) -> None:
    if x.sharding.num_devices != 1:
        raise ValueError(
            f"The array is spread over {x.sharding.num_devices} devices, a tensor lives on one: "
            "pass x.addressable_shards[i].data."
        )
    _check_dtype(x.dtype)


@functools.cache
def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, np.dtype):
        raise TypeError(f"torch has no dtype for the keys {dtype}: pass jax.random.key_data(x).")
    if dtype.name in _NOT_IN_DLPACK or not hasattr(torch, dtype.name):
        raise TypeError(
            f"torch has no dtype for {dtype.name}: convert the array first, for example "
            "with x.astype('float32')."
        )
