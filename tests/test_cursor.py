"""The cursor against a model that counts batch by batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import synthpix_torch
from synthpix_torch.stream.cursor import Cursor
from synthpix_torch.stream.order import Order


class Model:
    """Delivered and committed batches, counted one by one."""

    def __init__(self, total: int | None, epoch_length: int | None) -> None:
        self.total = total
        self.epoch_length = epoch_length
        self.next = 0
        self.tracking = False
        self.across_passes = False
        self.first_tracked = 0
        self.waiting: list[int] = []
        self.left: int | None = None
        self.active = False
        self.told_of_the_end = False

    def remaining(self, number: int) -> int | None:
        return None if self.total is None else self.total - number

    def move(self, number: int) -> None:
        self.next = 0 if self.remaining(number) == 0 else number
        self.waiting = []
        self.first_tracked = self.next
        self.active = self.told_of_the_end = False

    def pass_length(self, number: int, ranks: int) -> int | None:
        """Count steps of all ranks up to the end of the epoch or of the data."""
        if self.total is None and self.epoch_length is None:
            return None
        steps = 0
        while True:
            if self.total is not None and number + ranks > self.total:
                return steps
            number += ranks
            steps += 1
            if self.epoch_length is not None:
                size = self.epoch_length * ranks
                # The first step that reaches or crosses the end of an epoch is its last.
                if number // size > (number - ranks) // size:
                    return steps

    def begin(self, ranks: int) -> None:
        if self.tracking and self.waiting and not (self.across_passes and self.told_of_the_end):
            self.move(self.first_tracked)
        remaining = self.remaining(self.next)
        if remaining is not None and remaining < ranks:
            self.next = 0
        self.left = self.pass_length(self.next, ranks)
        self.active, self.told_of_the_end = True, False

    def deliver(self, ranks: int) -> None:
        self.next += ranks
        remaining = self.remaining(self.next)
        if remaining is not None and remaining < ranks:
            self.next = 0
        if self.tracking:
            self.waiting.append(self.next)
        if self.left is not None:
            self.left -= 1

    def state(self) -> int:
        return self.first_tracked if self.tracking else self.next


class CursorMachine(RuleBasedStateMachine):
    """Move a cursor and the model in the same way; their counts agree after every rule."""

    @initialize(
        steps=st.integers(1, 3),
        streams=st.integers(1, 3),
        units=st.none() | st.integers(1, 7),
        epoch_length=st.none() | st.integers(1, 5),
    )
    def start(self, steps: int, streams: int, units: int | None, epoch_length: int | None) -> None:
        order = Order(steps, streams, units)
        self.cursor = Cursor(order, epoch_length=epoch_length)
        self.model = Model(order.total, epoch_length)
        self.ranks = 1
        self.ticket = 0

    @rule(ranks=st.integers(1, 3))
    def begin(self, ranks: int) -> None:
        if self.model.total is not None and self.model.total < ranks:
            before = self.cursor.position, self.cursor.first_uncommitted
            with pytest.raises(RuntimeError, match="too few for"):
                self.cursor.begin(ranks)
            assert (self.cursor.position, self.cursor.first_uncommitted) == before
            return
        self.ranks = ranks
        self.model.begin(ranks)
        assert self.cursor.next_start in (self.cursor.position, self.cursor.first_uncommitted)
        self.ticket, length = self.cursor.begin(ranks)
        assert length == self.model.left

    @precondition(lambda self: self.model.active and self.model.left != 0)
    @rule()
    def deliver(self) -> None:
        self.cursor.deliver(self.ranks)
        self.model.deliver(self.ranks)

    @precondition(lambda self: self.model.active and self.model.left == 0)
    @rule()
    def exhaust(self) -> None:
        self.cursor.exhaust(self.ticket)
        self.model.told_of_the_end = True

    @rule(fraction=st.integers(0, 30))
    def seek(self, fraction: int) -> None:
        number = fraction if self.model.total is None else min(fraction, self.model.total)
        self.cursor.seek(number)
        self.model.move(number)

    @rule()
    def stop(self) -> None:
        self.cursor.stop()
        self.model.active = False

    @rule(across_passes=st.booleans())
    def track(self, across_passes: bool) -> None:
        self.untrack()
        self.cursor.track(across_passes=across_passes)
        self.model.tracking, self.model.across_passes = True, across_passes
        self.model.first_tracked = self.model.next

    @rule()
    def commit(self) -> None:
        if not self.model.waiting:
            with pytest.raises(RuntimeError, match="no batch to commit"):
                self.cursor.commit()
            return
        self.cursor.commit()
        self.model.first_tracked = self.model.waiting.pop(0)

    @rule()
    def untrack(self) -> None:
        self.cursor.untrack()
        if self.model.tracking and self.model.waiting:
            self.model.move(self.model.first_tracked)
        self.model.tracking = False

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "cursor"):
            return
        assert self.cursor.position == self.model.next
        assert self.cursor.first_uncommitted == self.model.state()
        assert self.cursor.uncommitted == len(self.model.waiting)
        assert self.cursor.tracking == self.model.tracking
        assert self.cursor.is_active(self.ticket) == self.model.active or self.ticket == 0


CursorMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_the_cursor_counts_as_the_model_does: Any = CursorMachine.TestCase


def test_the_ranks_share_every_batch_of_finite_data_once() -> None:
    order = Order(3, 2, 5)
    cursors = [Cursor(order) for _ in range(2)]
    seen: list[int] = []
    lengths = [cursor.begin(2)[1] for cursor in cursors]
    assert lengths == [7, 7]
    for _ in range(7):
        for rank, cursor in enumerate(cursors):
            seen.append(cursor.position + rank)
            cursor.deliver(2)
    assert seen == list(range(14))
    assert {cursor.position for cursor in cursors} == {0}


def test_uncommitted_data_is_delivered_again_after_all_of_it_was_delivered() -> None:
    cursor = Cursor(Order(1, 1, 2))
    cursor.track(across_passes=False)
    cursor.begin(1)
    cursor.deliver(1)
    cursor.deliver(1)
    # The position has wrapped around to the first uncommitted batch.
    assert (cursor.position, cursor.first_uncommitted, cursor.uncommitted) == (0, 0, 2)
    cursor.begin(1)
    assert (cursor.position, cursor.first_uncommitted, cursor.uncommitted) == (0, 0, 0)
    cursor.deliver(1)
    cursor.commit()
    assert cursor.first_uncommitted == 1


def test_a_pass_of_episodes_ends_with_them() -> None:
    cursor = Cursor(Order(4, 1, 3, episodic=True))
    assert cursor.begin(1)[1] == 4
    cursor.deliver(1)
    cursor.next_episode()
    assert cursor.position == 4
    cursor.next_episode()
    assert cursor.position == 4


def test_the_cursor_needs_neither_torch_nor_jax() -> None:
    script = (
        "import sys, types; package = types.ModuleType('synthpix_torch');"
        "package.__path__ = [sys.argv[1]]; sys.modules['synthpix_torch'] = package;"
        "import synthpix_torch.stream.cursor;"
        "assert not {'torch', 'jax', 'numpy'} & sys.modules.keys()"
    )
    package = Path(str(synthpix_torch.__file__)).parent
    subprocess.run([sys.executable, "-c", script, str(package)], check=True)
