"""Commits: a state names what was trained on, not what was delivered."""

from __future__ import annotations

from itertools import islice

import pytest
from counting import CountingDataset

from synthpix_torch import SynthPixDataset


def saved(dataset: SynthPixDataset) -> int:
    position = dataset.state_dict()["sampler"]["position"]
    assert isinstance(position, int)
    return position


def test_a_state_names_what_was_delivered_until_track_is_called_and_then_what_was_committed() -> (
    None
):
    dataset = CountingDataset()
    batches = iter(dataset)
    next(batches)
    assert (dataset.tracking, saved(dataset)) == (False, 1)
    dataset.track()
    assert (dataset.tracking, dataset.uncommitted, saved(dataset)) == (True, 0, 1)
    next(batches), next(batches)
    assert (dataset.uncommitted, saved(dataset), dataset.position) == (2, 1, 3)
    dataset.commit()
    assert (dataset.uncommitted, saved(dataset), dataset.position) == (1, 2, 3)


def test_commit_without_a_batch_is_an_error() -> None:
    dataset = CountingDataset()
    with pytest.raises(RuntimeError, match=r"call track\(\) before the first batch"):
        dataset.commit()
    dataset.track()
    with pytest.raises(RuntimeError, match="no batch to commit"):
        dataset.commit()
    next(iter(dataset))
    dataset.commit()
    with pytest.raises(RuntimeError, match="no batch to commit"):
        dataset.commit()


@pytest.mark.parametrize("how", ["the next pass", "untrack", "load_state_dict"])
def test_what_was_not_committed_is_delivered_again(how: str) -> None:
    dataset = CountingDataset()
    dataset.track()
    for _ in islice(dataset, 4):
        pass
    dataset.commit()
    dataset.commit()
    if how == "untrack":
        dataset.untrack()
        assert not dataset.tracking
    elif how == "load_state_dict":
        dataset.load_state_dict(dataset.state_dict())
        assert (dataset.tracking, dataset.uncommitted) == (True, 0)
    assert [batch.number for batch in islice(dataset, 2)] == [2, 3]


def test_a_state_that_is_loaded_or_sought_counts_as_committed() -> None:
    dataset = CountingDataset()
    dataset.track()
    next(iter(dataset))
    dataset.seek(7)
    assert (dataset.uncommitted, saved(dataset)) == (0, 7)
    assert next(iter(dataset)).number == 7
    assert saved(dataset) == 7


def test_untrack_without_track_changes_nothing() -> None:
    dataset = CountingDataset()
    batches = iter(dataset)
    next(batches)
    dataset.untrack()
    assert next(batches).number == 1


def test_untrack_does_not_end_a_pass_when_all_is_committed() -> None:
    dataset = CountingDataset()
    dataset.track()
    batches = iter(dataset)
    next(batches)
    dataset.commit()
    dataset.untrack()
    assert next(batches).number == 1


def test_the_end_of_finite_data_is_committed_like_any_other_batch() -> None:
    from kinds import base, few

    dataset = CountingDataset(base(**few, loop=False, num_examples=13))
    dataset.track()
    numbers = []
    for batch in dataset:
        numbers.append(batch.number)
        dataset.commit()
    assert numbers == list(range(12))
    assert saved(dataset) == 0
    assert next(iter(dataset)).number == 0


def test_tracking_twice_delivers_again_what_was_not_committed() -> None:
    dataset = CountingDataset()
    dataset.track()
    list(islice(dataset, 3))
    dataset.commit()
    dataset.track()
    assert (dataset.position, dataset.uncommitted, saved(dataset)) == (1, 0, 1)


def test_a_pass_delivers_again_what_a_failed_loop_had_read_ahead_to_the_end() -> None:
    dataset = CountingDataset(epoch_length=3)
    dataset.track()
    list(dataset)
    dataset.commit()
    assert [batch.number for batch in dataset] == [1, 2]


def test_across_passes_the_end_of_one_is_committed_in_the_next() -> None:
    dataset = CountingDataset(epoch_length=3)
    dataset.track(across_passes=True)
    first = list(dataset)
    second = iter(dataset)
    assert [batch.number for batch in (*first, next(second))] == [0, 1, 2, 3]
    positions = []
    for _ in range(4):
        dataset.commit()
        positions.append(saved(dataset))
    assert positions == [1, 2, 3, 4]
