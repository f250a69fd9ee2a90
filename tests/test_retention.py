"""Which steps are due, which are kept, and which is the best."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orbax.checkpoint as ocp
import pytest
import torch
from kinds import base, few
from saved import Counter, files

from synthpix_torch import Checkpointer, SynthPixDataset, save_checkpoint


@pytest.fixture
def dataset() -> Iterator[SynthPixDataset]:
    with SynthPixDataset(base(**few)) as dataset:
        yield dataset


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"keep": 2}, [7, 8]),
        ({"keep": 2, "keep_every": 3}, [0, 3, 6, 7, 8]),
        ({"every": 4}, [0, 4, 8]),
        ({"every": 2, "keep": 1, "keep_every": 4}, [0, 4, 8]),
    ],
    ids=str,
)
def test_the_newest_and_every_nth_are_kept(
    tmp_path: Path, options: dict[str, int], kept: list[int]
) -> None:
    with Checkpointer(tmp_path, **options) as checkpoints:  # type: ignore[arg-type]
        checkpoints.register(counter=Counter())
        saved = [step for step in range(9) if checkpoints.save(step)]
    assert saved == list(range(0, 9, options.get("every", 1)))
    assert checkpoints.steps() == kept
    assert sorted(map(int, files(tmp_path))) == kept


def test_a_step_that_is_not_due_is_saved_by_force(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, every=10) as checkpoints:
        checkpoints.register(counter=Counter())
        assert not checkpoints.save(3)
        assert checkpoints.save(3, force=True)
    assert checkpoints.steps() == [3]


def test_steps_of_other_programs_are_neither_counted_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "theirs").write_text("of value")
    (tmp_path / "notes").mkdir()
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.register(counter=Counter())
        for step in (2, 3):
            checkpoints.save(step)
    assert files(tmp_path) == ["1", "3", "notes"]


def test_steps_that_hold_other_objects_are_never_deleted_for_newer_ones(
    tmp_path: Path, dataset: SynthPixDataset
) -> None:
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(data=dataset, model=Counter())
        for step in (1, 2):
            checkpoints.save(step)
    for step in (3, 4, 5):
        save_checkpoint(tmp_path, dataset, step, max_to_keep=1)
    assert files(tmp_path) == ["1", "2", "5"]
    # Neither is one whose manifest cannot be read, nor one of a newer version.
    metadata = tmp_path / "5" / "_CHECKPOINT_METADATA"
    metadata.write_text(metadata.read_text().replace('"format": 1', '"format": 2'))
    save_checkpoint(tmp_path, dataset, 6)
    (tmp_path / "6" / "_CHECKPOINT_METADATA").unlink()
    save_checkpoint(tmp_path, dataset, 7)
    assert files(tmp_path) == ["1", "2", "5", "6", "7"]
    with Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.register(data=dataset, model=Counter(), more=Counter())
        checkpoints.save(8)
    assert files(tmp_path) == ["5", "6", "8"]


METRICS = (3.0, 1.0, 2.0, 1.0, 5.0, float("nan"), None, 4.0, 6.0)
"""The metric of each step; one is not a number, one step has none."""


def _save_metrics(checkpoints: Checkpointer) -> None:
    counter = Counter()
    checkpoints.register(counter=counter)
    for step, metric in enumerate(METRICS):
        counter.value = step
        checkpoints.save(step, metrics=None if metric is None else {"epe": metric, "loss": 0.5})


@pytest.mark.parametrize(
    ("options", "kept", "best"),
    [
        ({"keep": 1}, [3, 8], 3),
        ({"keep": 2, "keep_best": 2}, [1, 3, 7, 8], 3),
        ({"keep": 1, "keep_best": 3, "keep_every": 5}, [0, 1, 2, 3, 5, 8], 3),
        ({"keep": 1, "best_mode": "max"}, [8], 8),
        ({"keep": 1, "keep_best": 3, "best_mode": "max"}, [4, 7, 8], 8),
        ({}, list(range(9)), 3),
    ],
    ids=str,
)
def test_the_best_steps_are_kept_beside_the_newest(
    tmp_path: Path, options: dict[str, Any], kept: list[int], best: int
) -> None:
    with Checkpointer(tmp_path, best="epe", **options) as checkpoints:
        _save_metrics(checkpoints)
    assert checkpoints.steps() == kept
    counter = Counter()
    mode = options.get("best_mode", "min")
    with Checkpointer(tmp_path, best="epe", best_mode=mode, read_only=True) as checkpoints:
        checkpoints.register(counter=counter)
        assert checkpoints.restore(best=True) == counter.value == best
        assert checkpoints.restore() == counter.value == 8


def test_orbax_reads_the_metrics_and_would_keep_the_same_steps(tmp_path: Path) -> None:
    options = {"keep": 2, "keep_best": 2, "keep_every": 5}
    with Checkpointer(tmp_path / "ours", best="epe", **options) as checkpoints:  # type: ignore[arg-type]
        _save_metrics(checkpoints)
    managers = ocp.checkpoint_managers

    def rank(metrics: dict[str, float]) -> float:
        # Orbax cannot rank what is not a number.
        return 9.0 if math.isnan(metrics["epe"]) else metrics["epe"]

    best = ocp.CheckpointManagerOptions(best_fn=rank, best_mode="min", read_only=True)
    with ocp.CheckpointManager(tmp_path / "ours", options=best) as manager:
        assert manager.best_step() == 3
        assert manager.metrics(3) == {"epe": 1.0, "loss": 0.5}
    policy = managers.AnyPreservationPolicy(
        [
            managers.LatestN(2),
            managers.EveryNSteps(5),
            managers.BestN(
                get_metric_fn=rank, reverse=True, n=2, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    infos = [
        SimpleNamespace(
            step=step,
            time=datetime.datetime(2026, 1, 1),
            metrics=None if metric is None else {"epe": metric},
        )
        for step, metric in enumerate(METRICS)
    ]
    flags = policy.should_preserve(infos, context=managers.PreservationContext())
    assert checkpoints.steps() == [step for step, keep in enumerate(flags) if keep]


def test_a_corrupt_best_step_is_skipped_for_the_next_best(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, best="epe") as checkpoints:
        _save_metrics(checkpoints)
        checkpoints.wait()
        (tmp_path / "3" / "counter" / "state.pt").write_bytes(b"")
        with pytest.warns(UserWarning, match="Step 3 .* is skipped"):
            assert checkpoints.restore(best=True) == 1


def test_without_a_metric_there_is_no_best_step(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, best="epe") as checkpoints:
        checkpoints.register(counter=Counter())
        assert checkpoints.restore(best=True) is None
        checkpoints.save(1)
        with pytest.raises(ValueError, match=r"No step in .* has the metric: save with metrics"):
            checkpoints.restore(best=True)
        with pytest.raises(ValueError, match=r"no step=\."):
            checkpoints.restore(1, best=True)
        for metrics, words in (
            ({"eqe": 1}, "metrics eqe lack epe"),
            ({"epe": "small"}, "must be a number with a name, not 'epe': 'small'"),
            ({"epe": torch.ones(2)}, "must be a number"),
            ({1: 2.0}, "must be a number"),
            (0.5, "must be numbers by name, not 0.5"),
        ):
            with pytest.raises((TypeError, ValueError), match=words):
                checkpoints.save(2, metrics=metrics)  # type: ignore[arg-type]
        assert checkpoints.steps() == [1]
        checkpoints.save(2, metrics={"epe": torch.tensor(0.5)})
        assert checkpoints.restore(best=True) == 2
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(ValueError, match="best=name"):
        checkpoints.restore(best=True)
