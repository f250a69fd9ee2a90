"""The objects that are saved together: their states taken, checked and given back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from synthpix_torch.checkpoint import ranks
from synthpix_torch.checkpoint.random_state import RandomState
from synthpix_torch.checkpoint.snapshot import take_snapshot
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.stream import state as states

DATASET, RANDOM, TORCH = "dataset", "random", "torch"

_KEPT: Final = object()
"""In place of a state: the object keeps the one that it has."""

# Names of the items of a dataset, and those that Orbax keeps for itself.
_RESERVED = (*states.ITEMS, "default", "metrics")


class Registry:
    """Objects by name, each with `state_dict` and `load_state_dict`.

    Random states are those of every rank; all else is the same on all ranks.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._objects)

    def add(self, objects: Mapping[str, Any]) -> None:
        """Add all objects or none.

        Raises:
            TypeError: An object lacks one of the two methods.
            ValueError: A name is taken, or cannot be the name of an item.
        """
        for name, thing in objects.items():
            if not name.isascii() or not name.isidentifier() or name.startswith("_"):
                raise ValueError(
                    f"{name!r} cannot name an object: use letters, digits and underscores, with "
                    "a letter at the start."
                )
            if name in _RESERVED or name in self._objects:
                raise ValueError(f"The name {name!r} is taken: choose another one.")
            for method in ("state_dict", "load_state_dict"):
                if isinstance(thing, type) or not callable(getattr(thing, method, None)):
                    raise TypeError(
                        f"{name} is {_article(thing)} without {method}(): register an object that "
                        "has state_dict() and load_state_dict()."
                    )
            for other, registered in (self._objects | dict(objects)).items():
                if registered is thing and other != name:
                    raise ValueError(f"{name} and {other} are the same object: register it once.")
        self._objects.update(objects)

    @property
    def kinds(self) -> dict[str, str]:
        """How each object is saved."""
        return {name: _kind(thing) for name, thing in self._objects.items()}

    @property
    def datasets(self) -> dict[str, SynthPixDataset]:
        """The datasets among the objects."""
        return {
            name: thing
            for name, thing in self._objects.items()
            if isinstance(thing, SynthPixDataset)
        }

    def take(self, step: int, *, keep: bool) -> dict[str, Any]:
        """The states of all objects as they are now, on all ranks at once.

        Args:
            step: Compared among the ranks.
            keep: Whether this rank needs them; the others take part, as sharded models ask them to.

        Returns:
            Copies that nobody changes any more; nothing of use where `keep` is False.

        Raises:
            TypeError: A state holds what could not be read again.
            RuntimeError: The ranks do not agree.
        """
        ranks.check_equal({"step": str(step), "the registered objects": str(self.kinds)})
        # Apart, for objects whose ranks work together: none of them waits for one that failed.
        now = {name: ranks.together(thing.state_dict) for name, thing in self._objects.items()}
        ranks.check_equal(
            {
                f"the position of {name}": f"{now[name]['sampler']['position']} of "
                f"{states.digest(now[name])}"
                for name in self.datasets
            }
        )
        taken = ranks.together(
            lambda: (
                {name: take_snapshot(value, name) for name, value in now.items()} if keep else {}
            )
        )
        for name, kind in self.kinds.items():
            if kind == RANDOM:
                taken[name] = {"ranks": ranks.gather(now[name])}
        return taken

    def check(self, kinds: Mapping[str, str], step: int) -> None:
        """Raise unless a step holds the registered objects, no more and no fewer.

        Raises:
            ValueError: Names what is in the step and what is registered.
        """
        if dict(kinds) == self.kinds:
            return
        missing = ", ".join(sorted(kinds.keys() - self.kinds.keys()))
        extra = ", ".join(sorted(self.kinds.keys() - kinds.keys()))
        raise ValueError(
            f"Step {step} holds {_names(kinds)}; registered are {_names(self.kinds)}."
            + (f" Not registered: {missing}." if missing else "")
            + (f" Not in the step: {extra}." if extra else "")
            + " Register the same objects under the same names."
        )

    def give_back(self, saved: Mapping[str, Any], rank: int) -> None:
        """Load the states that were taken, all of them on all ranks, or none.

        Raises:
            Exception: What an object raised; the objects have the states that they had before.
            RuntimeError: An object raised on another rank; likewise.
        """
        ranks.check_equal({"the registered objects": str(self.kinds)})
        own = ranks.together(lambda: self._own_states(saved, rank))
        before: dict[str, Any] = {}
        try:
            for name in self._objects:
                # One after the other, for objects whose ranks work together.
                ranks.together(partial(self._note, name, own[name], before))
                ranks.together(partial(self._load, name, own[name]))
        except BaseException as error:
            error.add_note(self._put_back(before))
            raise

    def _put_back(self, before: dict[str, Any]) -> str:
        """Load the states that objects had before; in words, what came of it."""
        lost = []
        for name, state in reversed(before.items()):
            try:
                self._objects[name].load_state_dict(state)
            except Exception as error:
                lost.append(f"{name} ({error})")
        if lost:
            return f"These do not load the state that they had before: {', '.join(lost)}."
        return "All objects are as they were."

    def _own_states(self, saved: Mapping[str, Any], rank: int) -> dict[str, Any]:
        """What each object is to load on one rank, as far as it can be checked before."""
        own = dict(saved)
        for name, kind in self.kinds.items():
            if kind == RANDOM:
                own[name] = _of_rank(saved[name]["ranks"], rank, name)
        for name, dataset in self.datasets.items():
            with warnings.catch_warnings():
                # Other versions are warned of when the state is loaded.
                warnings.simplefilter("ignore")
                dataset.check_state_dict(own[name])
        return own

    def _note(self, name: str, state: Any, before: dict[str, Any]) -> None:
        """Note the state that is to be replaced."""
        if state is _KEPT:
            return
        now = self._objects[name].state_dict()
        try:
            before[name] = take_snapshot(now, name)
        except TypeError:
            # It need not be fit for a file, as that of a lazy module before its first batch.
            before[name] = copy.deepcopy(now)

    def _load(self, name: str, state: Any) -> None:
        if state is _KEPT:
            return
        try:
            self._objects[name].load_state_dict(state)
        except Exception as error:
            error.add_note(f"{name!r} could not be restored.")
            raise


def _kind(thing: Any) -> str:
    if isinstance(thing, SynthPixDataset):
        return DATASET
    return RANDOM if isinstance(thing, RandomState) else TORCH


def _article(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def _names(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items())) or "nothing"


def _of_rank(everyone: list[Any], rank: int, name: str) -> Any:
    """The random state of one rank; `_KEPT`, with a warning, if it was not there to be saved."""
    if rank < len(everyone):
        return everyone[rank]
    warnings.warn(
        f"{name} was saved by {len(everyone)} ranks: rank {rank} keeps the random state it has.",
        stacklevel=4,
    )
    return _KEPT
