"""The callback and the data module; tests/matrix.py covers every way to save a checkpoint."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import lightning_cases
import pytest
import torch
from counting import CountingDataset
from kinds import base, few, fields
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import synthpix_torch.integrations.lightning
from synthpix_torch.lightning import ResumeCallback, SynthPixDataModule


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with lightning_cases.quiet():
        yield


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the data module count instead of render."""
    monkeypatch.setattr(synthpix_torch.integrations.lightning, "SynthPixDataset", CountingDataset)


class Module(lightning_cases.Module):
    """Record the test batches as well."""

    def test_step(self, batch: Any, index: int) -> None:
        self.validation_step(batch, index)

    def on_test_epoch_start(self) -> None:
        self.validated.append([])


def trainer(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    return lightning_cases.trainer(folder, *callbacks, **{"max_steps": 6, **arguments})


# The callback ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", lightning_cases.LOADERS)
def test_only_the_callback_saves_the_state(tmp_path: Path, loader: str) -> None:
    dataset = CountingDataset(epoch_length=5)
    save = lightning_cases.every_step(tmp_path)
    trainer(tmp_path, save, ResumeCallback(dataset)).fit(
        Module(), lightning_cases.LOADERS[loader](dataset)
    )
    for step in range(1, 7):
        checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert checkpoint["callbacks"].pop("ResumeCallback")["0"]["sampler"] == {"position": step}
        assert "fingerprint" not in str(checkpoint)


def test_the_state_of_a_loader_over_other_data_is_still_saved(tmp_path: Path) -> None:
    dataset = CountingDataset()
    others = StatefulDataLoader([torch.zeros(1)] * 9, batch_size=1)
    save = lightning_cases.every_step(tmp_path)

    class Both(Module):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return super().training_step(batch["ours"], index)

    trainer(tmp_path, save, ResumeCallback(dataset), max_steps=2).fit(
        Both(), {"ours": dataset, "others": others}
    )
    checkpoint = torch.load(tmp_path / "step=2.ckpt", weights_only=False)
    assert "combined_loader" in checkpoint["loops"]["fit_loop"]["state_dict"]


def test_a_callback_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset to track: .*ResumeCallback\(dataset\)"):
        trainer(tmp_path, ResumeCallback()).fit(Module(), CountingDataset())


def test_a_callback_that_tracks_another_dataset_is_refused_at_the_first_step(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(RuntimeError, match="tracks another dataset than the one trained on"),
        pytest.warns(UserWarning, match="Lightning prefetches batches"),
    ):
        trainer(tmp_path, ResumeCallback(CountingDataset())).fit(Module(), CountingDataset())


def test_a_module_that_fetches_batches_itself_is_refused(tmp_path: Path) -> None:
    class Fetches(Module):
        def training_step(self, dataloader_iter: Any) -> torch.Tensor:  # type: ignore[override]
            raise AssertionError

    dataset = CountingDataset()
    with (
        pytest.raises(TypeError, match="fetches batches from dataloader_iter"),
        pytest.warns(UserWarning, match="`dataloader_iter` step flavor"),
    ):
        trainer(tmp_path, ResumeCallback(dataset)).fit(Fetches(), dataset)


def test_a_checkpoint_of_another_number_of_datasets_is_refused(tmp_path: Path) -> None:
    dataset = CountingDataset()
    save = lightning_cases.every_step(tmp_path)
    trainer(tmp_path, save, ResumeCallback(dataset), max_steps=1).fit(Module(), dataset)
    with pytest.raises(
        ValueError, match="holds 1 dataset states, ResumeCallback tracks 2 datasets"
    ):
        trainer(tmp_path, ResumeCallback(dataset, CountingDataset())).fit(
            Module(), dataset, ckpt_path=tmp_path / "step=1.ckpt"
        )


def test_validating_or_testing_from_a_checkpoint_does_not_move_the_training_data(
    tmp_path: Path,
) -> None:
    dataset = CountingDataset()
    save = lightning_cases.every_step(tmp_path)
    trainer(tmp_path, save, ResumeCallback(dataset), max_steps=3).fit(Module(), dataset)
    dataset.seek(1)
    module = Module()
    trainer(tmp_path, ResumeCallback(dataset)).test(
        module, dataset.window(0, 2), ckpt_path=tmp_path / "step=3.ckpt"
    )
    assert module.validated == [[0, 1]]
    assert (dataset.position, dataset.tracking) == (1, False)


def test_a_batch_rejected_by_on_train_batch_start_is_the_first_of_the_next_epoch(
    tmp_path: Path,
) -> None:
    class Rejects(Module):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch.number == 3 and self.current_epoch == 0 else None

    dataset, module = CountingDataset(epoch_length=5), Rejects()
    trainer(tmp_path, ResumeCallback(dataset), max_steps=8).fit(module, dataset)
    assert module.seen == list(range(8))


def test_an_interrupted_fit_leaves_the_dataset_at_the_first_uncommitted_batch(
    tmp_path: Path,
) -> None:
    dataset = CountingDataset()
    with pytest.raises(lightning_cases.Crash):
        trainer(tmp_path, ResumeCallback(dataset)).fit(
            Module(crash_at=4), DataLoader(dataset, None)
        )
    assert (dataset.position, dataset.tracking) == (4, False)


def test_a_second_fit_continues_where_the_first_ended(tmp_path: Path) -> None:
    dataset, module = CountingDataset(), Module()
    for _ in range(2):
        mine = trainer(tmp_path, ResumeCallback(dataset), max_steps=3, enable_checkpointing=False)
        mine.fit(module, dataset)
    assert module.seen == list(range(6))


@pytest.mark.parametrize("loader", lightning_cases.LOADERS)
@pytest.mark.parametrize("length", lightning_cases.LENGTHS.values())
def test_a_checkpoint_saved_after_the_fit_resumes_behind_its_last_batch(
    tmp_path: Path, loader: str, length: int | None
) -> None:
    make = lightning_cases.LOADERS[loader]
    dataset = CountingDataset(epoch_length=length)
    first = trainer(tmp_path, ResumeCallback(dataset), enable_checkpointing=False)
    first.fit(Module(), make(dataset))
    first.test(Module(), dataset.window(0, 2))
    first.save_checkpoint(tmp_path / "after.ckpt")
    again, module = CountingDataset(epoch_length=length), Module()
    trainer(tmp_path, ResumeCallback(again), max_steps=9, enable_checkpointing=False).fit(
        module, make(again), ckpt_path=tmp_path / "after.ckpt"
    )
    assert module.seen == [6, 7, 8]


def test_resuming_from_a_checkpoint_saved_without_the_callback_warns(tmp_path: Path) -> None:
    dataset, module = CountingDataset(), Module()
    without = trainer(tmp_path, enable_checkpointing=False, max_steps=2)
    with pytest.warns(UserWarning, match="Lightning prefetches batches"):
        without.fit(module, DataLoader(dataset, batch_size=None))
    without.save_checkpoint(tmp_path / "without.ckpt")
    dataset.seek(2)
    with pytest.warns(UserWarning, match="does not contain the position.* from batch 2"):
        trainer(tmp_path, ResumeCallback(dataset), max_steps=4, enable_checkpointing=False).fit(
            module, DataLoader(dataset, batch_size=None), ckpt_path=tmp_path / "without.ckpt"
        )
    assert module.seen == [0, 1, 2, 3]


@pytest.mark.parametrize("loader", lightning_cases.LOADERS)
def test_interleaved_datasets_of_different_lengths_resume_exactly(
    tmp_path: Path, loader: str
) -> None:
    class Pairs(Module):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            pairs.append((batch["infinite"].number, batch["sized"].number))
            return super().training_step(batch["infinite"], index)

    def fit(steps: int, resumed: int = 0) -> list[tuple[int, int]]:
        pairs.clear()
        datasets = {"infinite": CountingDataset(), "sized": CountingDataset(epoch_length=3)}
        callbacks: list[pl.Callback] = [ResumeCallback(*datasets.values())]
        callbacks += [] if resumed else [lightning_cases.every_step(tmp_path)]
        trainer(tmp_path, *callbacks, max_steps=steps, enable_checkpointing=not resumed).fit(
            Pairs(),
            {name: lightning_cases.LOADERS[loader](data) for name, data in datasets.items()},
            ckpt_path=tmp_path / f"step={resumed}.ckpt" if resumed else None,
        )
        return pairs

    pairs: list[tuple[int, int]] = []
    wanted = list(fit(9))
    assert wanted == [(n, n) for n in range(9)]
    for step in range(1, 8):
        assert fit(9, step) == wanted[step:]


def merged(dataset: CountingDataset) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=2, collate_fn=lambda batches: batches[0])


