"""Train a compact correlation network on kinematic flow fields with Lightning.

python examples/train_piv.py                       # about ten minutes on two cores
python examples/train_piv.py --resume              # after a kill: the same weights, bit for bit
python examples/evaluate_piv.py runs/piv           # against OpenPIV, with pictures
"""

from __future__ import annotations

import argparse
from math import cos, pi
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from network import CorrelationNetwork

from synthpix_torch import Batch
from synthpix_torch.lightning import ResumeCallback, SynthPixDataModule
from synthpix_torch.metrics import end_point_errors
from synthpix_torch.presets import Configuration, camera
from synthpix_torch.torchmetrics import FlowFieldErrors

# An earlier search counts less than a later one, as in RAFT.
DECAY = 0.7


def training_images(**changes: Any) -> Configuration:
    """Describe the pairs to train on: smooth random flow fields and varied images of 64 px.

    Args:
        **changes: Arguments of `camera` that differ, such as `seed` or `image_shape`.
    """
    facts: dict[str, Any] = {
        "image_shape": (64, 64),
        "density": (0.02, 0.1),
        "diameter": (1.5, 3.5),
        "intensity": (80.0, 220.0),
        "max_displacement": 8.0,
        "noise": 5.0,
        "lost_pairs": 0.08,
        "batch_size": 8,
        "seed": 0,
    }
    return camera(**{**facts, **changes})


class Module(pl.LightningModule):
    """Train the network by the mean end-point error of all its searches.

    Args:
        steps: Training steps in all, for the learning rate.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.steps = steps
        self.net = CorrelationNetwork()
        self.errors = FlowFieldErrors()

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Return the loss of one batch."""
        estimates = self.net(batch.images)
        weights = [DECAY ** (len(estimates) - 1 - number) for number in range(len(estimates))]
        errors = [end_point_errors(found, batch.flow_fields).mean() for found in estimates]
        return torch.stack([w * e for w, e in zip(weights, errors, strict=True)]).sum()

    def validation_step(self, batch: Batch) -> None:
        """Add one batch of the fixed window to the errors."""
        self.errors.update(self.net(batch.images)[-1], batch.flow_fields, batch.mask)

    def on_validation_epoch_end(self) -> None:
        """Report the errors of the window."""
        errors = self.errors.compute()
        self.errors.reset()
        self.log_dict({"epe": errors["epe"], "epe_median": errors["epe_median"]})
        self.print(
            f"step {self.global_step:5}: end-point error mean {errors['epe']:.3f} px, "
            f"median {errors['epe_median']:.3f} px"
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Use AdamW; the learning rate rises for 100 steps and then falls to zero as a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / 100) * 0.5 * (1 + cos(pi * step / self.steps)),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def main() -> None:
    """Train, or resume training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/piv"), help="for checkpoints")
    parser.add_argument("--steps", type=int, default=1500, help="training steps in all")
    parser.add_argument("--validate-every", type=int, default=200, help="training steps")
    parser.add_argument("--precision", default="bf16-mixed", help="of Lightning's Trainer")
    parser.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    options = parser.parse_args()
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_steps=options.steps,
        precision=options.precision,
        gradient_clip_val=1.0,
        default_root_dir=options.folder,
        logger=False,
        val_check_interval=min(options.validate_every, options.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[
            ResumeCallback(),
            ModelCheckpoint(options.folder, monitor="epe", filename="best"),
            ModelCheckpoint(options.folder, every_n_train_steps=100, save_last=True),
        ],
    )
    data = SynthPixDataModule(training_images(), val=training_images(seed=1), val_batches=16)
    trainer.fit(Module(options.steps), data, ckpt_path="last" if options.resume else None)


if __name__ == "__main__":
    main()
