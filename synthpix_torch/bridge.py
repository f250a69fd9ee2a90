"""One jax.Array to one torch.Tensor without a copy, kept safe until torch is done with it."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import torch
import torch.utils.dlpack
from jaxtyping import Shaped
from torch.multiprocessing.reductions import StorageWeakRef

_NOT_IN_DLPACK = ("int2", "int4", "uint2", "uint4")


class Event(Protocol):
    """The part of torch.cuda.Event that tells whether work queued before it is done."""

    def query(self) -> bool:
        """Whether the work is done."""

    def synchronize(self) -> None:
        """Wait until the work is done."""


class _Lease(NamedTuple):
    """Memory that torch may still use."""

    storage: StorageWeakRef
    owner: Any
    device: torch.device
    streams: tuple[torch.cuda.Stream, ...]


class Bridge:
    """Hands memory of JAX to torch, and back only when torch has finished with it.

    DLPack makes torch wait for JAX, but nothing makes JAX wait for torch: once the last tensor on a
    block is gone, JAX may give the block to its next computation while kernels that torch has
    queued still read it. So the bridge holds each array of a GPU until torch has freed the storage,
    and then until an event recorded behind the work queued by then has passed. On a CPU torch
    computes before it returns, so nothing is held.

    Call `release` once for each batch, so that what torch has finished with is let go.
    """

    def __init__(
        self,
        *,
        max_pending: int = 16,
        record: Callable[[torch.device, tuple[torch.cuda.Stream, ...]], Sequence[Event]]
        | None = None,
    ) -> None:
        """Make a bridge.

        Args:
            max_pending: Freed arrays that may wait for torch's kernels at a time. Beyond that the
                host waits for the oldest, so that memory stays bounded.
            record: Records events behind the work queued on a device, to be replaced in tests.
        """
        self._leases: list[_Lease] = []
        self._pending: deque[tuple[Sequence[Event], Any]] = deque()
        self._max_pending = max_pending
        self._record = record or _record_cuda
        self._leases_needed = record is not None
        self._lock = threading.RLock()

    def to_torch(self, x: Shaped[jax.Array, "..."]) -> Shaped[torch.Tensor, "..."]:
        """View a JAX array as a torch tensor on the same device.

        No bytes are copied: the tensor aliases the memory of `x` and keeps it alive, through views,
        `.data`, `.numpy()` and parameters made from it. Writing into the tensor changes `x`.

        Args:
            x: Committed to a single device; any dtype that DLPack can carry.

        Returns:
            Same shape, dtype and device as `x`. On a GPU torch's current stream waits for JAX; to
            use the tensor on another stream, let that stream wait for the current one first.

        Raises:
            ValueError: `x` is spread over several devices.
            TypeError: torch has no dtype for `x`.
        """
        _check(x)
        tensor = torch.utils.dlpack.from_dlpack(x)
        if self._leases_needed or tensor.is_cuda:
            streams = (torch.cuda.current_stream(tensor.device),) if tensor.is_cuda else ()
            with self._lock:
                self._leases.append(
                    _Lease(StorageWeakRef(tensor.untyped_storage()), x, tensor.device, streams)
                )
        return tensor

    def release(self) -> None:
        """Let go of the arrays that torch has finished with."""
        with self._lock:
            if not self._leases and not self._pending:
                return
            held = []
            for lease in self._leases:
                if lease.storage.expired():
                    events = self._record(lease.device, lease.streams)
                    self._pending.append((events, lease.owner))
                else:
                    held.append(lease)
            self._leases = held
            while self._pending and all(event.query() for event in self._pending[0][0]):
                self._pending.popleft()
            while len(self._pending) > self._max_pending:
                for event in self._pending[0][0]:
                    event.synchronize()
                self._pending.popleft()

    @property
    def held(self) -> int:
        """Number of arrays that torch may still use."""
        return len(self._leases) + len(self._pending)


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


def _record_cuda(
    device: torch.device, streams: tuple[torch.cuda.Stream, ...]
) -> list[torch.cuda.Event]:
    """Events behind all work queued so far on the streams that are likely to use the memory."""
    events = []
    for stream in {*streams, torch.cuda.current_stream(device)}:
        event = torch.cuda.Event()
        event.record(stream)
        events.append(event)
    return events