class Merges(IterableDataset[Any]):
    def __init__(self, dataset: CountingDataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._dataset)
        for batch in batches:
            next(batches)
            yield batch


@pytest.mark.parametrize("length", lightning_cases.LENGTHS.values())
@pytest.mark.parametrize(
    "merge", [merged, Merges, lambda dataset: DataLoader(Merges(dataset), batch_size=None)]
)
def test_a_step_that_takes_two_batches_is_refused_before_it_trains(
    tmp_path: Path, merge: Any, length: int | None
) -> None:
    dataset, module = CountingDataset(epoch_length=length and 2 * length), Module()
    limit = {"limit_train_batches": length} if length else {}
    with pytest.raises(RuntimeError, match=r"merges or prefetches.*batch_size=None"):
        trainer(tmp_path, ResumeCallback(dataset), **limit).fit(module, merge(dataset))
    assert (module.seen, dataset.position) == ([], 0)


def test_a_dataset_that_pauses_within_an_epoch_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    datasets = CountingDataset(epoch_length=3), CountingDataset(epoch_length=5)
    module = Module()
    with pytest.raises(ValueError, match=r"3 batches pauses until the epoch of 5.*max_size_cycle"):
        trainer(tmp_path, ResumeCallback(*datasets)).fit(
            module, CombinedLoader(datasets, mode="max_size")
        )
    assert module.seen == []


# The data module -------------------------------------------------------------------------------


