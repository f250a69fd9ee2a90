"""Make every Lightning checkpoint exact: a callback and a data module."""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch.utils.data import DataLoader

from synthpix_torch.batch import Batch
from synthpix_torch.data.records import FlowFieldSource
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.extra import required_by
from synthpix_torch.recording import Recording
from synthpix_torch.stream.passes import Window

with required_by(
    "synthpix_torch.lightning needs Lightning",
    "lightning",
    "lightning.pytorch",
    extra="lightning",
):
    import lightning.pytorch as pl
    from lightning.fabric.utilities.data import sized_len
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | SynthPixDataset | Recording


class ResumeCallback(pl.Callback):
    """Resume from every checkpoint of a Trainer at exactly the next batch.

        trainer = Trainer(callbacks=[ResumeCallback(dataset)])

    The callback commits a batch at the end of each training step and stores the state of the
    dataset in the checkpoint. It removes the loader state that Lightning stores itself, unless the
    Trainer also trains on a resumable loader over other data. The training dataloader may be the
    dataset, a DataLoader or a StatefulDataLoader, with or without a length.

    List it before your own callbacks: a callback that runs earlier and saves or raises in
    `on_train_batch_end` sees the current batch as not yet committed.
    """

    def __init__(self, *datasets: SynthPixDataset) -> None:
        """Choose the datasets to track.

        Args:
            datasets: The datasets trained on; may be omitted with a `SynthPixDataModule`.
        """
        self._given = datasets
        self._datasets: tuple[SynthPixDataset, ...] = ()
        self._fitting = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start tracking before Lightning loads a checkpoint or fetches a batch.

        Raises:
            ValueError: There is no dataset to track.
            TypeError: `training_step` fetches batches itself, so they cannot be committed.
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
                "ResumeCallback has no dataset to track: pass the dataset that the training "
                "dataloader uses, ResumeCallback(dataset)."
            )
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise TypeError(
                "training_step fetches batches from dataloader_iter, so ResumeCallback cannot know "
                "which batches were trained on: use the argument batch instead."
            )
        for dataset in self._datasets:
            dataset.track(across_passes=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a combination of loaders from which training cannot be resumed.

        Raises:
            ValueError: A dataset would pause until a longer loader ends the epoch.
        """
        combined = trainer.fit_loop._combined_loader
        if combined is None or combined._mode != "max_size":
            return
        for loader in filter(self._tracks, combined.flattened):
            length = sized_len(loader)
            if length is not None and length < trainer.num_training_batches:
                raise ValueError(
                    f"In CombinedLoader(mode='max_size') a dataset of {length} batches pauses "
                    f"until the epoch of {trainer.num_training_batches} ends, and a checkpoint "
                    "does not contain how long: use mode='max_size_cycle' or 'min_size', or the "
                    "same epoch_length for all."
                )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refuse a training step that takes several batches of a dataset.

        Raises:
            RuntimeError: A loader merges batches, or prefetches them on its own.
        """
        # Lightning itself prefetches one batch if it does not know the length of the epoch.
        expected = 2 if trainer.num_training_batches == math.inf else 1
        for dataset in self._datasets:
            if dataset.uncommitted > expected:
                raise RuntimeError(
                    f"Before this training step {dataset.uncommitted} batches were fetched where "
                    f"{expected} would be: the loader merges or prefetches batches, and "
                    "ResumeCallback cannot know which were trained on. Let the loader return one "
                    "batch of the dataset at a time, DataLoader(dataset, batch_size=None), and set "
                    "batch_size in the configuration."
                )

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
            RuntimeError: The batch came from another dataset.
        """
        # One of several loaders may be exhausted before the others.
        delivered = [dataset for dataset in self._datasets if dataset.uncommitted]
        if not delivered:
            raise RuntimeError(
                "ResumeCallback tracks another dataset than the one trained on: pass the dataset "
                "that the training dataloader uses."
            )
        for dataset in delivered:
            dataset.commit()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the datasets for Lightning's checkpoint."""
        return {str(i): dataset.state_dict() for i, dataset in enumerate(self._datasets)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states; Lightning calls this before it fetches a batch.

        Raises:
            ValueError: The checkpoint holds another number of datasets, or a state is refused by
                `SynthPixDataset.load_state_dict`.
        """
        # Validation from a checkpoint must not move the training data.
        if not self._fitting:
            return
        if len(state_dict) != len(self._datasets):
            raise ValueError(
                f"The checkpoint holds {len(state_dict)} dataset states, ResumeCallback tracks "
                f"{len(self._datasets)} datasets: pass the same datasets in the same order."
            )
        for i, dataset in enumerate(self._datasets):
            dataset.load_state_dict(state_dict[str(i)])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Warn about a checkpoint that was saved without this callback."""
        if self._fitting and self.state_key not in checkpoint["callbacks"]:
            positions = ", ".join(str(dataset.position) for dataset in self._datasets)
            warnings.warn(
                "The checkpoint was saved without ResumeCallback and does not contain the position "
                f"in the stream: training continues from batch {positions}. Call dataset.seek(n) "
                "before fit to choose another batch.",
                stacklevel=2,
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remove Lightning's own loader state if no other resumable loader is trained on."""
        loaders = CombinedLoader(trainer.train_dataloader).flattened
        if all(self._tracks(loader) for loader in loaders if hasattr(loader, "state_dict")):
            checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Stop tracking, so that uncommitted batches are delivered again."""
        # The datasets stay known: another callback may save a checkpoint now.
        for dataset in self._datasets:
            dataset.untrack()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop tracking; prefetched batches are delivered again, later checkpoints stay exact."""
        for dataset in self._datasets:
            dataset.untrack()
        self._fitting = False

    def _tracks(self, loader: Any) -> bool:
        return any(
            dataset in (loader, getattr(loader, "dataset", None)) for dataset in self._datasets
        )


class SynthPixDataModule(pl.LightningDataModule):
    """Provide training, validation and test data, from configurations or as ready datasets.

    Validation and testing iterate over a fixed window: the same batches each time. Combine the data
    module with `ResumeCallback()`, which finds the training dataset in it; the data module itself
    has no state.

    Attributes:
        train: The training dataset; None before `setup("fit")`.
    """

    def __init__(
        self,
        train: Data | None = None,
        *,
        val: Data | None = None,
        test: Data | None = None,
        train_source: FlowFieldSource | None = None,
        val_source: FlowFieldSource | None = None,
        test_source: FlowFieldSource | None = None,
        val_batches: int | None = None,
        test_batches: int | None = None,
        epoch_length: int | None = None,
        **options: Any,
    ) -> None:
        """Store what the data is; `setup` opens it.

        Args:
            train: Configuration of the training data, or a dataset.
            val: Configuration of the validation data, a dataset, or a recording, all of whose
                batches are used.
            test: Configuration of the test data, a dataset or a recording.
            train_source: Flow fields of your own for training, as `source` of a dataset.
            val_source: Flow fields of your own for validation.
            test_source: Flow fields of your own for testing.
            val_batches: Number of validation batches on all ranks together, a multiple of the
                number of ranks. May be omitted for finite data: then all batches are used, except
                those at the end that the ranks cannot share equally.
            test_batches: Number of test batches, as `val_batches`.
            epoch_length: Training batches per epoch and rank.
            **options: Further arguments of every dataset that is made from a configuration.

        Raises:
            ValueError: A number of batches or a source is given without its configuration,
                `epoch_length` beside a training dataset, or `load_from`.
        """
        super().__init__()
        if "load_from" in options:
            raise ValueError(
                "SynthPixDataModule resumes from Lightning's checkpoints: remove load_from, pass "
                "ckpt_path to fit, and add ResumeCallback() to the callbacks."
            )
        for name, given, count in (("val", val, val_batches), ("test", test, test_batches)):
            if count is not None and given is None:
                raise ValueError(f"{name}_batches={count} needs data: pass {name} as well.")
            if count is not None and isinstance(given, Recording):
                raise ValueError(f"A recording is used as a whole: leave out {name}_batches.")
        if isinstance(train, Recording):
            raise ValueError(
                "A recording has no position to resume from: train on a DataLoader of its pairs."
            )
        self._data = {"train": train, "val": val, "test": test}
        self._sources = {"train": train_source, "val": val_source, "test": test_source}
        for name, source in self._sources.items():
            if source is not None and isinstance(
                self._data[name], (SynthPixDataset, Recording, type(None))
            ):
                raise ValueError(
                    f"{name}_source belongs to a configuration: pass one as {name}, or give the "
                    "source to the dataset that you pass."
                )
        if epoch_length is not None and isinstance(train, SynthPixDataset):
            raise ValueError("train is a dataset: give epoch_length to it, not to the data module.")
        if val is None and type(self).val_dataloader is SynthPixDataModule.val_dataloader:
            # Lightning treats None as "not defined" and then skips validation.
            self.val_dataloader = None  # type: ignore[method-assign, assignment]
        self._batches = {"val": val_batches, "test": test_batches}
        self._epoch_length = epoch_length
        self._options = options
        self._held_out: dict[str, SynthPixDataset | Recording] = {}
        self.train: SynthPixDataset | None = None

    def setup(self, stage: str) -> None:
        """Open the datasets that a stage needs; datasets that are open already are kept.

        Raises:
            ValueError: The data is missing, or its configuration is refused by `SynthPixDataset`.
        """
        if stage == "fit" and self.train is None:
            self.train = self._open("train", epoch_length=self._epoch_length)
        needed = {"fit": ["val"], "validate": ["val"], "test": ["test"]}.get(stage, [])
        for name in needed:
            if name in self._held_out or (stage == "fit" and self._data[name] is None):
                continue
            data = self._data[name]
            self._held_out[name] = data if isinstance(data, Recording) else self._open(name)

    def train_dataloader(self) -> SynthPixDataset:
        """Return the training dataset itself: its batches are complete and on the device."""
        assert self.train is not None
        return self.train

    def val_dataloader(self) -> Window | DataLoader[Batch]:
        """Return the window of the first `val_batches` validation batches.

        Raises:
            ValueError: The validation data is infinite and `val_batches` was omitted.
        """
        return self._window("val")

    def test_dataloader(self) -> Window | DataLoader[Batch]:
        """Return the window of the first `test_batches` test batches.

        Raises:
            ValueError: The test data is infinite and `test_batches` was omitted.
        """
        return self._window("test")

    def _open(self, name: str, **options: Any) -> SynthPixDataset:
        data = self._data[name]
        if data is None:
            raise ValueError(f"SynthPixDataModule has no {name} data: pass {name}.")
        if isinstance(data, SynthPixDataset):
            return data
        assert not isinstance(data, Recording)
        if self._sources[name] is not None:
            options["source"] = self._sources[name]
        return SynthPixDataset(data, **{**self._options, **options})

    def _window(self, name: str) -> Window | DataLoader[Batch]:
        dataset = self._held_out[name]
        if isinstance(dataset, Recording):
            # Lightning adds a sampler that shares the batches between ranks.
            return DataLoader(dataset.batches, batch_size=None)
        stop = self._batches[name]
        if stop is None:
            total = dataset.stream.total
            if total is None:
                raise ValueError(
                    f"The {name} data is infinite: pass {name}_batches, the number of batches "
                    "in its window."
                )
            stop = total - total % dataset.world_size
        return dataset.window(0, stop)
