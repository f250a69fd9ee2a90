"""The random states of a process as an object with a state dict."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_KEYS = ("torch", "cuda", "numpy", "python")


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
        saved = state_dict.get("cuda")
        if isinstance(saved, list) and len(saved) > count:
            warnings.warn(
                f"The random states of {len(saved)} GPUs were saved, but this process has {count}: "
                "the other states are ignored.",
                stacklevel=2,
            )
        before = self.state_dict()
        try:
            _set(state_dict, count)
        except Exception as error:
            _set(before, count)
            raise ValueError(
                f"This is not the state of a RandomState with {', '.join(_KEYS)}: pass what its "
                "state_dict() returned."
            ) from error


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