@pytest.mark.usefixtures("counted")
def test_the_data_module_uses_the_configuration_of_each_stage(tmp_path: Path) -> None:
    data = SynthPixDataModule(
        base(**few),
        val=base(seed=4),
        test=base(seed=5, **few, loop=False, num_examples=13),
        val_batches=3,
        epoch_length=4,
    )
    module = Module()
    mine = trainer(tmp_path, ResumeCallback(), max_steps=8)
    mine.fit(module, datamodule=data)
    assert module.seen == list(range(8))
    assert module.validated == [[0, 1, 2]] * 2
    mine.validate(module, datamodule=data)
    mine.test(module, datamodule=data)
    # Finite data is its own window.
    assert module.validated[2:] == [[0, 1, 2], list(range(12))]


@pytest.mark.usefixtures("counted")
def test_the_data_module_takes_ready_datasets_and_a_source_for_each_split(tmp_path: Path) -> None:
    train, own = CountingDataset(epoch_length=3), base(batch_size=2, flow_fields_per_batch=2)
    del own["scheduler_class"]
    sources = {name: fields(count, seed=count) for name, count in (("val", 4), ("test", 6))}
    data = SynthPixDataModule(
        train,
        val=own,
        test=own,
        val_source=sources["val"],
        test_source=sources["test"],
        val_batches=2,
        test_batches=1,
    )
    module = Module()
    mine = trainer(tmp_path, ResumeCallback())
    mine.fit(module, datamodule=data)
    mine.test(module, datamodule=data)
    assert data.train is train
    assert (module.seen, module.validated) == (list(range(6)), [[0, 1], [0, 1], [0]])
    held_out = [data._held_out[name] for name in sources]
    assert [dataset.stream.flows.records for dataset in held_out] == [4, 6]  # type: ignore[union-attr]


def test_a_source_or_an_epoch_length_beside_a_ready_dataset_is_refused() -> None:
    dataset = CountingDataset()
    with pytest.raises(ValueError, match="train_source belongs to a configuration"):
        SynthPixDataModule(dataset, train_source=fields(4))
    with pytest.raises(ValueError, match="val_source belongs to a configuration"):
        SynthPixDataModule(dataset, val_source=fields(4))
    with pytest.raises(ValueError, match="give epoch_length to it"):
        SynthPixDataModule(dataset, epoch_length=4)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("limit", [2, 0.5, 1.0])
def test_validation_has_the_same_batches_each_time_under_limit_val_batches(
    tmp_path: Path, limit: float
) -> None:
    data = SynthPixDataModule(base(**few), val=base(**few), val_batches=4, epoch_length=3)
    module = Module()
    trainer(tmp_path, ResumeCallback(), max_steps=9, limit_val_batches=limit).fit(
        module, datamodule=data
    )
    assert module.validated == [list(range(2 if limit < 1 or limit == 2 else 4))] * 3


@pytest.mark.usefixtures("counted")
def test_a_data_module_without_validation_trains(tmp_path: Path) -> None:
    data, module = SynthPixDataModule(base(**few), epoch_length=3), Module()
    trainer(tmp_path, ResumeCallback()).fit(module, datamodule=data)
    assert module.seen == list(range(6))
    assert module.validated == []


def test_a_data_module_may_bring_its_own_validation(tmp_path: Path) -> None:
    class Own(SynthPixDataModule):
        def val_dataloader(self) -> Any:
            return CountingDataset().window(0, 2)

    module = Module()
    trainer(tmp_path, ResumeCallback(), max_steps=3).fit(
        module, datamodule=Own(base(**few), epoch_length=3)
    )
    assert module.validated == [[0, 1]]


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_number_of_batches_without_a_configuration_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}_batches=3 needs data: pass {name} as well"):
        SynthPixDataModule(base(), **{f"{name}_batches": 3})  # type: ignore[arg-type]


def test_load_from_is_refused_because_it_would_move_validation_too() -> None:
    with pytest.raises(ValueError, match="remove load_from, pass ckpt_path to fit"):
        SynthPixDataModule(base(), load_from="runs/a")


@pytest.mark.parametrize(
    ("stage", "name"), [("fit", "train"), ("validate", "val"), ("test", "test")]
)
def test_a_stage_without_its_configuration_is_refused(stage: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"has no {name} data: pass {name}"):
        SynthPixDataModule().setup(stage)


def test_a_window_of_infinite_data_needs_a_number_of_batches() -> None:
    data = SynthPixDataModule(base(), val=base())
    data.setup("fit")
    with pytest.raises(ValueError, match="The val data is infinite: pass val_batches"):
        data.val_dataloader()


# Without Lightning -----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["lightning", "lightning_utilities"])
def test_a_missing_lightning_names_the_extra_and_a_broken_one_shows_its_own_error(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    imported = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "lightning":
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for module in ("synthpix_torch.lightning", "synthpix_torch.integrations.lightning"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    words = r"pip install 'synthpix_torch\[lightning\]'" if missing == "lightning" else missing
    with pytest.raises(ModuleNotFoundError, match=words):
        importlib.import_module("synthpix_torch.lightning")
