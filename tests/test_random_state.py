"""Random states in checkpoints: what comes back, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthpix_torch import Checkpointer, RandomState


def test_the_random_states_of_torch_numpy_and_python_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[Any, ...]:
        return torch.rand(2).tolist(), np.random.standard_normal(1).tolist(), random.gauss(0, 1)

    # An odd number of normal draws leaves half a pair in the state.
    draw()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.register(rng=RandomState())
        checkpoints.save(1)
        wanted = [draw() for _ in range(3)]
        assert checkpoints.restore() == 1
    assert [draw() for _ in range(3)] == wanted


def test_a_random_state_that_is_none_changes_nothing() -> None:
    state = RandomState()
    before, bad = state.state_dict(), state.state_dict()
    torch.rand(1)
    after = state.state_dict()
    for keys in (torch.zeros(3), -bad["python"]["keys"]):
        bad["python"]["keys"] = keys
        with pytest.raises(ValueError, match="not the state of a RandomState"):
            state.load_state_dict(bad)
        assert torch.equal(state.state_dict()["torch"], after["torch"])
    state.load_state_dict(before)
    assert torch.equal(state.state_dict()["torch"], before["torch"])


UNSAFE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "NumPy's position": lambda state: state["numpy"].update(position=2**31 - 1),
    "NumPy's position before 0": lambda state: state["numpy"].update(position=-1),
    "NumPy's position as a fraction": lambda state: state["numpy"].update(position=1.5),
    "another generator of NumPy": lambda state: state["numpy"].update(kind="PCG64"),
    "NumPy's keys": lambda state: state["numpy"].update(keys=torch.full((624,), 1 << 40)),
    "NumPy's number of keys": lambda state: state["numpy"].update(keys=torch.zeros(9).long()),
    "NumPy's normal number": lambda state: state["numpy"].update(has_gauss=7),
    "torch's position": lambda state: state["torch"][16:24].fill_(1),
    "torch's rest": lambda state: state["torch"][8:12].fill_(0),
    "torch's position and rest": lambda state: state["torch"][8:24].copy_(
        torch.tensor([624, 1, 624, 0], dtype=torch.int32).view(torch.uint8)
    ),
    "torch's rest before 0": lambda state: state["torch"][8:12].fill_(255),
    "Python's position": lambda state: state["python"]["keys"][-1:].fill_(2**31),
    "Python's normal number": lambda state: state["python"].update(gauss="x"),
    "CUDA": lambda state: state.update(cuda=None),
    "nothing": lambda state: state.clear(),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_a_random_state_that_would_be_read_beyond_its_memory_is_refused(case: str) -> None:
    torch.rand(1)
    state = RandomState()
    before, unsafe = state.state_dict(), state.state_dict()
    UNSAFE[case](unsafe)
    with pytest.raises(ValueError, match="not the state of a RandomState"):
        state.load_state_dict(unsafe)
    assert torch.equal(state.state_dict()["torch"], before["torch"])
    assert torch.equal(state.state_dict()["numpy"]["keys"], before["numpy"]["keys"])


@pytest.mark.parametrize("draws", [0, 1, 623, 624, 625])
def test_a_random_state_after_any_number_of_draws_is_loaded(draws: int) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    for _ in range(draws):
        torch.randint(0, 2, (1,)), np.random.randint(2), random.getrandbits(32)
    saved = RandomState().state_dict()
    wanted = torch.rand(1), np.random.rand(), random.random()
    RandomState().load_state_dict(saved)
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted
