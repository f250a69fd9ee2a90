"""The command `synthpix-torch`; each subcommand is a module of this folder."""

from synthpix_torch.cli.main import main

__all__ = ["main"]
