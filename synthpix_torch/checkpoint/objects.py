"""Named objects whose states are saved and restored together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol, TypeGuard

from torch.utils.data import DataLoader

from synthpix_torch.checkpoint.random_state import RandomState
from synthpix_torch.checkpoint.snapshot import snapshot
from synthpix_torch.checkpoint.step import (
    DATASET,
    ITEMS,
    METRICS,
    RANDOM,
    TORCH,
    Manifest,
    is_name,
)
from synthpix_torch.stream import ranks
from synthpix_torch.stream.state import digest
from synthpix_torch.stream.stream import Stream

# Items of a dataset, and those that Orbax keeps for itself.
_RESERVED = (*ITEMS, METRICS, "default")


class Dataset(Protocol):
    """The methods of a dataset that checkpoints use; `SynthPixDataset` documents them."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def batches_per_epoch(self) -> float: ...  # noqa: D102

    stream: Stream

    @property
    def recipe(self) -> dict[str, Any]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...  # noqa: D102
    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...  # noqa: D102
    def seek(self, number: int) -> None: ...  # noqa: D102


def is_dataset(thing: object) -> TypeGuard[Dataset]:
    """Return whether an object is a dataset: by its class, as properties may raise."""
    names = ("check_state_dict", "seek", "recipe", "batches_per_epoch")
    return all(hasattr(type(thing), name) for name in names)


