"""Turns of threads: a CPU runs the programs of one thread sequentially, those of two concurrently.

Much of a step runs on one core. So a CPU is busy with two batches at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from synthpix_torch.render.flags import random_flags, shielded


class Turns:
    """Call compiled programs in this thread and in another one by turns."""

    def __init__(self, device: jax.Device) -> None:
        """Start no thread yet.

        Args:
            device: Runs the programs. On a GPU all are called in this thread.
        """
        self._other = ThreadPoolExecutor(1) if device.platform == "cpu" else None
        self._elsewhere = False

    def call(self, program: Callable[..., Any], *arguments: Any) -> Any:
        """Call a program in the thread whose turn it is; return before the program has ended."""
        if self._other is None or not self._elsewhere:
            return program(*arguments)
        flags = random_flags()
        called, result = self._other.submit(_call, flags, program, arguments).result()
        return result if called else program(*arguments)

    def end(self) -> None:
        """End a turn."""
        self._elsewhere = not self._elsewhere


@shielded
def _call(
    flags: dict[str, Any], program: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[bool, Any]:
    """Call a program unless the settings that bits depend on are others in this thread."""
    if random_flags() != flags:
        return False, None
    return True, program(*arguments)
