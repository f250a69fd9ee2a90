"""Host memory that JAX on a CPU uses as it is, without a copy."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Shaped

_ALIGNMENT: Final = 64
"""Bytes; XLA computes with arrays that begin at a multiple of them."""


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """Return an array with arbitrary values whose memory is aligned for JAX."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)
