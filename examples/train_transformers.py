"""Train with transformers' Trainer, which does not save the state of the data.

python examples/train_transformers.py [--resume]
torchrun --nproc-per-node 2 examples/train_transformers.py [--resume]

A callback saves the state in each checkpoint; `ignore_data_skip` stops the Trainer from skipping
batches as well.
"""

import json
import os
from pathlib import Path
from typing import Any

import piv
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from synthpix_torch import Batch, SynthPixDataset

STATE = "synthpix.json"


class PivTrainer(Trainer):
    """Take complete batches from a dataset."""

    def __init__(self, dataset: SynthPixDataset, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.dataset = dataset

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader that accelerate does not prepare: it would prefetch."""
        return DataLoader(
            self.dataset, batch_size=None, collate_fn=lambda batch: {"batch": [batch]}
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs

    def compute_loss(self, model: torch.nn.Module, inputs: Any, *rest: Any, **more: Any) -> Any:
        """Return the end-point error."""
        [self.batch] = inputs["batch"]
        self.loss = piv.end_point_error(model(self.batch.images), self.batch.flow_fields)
        return self.loss


class SaveData(TrainerCallback):
    """Save the state of the dataset as the last file of each checkpoint."""

    def __init__(self, dataset: SynthPixDataset) -> None:
        self.dataset = dataset

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Save the state when the rest of the checkpoint is complete."""
        if not args.should_save:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        text = json.dumps(self.dataset.state_dict())
        piv.replace(folder / STATE, lambda file: file.write_text(text))


class Note(TrainerCallback):
    """Write the journal."""

    def __init__(self, journal: piv.Journal) -> None:
        self.journal = journal
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **rest: Any) -> None:
        """Write the line of this step."""
        batch: Batch = self.trainer.batch
        self.journal.note(state.global_step, batch, self.trainer.loss, model)


def main() -> None:
    """Train and save checkpoints; with --resume, continue from the last one."""
    options = piv.arguments("transformers")
    net, optimizer = piv.model()
    note = Note(piv.Journal(options.folder, int(os.environ.get("RANK", "0"))))
    with piv.data(options) as dataset:
        trainer = note.trainer = PivTrainer(
            dataset,
            model=net,
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
            callbacks=[SaveData(dataset), note],
            args=TrainingArguments(
                options.folder,
                max_steps=options.steps,
                save_steps=options.save_every,
                save_total_limit=3,
                max_grad_norm=0.0,
                ignore_data_skip=True,
                use_cpu=True,
                report_to=[],
                logging_strategy="no",
                disable_tqdm=True,
                full_determinism=False,
            ),
        )
        checkpoint = None
        if options.resume:
            # A killed run may have left a checkpoint without its last file.
            complete = options.folder.glob(f"checkpoint-*/{STATE}")
            state = max(complete, key=lambda path: int(path.parent.name.partition("-")[2]))
            dataset.load_state_dict(json.loads(state.read_text()))
            checkpoint = str(state.parent)
        trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    main()
