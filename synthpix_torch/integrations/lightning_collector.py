"""Keep a `Collector` in the checkpoints of a Lightning Trainer."""

from __future__ import annotations

from typing import Any

from synthpix_torch.collecting import Collector
from synthpix_torch.extra import required_by

with required_by(
    "synthpix_torch.lightning needs Lightning",
    "lightning",
    "lightning.pytorch",
    extra="lightning",
):
    import lightning.pytorch as pl


class CollectorCallback(pl.Callback):
    """Store the position of a collector in every checkpoint, and finalize it after the training.

        trainer = Trainer(callbacks=[ResumeCallback(dataset), CollectorCallback(collector)])

    Call `collector.collect` in `training_step`, or in a callback that is listed earlier than those
    that save checkpoints.
    """

    def __init__(self, collector: Collector, *, name: str = "collector") -> None:
        """Choose a collector.

        Args:
            collector: The collector.
            name: Distinguishes several collectors of one Trainer.
        """
        self.collector = collector
        self._name = name

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return f"CollectorCallback-{self._name}"

    def state_dict(self) -> dict[str, Any]:
        """Return the collector's state, once its rows are on disk."""
        state = self.collector.state_dict()
        self.collector.flush()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the rows of the checkpoint."""
        self.collector.load_state_dict(state_dict)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rest of the rows and the HDF5 files."""
        self.collector.finalize()
