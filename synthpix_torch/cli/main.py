"""The table of subcommands, their parser and the exit status.

A subcommand is a module with `HELP`, `add_arguments(parser)` and `run(options) -> int`, and a line
in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from types import ModuleType
from typing import Any, Final

from synthpix_torch.cli import bench, check, export, inspect, preview, replay, verify

COMMANDS: dict[str, ModuleType] = {
    "preview": preview,
    "check": check,
    "verify": verify,
    "bench": bench,
    "export": export,
    "inspect": inspect,
    "replay": replay,
}

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status.

    Returns:
        0 for success, 1 for a negative result, 130 after Ctrl-C.

    Raises:
        SystemExit: With status 2 if the arguments are wrong or the subcommand cannot run.
    """
    parser = argparse.ArgumentParser(prog="synthpix-torch")
    subparsers = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        )
    options = parser.parse_args(arguments)
    title = f"{parser.prog} {options.command}"
    try:
        with warnings.catch_warnings(), _repeated_interrupts():
            warnings.showwarning = _show_warning
            return int(COMMANDS[options.command].run(options))
    except KeyboardInterrupt:
        print(f"{title}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        notes = getattr(error, "__notes__", [])
        parser.exit(2, f"{title}: {' '.join([str(error), *notes])}\n")


@contextmanager
def _repeated_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt again where Python ignores it, as in JAX's garbage collection."""
    previous = sys.unraisablehook

    def repeat(ignored: Any) -> None:
        if ignored.exc_type is KeyboardInterrupt:
            Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            previous(ignored)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
