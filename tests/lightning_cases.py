"""Resume a Lightning run from every kind of checkpoint; compare it with the uninterrupted run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from counting import CountingDataset
from exact import check_batches, check_equal
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from synthpix_torch.lightning import ResumeCallback

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)

FALSE_ALARMS = (
    # The runs of one case save into different folders, or not at all.
    "The dirpath has changed",
    "Be aware that when using `ckpt_path`",
    r"`.fit\(ckpt_path=None\)` was called",
    r".fit\(ckpt_path=\"last\"\) is set",
    "You defined a `validation_step`",
    "Using ModelCheckpoint with manual optimization",
    # Lightning does not know that the callback resumes exactly and that workers are not used.
    "You're resuming from a checkpoint that ended before the epoch",
    "Your `IterableDataset` has `__len__`",
    "The '(train|val)_dataloader' does not have many workers",
    # Lightning and torchdata with torch 2.13.
    r"`isinstance\(treespec, LeafSpec\)`",
    "'set_vital' is deprecated",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings of other libraries that do not apply here."""
    with warnings.catch_warnings():
        for message in FALSE_ALARMS:
            warnings.filterwarnings("ignore", message)
        yield


LOADERS: dict[str, Callable[[Any], Any]] = {
    "the dataset": lambda dataset: dataset,
    "StatefulDataLoader": lambda dataset: StatefulDataLoader(dataset, batch_size=None),
    "DataLoader": lambda dataset: DataLoader(dataset, batch_size=None),
}
LENGTHS = {"infinite": None, "epochs of 5": 5}


class Crash(Exception):
    """The error by which a case ends the training."""


class Log(NamedTuple):
    """Record the batches of a run and its results."""

    seen: list[int]
    losses: list[float]
    weight: float
    validated: list[list[int]]


class Module(pl.LightningModule):
    """Train one weight whose value depends on every batch and on their order."""

    def __init__(
        self, *, crash_at: int | None = None, stepping: bool = False, manual: bool = False
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []
        self.losses: list[float] = []
        self.validated: list[list[int]] = []
        self.crash_at, self.stepping = crash_at, stepping
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if batch.number == self.crash_at:
            raise Crash
        loss = (torch.sin(batch.images.sum()) - self.weight).square().sum()
        self.seen.append(batch.number)
        self.losses.append(loss.item())
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def on_validation_epoch_start(self) -> None:
        self.validated.append([])

    def validation_step(self, batch: Any, index: int) -> None:
        self.validated[-1].append(batch.number)

    def configure_optimizers(self) -> Any:
        if self.stepping:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Keep(OnExceptionCheckpoint):
    """Keep the checkpoint of an exception, which Lightning deletes when a later run succeeds."""

    def teardown(self, *arguments: Any, **keywords: Any) -> None: ...


def trainer(folder: Path, *callbacks: Callback, **arguments: Any) -> pl.Trainer:
    """Make a Trainer that writes nothing but what `callbacks` save."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"num_sanity_val_steps": 0, "max_steps": 12, **arguments},
    )


def fit(
    folder: Path,
    loader: str,
    length: int | None,
    *,
    ckpt: Path | None = None,
    module: dict[str, Any] | None = None,
    callbacks: tuple[Callback, ...] = (),
    resume: bool = True,
    validate: bool = False,
    **arguments: Any,
) -> Log:
    """Run a Trainer once; `callbacks` save the checkpoints."""
    model = Module(**(module or {}))
    dataset = CountingDataset(epoch_length=length)
    all_callbacks = [*callbacks, *([ResumeCallback(dataset)] if resume else [])]
    loaders: dict[str, Any] = {"train_dataloaders": LOADERS[loader](dataset)}
    if validate:
        loaders["val_dataloaders"] = CountingDataset().window(3, 6)
    with quiet(), suppress(Crash):
        trainer(folder, *all_callbacks, **arguments).fit(model, ckpt_path=ckpt, **loaders)
    return Log(model.seen, model.losses, model.weight.item(), model.validated)


def every_step(folder: Path, **when: Any) -> ModelCheckpoint:
    """Save each step into `folder` as step=N.ckpt."""
    return ModelCheckpoint(
        folder,
        filename="{step}",
        save_top_k=-1,
        save_last=False,
        **(when or {"every_n_train_steps": 1}),
    )


def check_rest(whole: Log, part: Log, done: int, where: str) -> None:
    """Check that a run resumed after `done` batches equals the rest of the whole run bit for bit.

    Raises:
        NotExact: Batches, losses or the weight differ.
    """
    check_batches(part.seen, whole.seen[done:], where)
    check_equal(part.losses, whole.losses[done:], f"{where}, losses")
    check_equal(part.weight, whole.weight, f"{where}, weight")


class Way(NamedTuple):
    """Describe how a case saves checkpoints and from which steps it resumes."""

    name: str
    arguments: dict[str, Any]
    when: dict[str, Any]
    steps: tuple[int, ...]
    module: dict[str, Any] = {}  # noqa: RUF012
    needs_length: bool = False


EPOCHS = {"max_steps": -1, "max_epochs": 3}

WAYS = (
    Way("in the middle of an epoch, max_steps", {}, {}, (1, 4, 8)),
    Way("in the middle of an epoch, max_epochs", EPOCHS, {}, (3, 8), needs_length=True),
    Way(
        "at the end of an epoch, max_epochs",
        EPOCHS,
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        (5, 10),
        needs_length=True,
    ),
    Way(
        "at the end of an epoch, limit_train_batches=5",
        {**EPOCHS, "limit_train_batches": 5},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        (5, 10),
    ),
    Way("limit_train_batches=5", {**EPOCHS, "limit_train_batches": 5}, {}, (3, 5, 7)),
    Way("limit_train_batches=0.6", {"limit_train_batches": 0.6}, {}, (2, 4), needs_length=True),
    Way(
        "at the end of a validation, val_check_interval=2",
        {"val_check_interval": 2, "check_val_every_n_epoch": None},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        (2, 6, 8),
    ),
    Way(
        "at the end of a validation, limit_val_batches=2",
        {"val_check_interval": 5, "check_val_every_n_epoch": None, "limit_val_batches": 2},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        (5, 10),
    ),
    Way("by time", {}, {"train_time_interval": timedelta(microseconds=1)}, (3, 7)),
    Way("accumulate_grad_batches=3", {"accumulate_grad_batches": 3, "max_steps": 4}, {}, (1, 2, 3)),
    Way(
        "estimated_stepping_batches, max_steps and max_epochs",
        {"max_epochs": 5},
        {},
        (4, 8),
        {"stepping": True},
    ),
    Way(
        "estimated_stepping_batches, max_epochs",
        EPOCHS,
        {},
        (4, 8),
        {"stepping": True},
        needs_length=True,
    ),
    Way("manual optimization", {}, {}, (4, 8), {"manual": True}),
    Way("reload_dataloaders_every_n_epochs", {"reload_dataloaders_every_n_epochs": 1}, {}, (4, 7)),
)


def resumed(way: Way, loader: str, length: int | None, folder: Path) -> None:
    """Resume from several checkpoints of one uninterrupted run."""
    validate = "validation" in way.name

    def run(name: str, ckpt: Path | None = None) -> Log:
        return fit(
            folder,
            loader,
            length,
            ckpt=ckpt,
            module=way.module,
            callbacks=(every_step(folder / name, **way.when),),
            validate=validate,
            **way.arguments,
        )

    whole = run("whole")
    for step in way.steps:
        part = run(f"part{step}", folder / "whole" / f"step={step}.ckpt")
        done = _batches(step, way.arguments.get("accumulate_grad_batches", 1), length)
        where = f"resumed from step={step}.ckpt"
        check_rest(whole, part, done, where)
        # Lightning restarts validation at its first batch.
        for validation in part.validated:
            check_batches(validation, whole.validated[0], f"{where}, validation")


def _batches(steps: int, accumulated: int, length: int | None) -> int:
    """Count the batches of `steps` steps; the last step of an epoch takes the remaining ones."""
    if length is None:
        return steps * accumulated
    epochs, steps = divmod(steps, -(-length // accumulated))
    return epochs * length + steps * accumulated


def crashed(loader: str, length: int | None, folder: Path) -> None:
    """Resume from the checkpoint that is saved when the training step raises."""
    whole = fit(folder, loader, length, enable_checkpointing=False)
    first = fit(folder, loader, length, module={"crash_at": 8}, callbacks=(Keep(folder),))
    second = fit(folder, loader, length, ckpt=folder / "on_exception.ckpt")
    check_batches(first.seen, range(8), "before the exception")
    check_rest(whole, second, 8, "resumed from on_exception.ckpt")


def chained(loader: str, length: int | None, folder: Path) -> None:
    """Interrupt and resume three times."""
    whole = fit(folder, loader, length, enable_checkpointing=False)
    seen: list[int] = []
    ckpt = None
    for stop in (2, 3, 7, 12):
        part = fit(
            folder,
            loader,
            length,
            ckpt=ckpt,
            callbacks=(every_step(folder / str(stop)),),
            max_steps=stop,
        )
        seen += part.seen
        ckpt = folder / str(stop) / f"step={stop}.ckpt"
    check_batches(seen, whole.seen, "interrupted after 2, 3 and 7 steps")
    check_equal(part.weight, whole.weight, "interrupted after 2, 3 and 7 steps, weight")


def asynchronous(loader: str, length: int | None, folder: Path) -> None:
    """Resume from a checkpoint that was written in the background during training."""
    whole = fit(
        folder,
        loader,
        length,
        callbacks=(every_step(folder / "whole"),),
        plugins=[AsyncCheckpointIO()],
    )
    ckpt = folder / "whole" / "step=4.ckpt"
    part = fit(folder, loader, length, ckpt=ckpt)
    check_rest(whole, part, 4, "resumed from step=4.ckpt")


def cases() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield the name and the check of every case."""
    for loader in LOADERS:
        for size, length in LENGTHS.items():
            for way in WAYS:
                if way.needs_length and length is None:
                    continue
                yield (
                    f"{loader}, {size}: {way.name}",
                    partial(resumed, way, loader, length),
                )
            others = {
                "on exception": crashed,
                "interrupted three times": chained,
                "AsyncCheckpointIO": asynchronous,
            }
            for name, check in others.items():
                yield (
                    f"{loader}, {size}: {name}",
                    partial(check, loader, length),
                )
