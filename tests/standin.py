"""Simulate torch.cuda: streams do their queued work when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stream:
    """Queue kernels in order; a kernel that returns False is not ready yet."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], object]] = deque()

    def launch(self, kernel: Callable[[], object]) -> None:
        self.queue.append(kernel)

    def wait_event(self, event: Event) -> None:
        self.launch(event.query)

    def wait_stream(self, other: Stream) -> None:
        event = Event(Cuda())
        event.record(other)
        self.wait_event(event)

    def step(self) -> None:
        if self.queue and self.queue[0]() is not False:
            self.queue.popleft()


class Event:
    """Pass when the stream has done the work queued before the event."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._passed = True

    def record(self, stream: Stream) -> None:
        self._passed = False
        stream.launch(self._pass)

    def query(self) -> bool:
        return self._passed

    def synchronize(self) -> None:
        self._cuda.waits += 1
        while not self._passed:
            self._cuda.step()

    def _pass(self) -> None:
        self._passed = True


class Cuda:
    """Provide the functions of torch.cuda that the bridge uses.

    Attributes:
        waits: Number of times the host has waited for the device.
        capturing: Whether a graph is being captured.
    """

    def __init__(self) -> None:
        self.default, self.side = Stream(), Stream()
        self._current = self.default
        self.waits = 0
        self.capturing = False

    def Event(self, blocking: bool = False) -> Event:
        return Event(self)

    def current_stream(self, device: Any = None) -> Stream:
        return self._current

    def default_stream(self, device: Any = None) -> Stream:
        return self.default

    def is_initialized(self) -> bool:
        return True

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def step(self) -> None:
        self.default.step()
        self.side.step()

    def synchronize(self) -> None:
        while self.default.queue or self.side.queue:
            self.step()
