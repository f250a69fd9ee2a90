"""Train with Lightning, a callback and a data module, on one process or several (DDP).

python examples/train_lightning.py [--resume]
torchrun --nproc-per-node 2 examples/train_lightning.py [--resume]

Validation runs every `--save-every` steps over the same twelve batches.
"""

import os
from typing import Any

import lightning.pytorch as pl
import piv
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from synthpix_torch import Batch
from synthpix_torch.lightning import ResumeCallback, SynthPixDataModule


class Module(pl.LightningModule):
    """Train the network on the end-point error."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.optimizer = piv.model()

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Return the end-point error."""
        return piv.end_point_error(self.net(batch.images), batch.flow_fields)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log the end-point error of the validation window."""
        error = piv.end_point_error(self.net(batch.images), batch.flow_fields)
        self.log("val_error", error, prog_bar=True, batch_size=len(batch.images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return self.optimizer


class Note(pl.Callback):
    """Write the journal before a checkpoint is saved; a hook of the module would run after it."""

    def __init__(self, journal: piv.Journal) -> None:
        self.journal = journal

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Write the line of this step."""
        self.journal.note(trainer.global_step, batch, outputs["loss"], pl_module.net)


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("lightning")
    config = options.config or piv.CONFIG
    data = SynthPixDataModule(
        config,
        val=config if options.config else {**config, "seed": 1},
        # Divisible by 2, 3, 4 and 6 ranks.
        val_batches=12,
        streams=options.streams,
        scale_images=True,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        max_steps=options.steps,
        default_root_dir=options.folder,
        logger=False,
        enable_progress_bar=False,
        val_check_interval=options.save_every,
        check_val_every_n_epoch=None,
        callbacks=[
            Note(piv.Journal(options.folder, int(os.environ.get("RANK", "0")))),
            ResumeCallback(),
            ModelCheckpoint(options.folder, every_n_train_steps=options.save_every, save_last=True),
        ],
    )
    trainer.fit(Module(), datamodule=data, ckpt_path="last" if options.resume else None)


if __name__ == "__main__":
    main()
