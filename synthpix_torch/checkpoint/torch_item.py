"""An item of an Orbax Composite in torch's own file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orbax.checkpoint as ocp
import torch

FILE = "state.pt"


class TorchHandler(ocp.CheckpointHandler):  # type: ignore[misc]
    """Writes a state dict with torch.save and reads it with `weights_only=True`."""

    def save(self, directory: Any, args: TorchSave) -> None:
        """Write `args.item` to state.pt."""
        with open(directory / FILE, "wb") as file:
            torch.save(args.item, file)

    def restore(self, directory: Any, args: TorchRestore | None = None) -> Any:
        """Read what was written, with all tensors on the CPU."""
        return torch.load(directory / FILE, weights_only=True, map_location="cpu")


@ocp.args.register_with_handler(TorchHandler, for_save=True)
@dataclass
class TorchSave(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """Save a state dict as it is.

    Attributes:
        item: Written while the save goes on; pass a copy if that happens in the background.
    """

    item: Any


@ocp.args.register_with_handler(TorchHandler, for_restore=True)
@dataclass
class TorchRestore(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """Read what `TorchSave` saved."""