class Objects:
    """Objects by name, each with `state_dict` and `load_state_dict`.

    Random states are saved for every rank; any other state is the same on all ranks.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._objects)

    def add(self, objects: Mapping[str, Any]) -> None:
        """Add all objects or none.

        Raises:
            TypeError: An object lacks one of the two methods.
            ValueError: A name is taken or cannot name an item, or an object has two names.
        """
        for name, thing in objects.items():
            if not is_name(name):
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
        self._warn_of_draws(objects)

    def _warn_of_draws(self, added: Mapping[str, Any]) -> None:
        if RANDOM not in self.kinds.values():
            return
        random = any(isinstance(thing, RandomState) for thing in added.values())
        for name, thing in (self._objects if random else added).items():
            if isinstance(thing, DataLoader) and thing.generator is None:
                warnings.warn(
                    f"The loader {name} draws from torch's global generator when an iteration "
                    "begins, once more after a restore, so the restored random numbers shift: give "
                    "it a generator of its own, generator=torch.Generator().",
                    stacklevel=4,
                )

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each object, which decides how it is saved."""
        return {name: _kind(thing) for name, thing in self._objects.items()}

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The datasets among the objects."""
        return {name: thing for name, thing in self._objects.items() if is_dataset(thing)}

    def take(self, step: int, *, keep: bool) -> dict[str, Any]:
        """Return a snapshot of all states. Collective.

        Args:
            step: Must be the same on all ranks.
            keep: Whether this rank needs the states; sharded models call the other ranks, too.

        Returns:
            Copies that share no memory with the objects; incomplete if `keep` is False.

        Raises:
            TypeError: A state holds a value that could not be restored.
            RuntimeError: The ranks differ, or another rank failed.
        """
        ranks.check_equal({"step": str(step), "the registered objects": str(self.kinds)})
        # One at a time, because objects may communicate: no rank waits there for one that failed.
        now = {name: ranks.together(thing.state_dict) for name, thing in self._objects.items()}
        ranks.check_equal(
            {
                f"the position of {name}": f"{_position(now[name])} of {digest(now[name])}"
                for name in self.datasets
            }
        )
        taken = ranks.together(partial(self._keep if keep else self._leave, now))
        for name, kind in self.kinds.items():
            if kind == RANDOM:
                taken[name] = {"ranks": ranks.gather(now[name])}
        return taken

    def _keep(self, now: Mapping[str, Any]) -> dict[str, Any]:
        return {name: snapshot(state, name) for name, state in now.items()}

    def _leave(self, now: Mapping[str, Any]) -> dict[str, Any]:
        # The rank that writes flushes in the background, before the step is complete.
        self.flush()
        return {}

    def flush(self) -> None:
        """Let objects that write files of their own flush them to disk."""
        for thing in self._objects.values():
            if callable(flush := getattr(thing, "flush", None)):
                flush()

    def describe(self, taken: Mapping[str, Any], step: int, metrics: dict[str, float]) -> Manifest:
        """Return the manifest of a step that holds the states that `take` returned."""
        datasets, recipes = {}, {}
        for name, dataset in self.datasets.items():
            position = _position(taken[name])
            datasets[name] = {
                "position": position,
                "epochs": round(position / dataset.batches_per_epoch, 4),
                "fingerprint": digest(taken[name]),
            }
            recipes[name] = dataset.recipe
        return Manifest(self.kinds, datasets, recipes, metrics, step, version("synthpix_torch"))

    def select(
        self, kinds: Mapping[str, str], step: int, only: Iterable[str] | None
    ) -> dict[str, str]:
        """Return the kinds of the objects of a step that are to be restored.

        Args:
            kinds: What the step holds.
            step: For the error.
            only: Names to restore; None requires the step to hold the registered objects exactly.

        Raises:
            ValueError: Names what is missing in the step or not registered.
        """
        wanted = self.kinds if only is None else dict.fromkeys(only, "")
        registered = {name: kind for name, kind in self.kinds.items() if name in wanted}
        held = {name: kind for name, kind in kinds.items() if only is None or name in wanted}
        if held == registered and held.keys() == wanted.keys():
            return held
        missing = ", ".join(sorted((held.keys() | wanted.keys()) - registered.keys()))
        extra = ", ".join(sorted(wanted.keys() - held.keys()))
        raise ValueError(
            f"Step {step} holds {_names(kinds)}; registered are {_names(self.kinds)}."
            + (f" Not registered: {missing}." if missing else "")
            + (f" Not in the step: {extra}." if extra else "")
            + " Register the same objects under the same names, or restore some with only=[names]."
        )

    def load(self, saved: Mapping[str, Any], rank: int) -> None:
        """Load states into their objects: all of them on all ranks, or none. Collective.

        Args:
            saved: States by name, as `take` returned them.
            rank: Of this process.

        Raises:
            Exception: An object's own error; all objects have their previous states again.
            RuntimeError: An object failed on another rank; likewise.
        """
        ranks.check_equal({"the registered objects": str(self.kinds)})
        own = ranks.together(lambda: self._own_states(saved, rank))
        before: dict[str, Any] = {}
        try:
            for name in saved:
                # One at a time, because objects may communicate.
                ranks.together(partial(self._remember, name, own, before))
                ranks.together(partial(self._load, name, own))
        except BaseException as error:
            error.add_note(self._roll_back(before))
            raise

    def _own_states(self, saved: Mapping[str, Any], rank: int) -> dict[str, Any]:
        """Return the states that this rank is to load, checked as far as possible."""
        own = dict(saved)
        for name in saved:
            thing = self._objects[name]
            if isinstance(thing, RandomState):
                everyone = _random_states(own.pop(name), name)
                if rank < len(everyone):
                    own[name] = everyone[rank]
                else:
                    warnings.warn(
                        f"{name} was saved by {len(everyone)} ranks: rank {rank} keeps its current "
                        "random state.",
                        stacklevel=5,
                    )
            elif is_dataset(thing):
                with warnings.catch_warnings():
                    # load_state_dict warns of other versions again.
                    warnings.simplefilter("ignore")
                    thing.check_state_dict(own[name])
        return own

    def _remember(self, name: str, own: Mapping[str, Any], before: dict[str, Any]) -> None:
        if name in own:
            now = self._objects[name].state_dict()
            if getattr(self._objects[name], "_iter_for_state_dict", False):
                # The Loader of torchdata.nodes returns the iterator that its state_dict has begun
                # once, even if another state was loaded.
                iter(self._objects[name])
            try:
                before[name] = snapshot(now, name)
            except TypeError:
                # It need not be fit for a file: that of a lazy module before its first batch.
                before[name] = copy.deepcopy(now)

    def _load(self, name: str, own: Mapping[str, Any]) -> None:
        if name in own:
            try:
                self._objects[name].load_state_dict(own[name])
            except Exception as error:
                error.add_note(f"{name!r} could not be restored.")
                raise

    def _roll_back(self, before: dict[str, Any]) -> str:
        """Load the previous states again, and describe the result."""
        lost = []
        for name, state in reversed(before.items()):
            try:
                self._objects[name].load_state_dict(state)
            except Exception as error:
                lost.append(f"{name} ({error})")
        if lost:
            return f"The previous state could not be loaded again into {', '.join(lost)}."
        return "All objects have their previous states."


def _kind(thing: object) -> str:
    if is_dataset(thing):
        return DATASET
    return RANDOM if isinstance(thing, RandomState) else TORCH


def _random_states(saved: Any, name: str) -> list[Any]:
    everyone = saved.get("ranks") if isinstance(saved, dict) else None
    if not isinstance(everyone, list):
        raise ValueError(f"The step holds no random states of ranks under the name {name}.")
    return everyone


def _position(state: Mapping[str, Any]) -> int:
    position: int = state["sampler"]["position"]
    return position


def _article(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def _names(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items())) or "nothing"
