"""The table of subcommands, their parser and the exit status.

A subcommand is a module with `HELP`, `add_arguments(parser)` and `run(options) -> int`, and a line
in `COMMANDS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from types import ModuleType

from synthpix_torch.checkpoint.folder import CheckpointError
from synthpix_torch.cli import check, export, inspect
from synthpix_torch.recording import RecordingError

COMMANDS: dict[str, ModuleType] = {"check": check, "export": export, "inspect": inspect}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 0 for success, 1 for a negative result.

    Raises:
        SystemExit: With status 2 if the arguments are wrong or the subcommand cannot run.
    """
    parser = argparse.ArgumentParser(prog="synthpix-torch")
    subparsers = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    parsers = {}
    for name, command in COMMANDS.items():
        parsers[name] = subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(parsers[name])
    options = parser.parse_args(arguments)
    try:
        return int(COMMANDS[options.command].run(options))
    except (ValueError, TypeError, OSError, ImportError, CheckpointError, RecordingError) as error:
        parsers[options.command].error(str(error))
