"""Processes that print lines, and that never outlive the command."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence


class Worker:
    """A process of its own session: Ctrl-C in the terminal does not reach it. Must be closed.

    Attributes:
        name: What the process is, for errors.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Start the process.

        Raises:
            OSError: It cannot be started.
        """
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise

    def lines(self) -> Iterator[str]:
        """Yield what the process prints, line by line, until it ends.

        Raises:
            ChildProcessError: It failed.
        """
        assert self._process.stdout is not None
        # Not `yield from`, which would close the pipe with the generator.
        for line in self._process.stdout:  # noqa: UP028
            yield line
        status = self._process.wait()
        if status != 0:
            self._errors.seek(0)
            written = self._errors.read().strip().splitlines()
            reason = written[-1] if written else f"exit status {status}"
            raise ChildProcessError(f"The {self.name} failed: {reason}")

    def kill(self) -> Sequence[str]:
        """Kill the process (SIGKILL) and return the complete lines that it had printed since."""
        self._process.kill()
        assert self._process.stdout is not None
        rest = self._process.stdout.read()
        self._process.wait()
        return rest[: rest.rfind("\n") + 1].splitlines()

    def close(self) -> None:
        """Kill the process if it still runs, and release its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
