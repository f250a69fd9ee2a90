"""The end of the process: batches that are being made are completed, and no more are begun.

Python waits for all reads that Grain has queued before it exits, and kills a daemon thread wherever
it is; within JAX or torch that aborts the process.
"""

from __future__ import annotations

import threading
import time
from typing import Final

LONGEST: Final = 10.0
"""Seconds that the exit waits for threads that are making a batch."""

_BUSY: Final[set[threading.Thread]] = set()
_EXITING: Final = threading.Event()


class Making:
    """A context in which a thread makes batches; the exit of the process waits for its end.

    Raises:
        SystemExit: The process exits; ends a daemon thread silently.
        RuntimeError: The process exits, and this thread is no daemon.
    """

    def __enter__(self) -> None:
        thread = threading.current_thread()
        _BUSY.add(thread)
        if _EXITING.is_set():
            _BUSY.discard(thread)
            raise refusal()

    def __exit__(self, *exception: object) -> None:
        _BUSY.discard(threading.current_thread())


def is_exiting() -> bool:
    """Return whether the main thread has ended."""
    return _EXITING.is_set()


def refusal() -> SystemExit | RuntimeError:
    """Return what to raise in a thread that requests a batch while the process exits."""
    message = "The main thread has ended, so no batch is made: join this thread before."
    return SystemExit(message) if threading.current_thread().daemon else RuntimeError(message)


def _wait() -> None:
    _EXITING.set()
    deadline = time.monotonic() + LONGEST
    while any(thread.is_alive() for thread in tuple(_BUSY)) and time.monotonic() < deadline:
        time.sleep(0.001)


# Not atexit: that is called after Python has waited for the reads.
threading._register_atexit(_wait)  # type: ignore[attr-defined]
