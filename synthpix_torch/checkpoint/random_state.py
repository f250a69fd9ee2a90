"""The random states of a process as an object with a state dict."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_KEYS = ("torch", "cuda", "numpy", "python")
_WORDS = 624
"""Numbers in the state of a Mersenne Twister, which torch, NumPy and Python all use."""
_TORCH_BYTES = 5056
"""Length of torch's state, whose layout is known."""


class RandomState:
    """The global random states of torch (CPU and CUDA), NumPy and Python.

    `Checkpointer` saves the states of every rank and restores each rank's own. Generators that you
    made yourself are not included: register an object of your own for each `torch.Generator`.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return a new dict of tensors, numbers and strings."""
        kind, keys, position, has_gauss, gauss = np.random.get_state()
        python_version, python_keys, python_gauss = random.getstate()
        # Reading the state of an unused GPU would initialize CUDA.
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            "torch": torch.get_rng_state(),
            "cuda": cuda,
            "numpy": {
                "kind": str(kind),
                "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "gauss": float(gauss),
            },
            "python": {
                "version": python_version,
                "keys": torch.from_numpy(np.array(python_keys, np.int64)),
                "gauss": python_gauss,
            },
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set all random states, or none if one of them cannot be set.

        Raises:
            ValueError: `state_dict` was not returned by `state_dict()`.
        """
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        before = self.state_dict()
        try:
            saved = len(state_dict["cuda"])
            _check_torch(state_dict["torch"])
            _check_numpy(state_dict["numpy"])
            _check_python(state_dict["python"])
            _set(state_dict, count)
        except Exception as error:
            _set(before, count)
            raise ValueError(
                f"This is not the state of a RandomState with {', '.join(_KEYS)}: pass what its "
                "state_dict() returned."
            ) from error
        if saved > count:
            warnings.warn(
                f"The random states of {saved} GPUs were saved, but this process has {count}: "
                "the other states are ignored.",
                stacklevel=2,
            )


# NumPy and torch check no position, and would read random numbers from beyond their states.


def _check_torch(state: torch.Tensor) -> None:
    # The layout of CPUGeneratorImplStateLegacy: seed, left, seeded, next. torch checks the length.
    if state.shape != (_TORCH_BYTES,):
        return
    left, next_word = int(state[8:12].view(torch.int32)), int(state[16:24].view(torch.int64))
    fresh = (left, next_word) == (1, 0)
    _require(fresh or (left > 0 and next_word >= 0 and left + next_word == _WORDS + 1))


def _check_numpy(state: Mapping[str, Any]) -> None:
    _require(state["kind"] == "MT19937")
    _require(_are_words(state["keys"], _WORDS))
    _require(_is_integer(state["position"]) and 0 <= state["position"] <= _WORDS)
    _require(_is_integer(state["has_gauss"]) and state["has_gauss"] in (0, 1))
    _require(isinstance(state["gauss"], float))


def _check_python(state: Mapping[str, Any]) -> None:
    _require(_is_integer(state["version"]) and _are_words(state["keys"], _WORDS + 1))
    _require(state["keys"][-1] <= _WORDS)
    _require(state["gauss"] is None or isinstance(state["gauss"], float))


def _are_words(keys: torch.Tensor, count: int) -> bool:
    in_range = ((keys >= 0) & (keys < 1 << 32)).all()
    return keys.dtype == torch.int64 and keys.shape == (count,) and bool(in_range)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: Any) -> None:
    if not condition:
        raise ValueError("A value is out of its range.")


def _set(state: Mapping[str, Any], gpus: int) -> None:
    torch.set_rng_state(state["torch"])
    numpy, python = state["numpy"], state["python"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(
        (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"])
    )
    random.setstate((python["version"], tuple(python["keys"].tolist()), python["gauss"]))
    for index, cuda in enumerate(state["cuda"][:gpus]):
        torch.cuda.set_rng_state(cuda, index)
