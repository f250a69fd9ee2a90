"""Lightning: a callback that makes every checkpoint exact, and a data module."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

try:
    import lightning.pytorch as pl
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
except ModuleNotFoundError as error:
    if error.name not in ("lightning", "lightning.pytorch"):
        raise
    raise ModuleNotFoundError(
        "synthpix_torch.lightning needs Lightning: pip install 'synthpix_torch[lightning]'.",
        name=error.name,
    ) from error

from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.stream.passes import Window

Configuration: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]


class ResumeCallback(pl.Callback):
    """Makes every checkpoint of a Trainer go on with exactly the next batch.

        trainer = Trainer(callbacks=[ResumeCallback(dataset)])

    It commits the place in the stream at the end of each training step and carries it in the
    checkpoint, alone: what Lightning would save of the loader itself is left out, unless a
    resumable loader of others is trained on beside it. The loader may be the dataset, a DataLoader
    or a StatefulDataLoader, with a length or without.

    Put it before callbacks of your own: those that save, or raise, at the end of a training batch
    would find that batch not committed yet.
    """

    def __init__(self, *datasets: SynthPixDataset) -> None:
        """Choose what to follow.

        Args:
            datasets: What is trained on; may be left out with a `SynthPixDataModule`.
        """
        self._given = datasets
        self._datasets: tuple[SynthPixDataset, ...] = ()
        self._fitting = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin to follow, before Lightning loads a checkpoint or reads a batch.

        Raises:
            ValueError: There is nothing to follow.
            TypeError: The module takes batches itself, so what it trained on cannot be known.
        """
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        data: Any = getattr(trainer, "datamodule", None)
        self._datasets = self._given or (
            (data.train,) if isinstance(data, SynthPixDataModule) and data.train else ()
        )
        if not self._datasets:
            raise ValueError(
                "ResumeCallback has no dataset to follow: ResumeCallback(dataset), with the one "
                "that the training dataloader uses."
            )
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise TypeError(
                "training_step takes batches from dataloader_iter, so ResumeCallback cannot know "
                "what was trained on: let it take batch."
            )
        for dataset in self._datasets:
            dataset.track(across_passes=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Commit the batch of this step.

        Raises:
            RuntimeError: It came from another dataset.
        """
        # Of several loaders one may have ended before the others.
        delivered = [dataset for dataset in self._datasets if dataset.uncommitted]
        if not delivered:
            raise RuntimeError(
                "ResumeCallback follows another dataset than the one trained on: pass it the one "
                "that the training dataloader uses."
            )
        for dataset in delivered:
            dataset.commit()

    def state_dict(self) -> dict[str, Any]:
        """The states of the datasets, for Lightning's checkpoint."""
        return {str(i): dataset.state_dict() for i, dataset in enumerate(self._datasets)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved; called by Lightning before it reads a batch.

        Raises:
            ValueError: The checkpoint has another number of datasets, or see
                `SynthPixDataset.load_state_dict`.
        """
        # Validation from a checkpoint leaves the training data where it is.
        if not self._fitting:
            return
        if len(state_dict) != len(self._datasets):
            raise ValueError(
                f"The checkpoint has the states of {len(state_dict)} datasets, ResumeCallback "
                f"follows {len(self._datasets)}: pass it the same ones in the same order."
            )
        for i, dataset in enumerate(self._datasets):
            dataset.load_state_dict(state_dict[str(i)])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Warn of a checkpoint that was saved without this callback."""
        if self._fitting and self.state_key not in checkpoint["callbacks"]:
            positions = ", ".join(str(dataset.position) for dataset in self._datasets)
            warnings.warn(
                "The checkpoint was saved without ResumeCallback and does not say which batch "
                f"comes next: training goes on at batch {positions}. dataset.seek(n) before fit "
                "chooses another one.",
                stacklevel=2,
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out what Lightning saved of the loaders, where the datasets are all there is."""
        loaders = CombinedLoader(trainer.train_dataloader).flattened
        if all(self._follows(loader) for loader in loaders if hasattr(loader, "state_dict")):
            checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The batch that was not trained on to its end is delivered again."""
        # They are still needed for a checkpoint that another callback saves now.
        for dataset in self._datasets:
            dataset.untrack()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """What was read ahead is delivered again; the place is known for later checkpoints."""
        for dataset in self._datasets:
            dataset.untrack()
        self._fitting = False

    def _follows(self, loader: Any) -> bool:
        return any(
            dataset in (loader, getattr(loader, "dataset", None)) for dataset in self._datasets
        )


class SynthPixDataModule(pl.LightningDataModule):
    """Training, validation and test data from synthpix configurations.

    Validation and test run over a fixed window, the same batches each time. Use it with
    `ResumeCallback()`, which finds the training data here; the data module itself has no state.

    Attributes:
        train: The training data, from `setup` on.
    """

    def __init__(
        self,
        train: Configuration | None = None,
        *,
        val: Configuration | None = None,
        test: Configuration | None = None,
        val_batches: int | None = None,
        test_batches: int | None = None,
        epoch_length: int | None = None,
        **options: Any,
    ) -> None:
        """Keep the configurations; they are read in `setup`.

        Args:
            train: Configuration of the training data.
            val: Configuration of the validation data.
            test: Configuration of the test data.
            val_batches: Batches of a validation on all ranks together, a multiple of their number;
                may be left out for finite data, of which those batches are used that the ranks can
                share equally.
            test_batches: The same for a test.
            epoch_length: Training batches per epoch and rank.
            **options: Further arguments for every `SynthPixDataset`.

        Raises:
            ValueError: A number of batches has no configuration, or there is a `load_from`.
        """
        super().__init__()
        if "load_from" in options:
            raise ValueError(
                "SynthPixDataModule resumes from Lightning's checkpoints: leave out load_from, and "
                "pass ckpt_path to fit, with ResumeCallback() among the callbacks."
            )
        for name, config, count in (("val", val, val_batches), ("test", test, test_batches)):
            if count is not None and config is None:
                raise ValueError(f"{name}_batches={count} has no data: give {name} as well.")
        if val is None and type(self).val_dataloader is SynthPixDataModule.val_dataloader:
            # As if it were not defined: Lightning then knows that there is no validation.
            self.val_dataloader = None  # type: ignore[method-assign, assignment]
        self._configs = {"train": train, "val": val, "test": test}
        self._batches = {"val": val_batches, "test": test_batches}
        self._epoch_length = epoch_length
        self._options = options
        self._held_out: dict[str, SynthPixDataset] = {}
        self.train: SynthPixDataset | None = None

    def setup(self, stage: str) -> None:
        """Open the data that a stage needs; what is open stays open.

        Raises:
            ValueError: A configuration is missing, or see `SynthPixDataset`.
        """
        if stage == "fit" and self.train is None:
            self.train = SynthPixDataset(
                self._configuration("train"), epoch_length=self._epoch_length, **self._options
            )
        needed = {"fit": ["val"], "validate": ["val"], "test": ["test"]}.get(stage, [])
        for name in needed:
            if name in self._held_out or (stage == "fit" and self._configs[name] is None):
                continue
            self._held_out[name] = SynthPixDataset(self._configuration(name), **self._options)

    def train_dataloader(self) -> SynthPixDataset:
        """The training data itself: its batches are whole and on the device."""
        assert self.train is not None
        return self.train

    def val_dataloader(self) -> Window:
        """The first `val_batches` batches of the validation data.

        Raises:
            ValueError: The data never ends and `val_batches` was left out.
        """
        return self._window("val")

    def test_dataloader(self) -> Window:
        """The first `test_batches` batches of the test data.

        Raises:
            ValueError: The data never ends and `test_batches` was left out.
        """
        return self._window("test")

    def _configuration(self, name: str) -> Configuration:
        config = self._configs[name]
        if config is None:
            raise ValueError(f"SynthPixDataModule has no {name} configuration: give {name}.")
        return config

    def _window(self, name: str) -> Window:
        dataset = self._held_out[name]
        stop = self._batches[name]
        if stop is None:
            total = dataset.stream.order.total
            if total is None:
                raise ValueError(
                    f"The {name} data never ends: give {name}_batches, the number of batches of "
                    "its window."
                )
            stop = total - total % dataset.world_size
        return dataset.window(0, stop)
