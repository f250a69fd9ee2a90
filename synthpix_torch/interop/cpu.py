"""The instruction set that XLA and NumPy compute with on the host."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path
from typing import Final

_WIDTHS: Final = ("avx", "avx2", "avx512f", "fma", "sve")
"""Instructions that change how sums and products of floats are rounded."""


@functools.cache
def instruction_set() -> str:
    """Name the processor's maker, its architecture and the instructions that change bits.

    Makers have tables of their own for the approximate reciprocal square root. Includes a limit
    that `XLA_FLAGS` sets, for example "GenuineIntel x86_64 avx avx2 fma, at most AVX2".
    """
    maker, instructions = _read(Path("/proc/cpuinfo"))
    names = " ".join([*maker, platform.machine(), *instructions])
    limit = re.search(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    return f"{names}, at most {limit[1]}" if limit else names


def _read(path: Path) -> tuple[list[str], list[str]]:
    """Read the maker and the listed instructions, as far as the system tells them."""
    try:
        # All processors of a machine are alike: the first is enough.
        first = path.read_text().partition("\n\n")[0]
    except OSError:
        return [], []
    lines = (line.partition(":") for line in first.splitlines())
    values = {key.strip(): value for key, _, value in lines}
    flags = values.get("flags", values.get("Features", "")).split()
    return values.get("vendor_id", "").split(), [name for name in _WIDTHS if name in flags]
