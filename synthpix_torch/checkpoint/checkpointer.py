"""Saves and restores a run, a numbered step at a time."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from orbax.checkpoint import checkpoint_managers as policies

from synthpix_torch.checkpoint import ranks
from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.folder import CheckpointError, Folder, Place, UnfinishedError
from synthpix_torch.checkpoint.newest import check_step, find_newest
from synthpix_torch.checkpoint.registry import Registry
from synthpix_torch.checkpoint.step import About
from synthpix_torch.checks import check_integer
from synthpix_torch.dataset import SynthPixDataset

logger = logging.getLogger("synthpix_torch")

_OPEN: weakref.WeakSet[Checkpointer] = weakref.WeakSet()


def _finish_all() -> None:
    """Let the steps of those who did not call `close` reach the disk; failures are logged."""
    for checkpointer in tuple(_OPEN):
        with suppress(CheckpointError):
            checkpointer._finish()


# Later, and so in `atexit`, the pools of threads that Orbax writes with refuse work.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]


def _forget_in_child() -> None:
    """The thread that writes stays with the parent of a fork, so a child must not wait for it."""
    for checkpointer in tuple(_OPEN):
        checkpointer._pending = None


os.register_at_fork(after_in_child=_forget_in_child)


class Checkpointer:
    """Saves and restores registered objects together, a numbered step of a folder at a time.

    A step is on disk whole or not at all. Rank 0 writes, all ranks read; with several ranks call
    `save`, `restore` and `wait` on all of them, with the same arguments. Use it in a `with`
    statement, or call `close`, which waits for the last step and raises what failed; the end of the
    program waits too, and logs it.

        with Checkpointer("runs/a", keep=3) as checkpoints:
            checkpoints.register(data=dataset, model=model, optimizer=optimizer)
            start = checkpoints.restore() or 0
            for step, batch in enumerate(dataset, start):
                ...
                checkpoints.save(step + 1)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int | None = None,
        keep_every: int | None = None,
        every: int = 1,
        read_only: bool = False,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            folder: Where the steps are; made when it is locked, by the first `restore`, or `save`
                of a step that is due.
            keep: How many of the newest steps to keep, None for all.
            keep_every: Steps that are multiples of it are kept for ever.
            every: `save` writes multiples of it only.
            read_only: Restore without a lock, while another process may be writing.

        Raises:
            TypeError: A number is not an integer.
            ValueError: A number is not positive, or the folder is not on a local disk.
        """
        for name, value in (("keep", keep), ("keep_every", keep_every), ("every", every)):
            if name == "every" or value is not None:
                check_integer(name, value, 1)
        self._folder = Folder(folder)
        for_ever = [policies.EveryNSteps(keep_every)] if keep_every else []
        self._preservation = policies.AnyPreservationPolicy([policies.LatestN(keep), *for_ever])
        self._cadence = policies.FixedIntervalPolicy(every)
        self._read_only = read_only
        self._registry = Registry()
        self._passed_over: list[int] = []
        self._writer = ThreadPoolExecutor(1, "synthpix_torch-checkpoint")
        self._pending: Future[None] | None = None
        self._has_saved = False
        self._closed = False
        _OPEN.add(self)

    def register(self, **objects: Any) -> None:
        """Name what is saved: anything with `state_dict` and `load_state_dict`.

        Raises:
            TypeError: An object lacks one of the two.
            ValueError: A name is taken, or cannot be the name of an item.
        """
        self._check_open()
        self._registry.add(objects)

    def save(self, step: int, *, overwrite: bool = False, force: bool = False) -> bool:
        """Save all objects as they are now, and return while they are still being written.

        What happens to the objects afterwards does not reach the disk. If the step before this one
        is still being written, it is waited for first.

        Args:
            step: Its number, larger than all before.
            overwrite: Let this step replace those of the same number and larger ones.
            force: Save although `step` is not a multiple of `every`.

        Returns:
            Whether the step is saved; False if it is not a multiple of `every`.

        Raises:
            CheckpointError: The step before could not be written, or this process may not write.
            ValueError: There is such a step or a newer one, or nothing is registered.
            TypeError: A state holds what could not be read again.
            RuntimeError: The ranks do not agree on what to save, or another rank failed.
        """
        self._check_open()
        check_integer("step", step, 0)
        if self._read_only:
            raise CheckpointError("This Checkpointer only reads: leave out read_only=True to save.")
        if not self._registry:
            raise ValueError("Nothing is registered: call register(data=dataset) first.")
        if not (force or self._cadence.should_save(_Info(step), [], context=None)):
            # Several ranks hear of it together, at a step that is due.
            if not ranks.are_several() and self._pending is not None and self._pending.done():
                self._finish()
            return False
        self._has_saved = True
        replacing = ranks.together(lambda: self._prepare(step, overwrite=overwrite))
        taken = self._registry.take(step, keep=self._writes)
        if self._writes:
            about = steps.describe(self._registry.kinds, self._registry.datasets, taken)
            self._pending = self._writer.submit(self._write, step, taken, about, replacing)
        return True

    def restore(self, step: int | None = None) -> int | None:
        """Give all objects the states of the newest whole step, or of a given one.

        Damaged steps are named in a warning and passed over; the next `save` moves them aside.
        Nothing is changed unless everything can be read and fits.

        Returns:
            The number of the step, None if there is no whole step.

        Raises:
            CheckpointError: The given step is damaged, or another process writes to the folder.
            ValueError: There is no such step, or it holds other objects than are registered.
            StateMismatchError: A dataset was saved with another configuration or other data.
            RuntimeError: Another rank failed.
        """
        self._check_open()
        if step is not None:
            check_integer("step", step, 0)
        ranks.check_equal({"step": str(step)})
        while True:
            # One rank decides: the others might look while a step is coming or going.
            found: int | None
            found, place = ranks.gather(ranks.together(lambda: self._find(step)))[0]
            if found is None:
                return None
            try:
                saved = ranks.together(partial(self._read, found))
                break
            except Exception:
                # Its writer may have moved or deleted it by now, for a newer one.
                now = ranks.gather(ranks.together(self._folder.places).get(found))[0]
                if place is not None and now == place:
                    raise
        self._registry.give_back(saved, self._rank)
        return found

    def steps(self) -> list[int]:
        """Numbers of the steps on disk, in order, whole or damaged."""
        return self._folder.steps()

    def wait(self) -> None:
        """Wait until the last step is on disk; with several ranks, on all of them.

        Raises:
            CheckpointError: It could not be written.
            RuntimeError: The same, on the other ranks.
        """
        self._check_open()
        ranks.together(self._finish)

    def close(self) -> None:
        """Wait for the last step, then let another process write.

        Of several ranks only the one that writes waits and raises, so that a rank that fails can
        close without the others; the end of a `with` block that did not fail calls `wait` first.

        Raises:
            CheckpointError: The last step could not be written.
        """
        if not self._closed:
            self._closed = True
            try:
                self._finish()
            finally:
                self._writer.shutdown()
                self._folder.unlock()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None and self._has_saved and not self._closed:
                self.wait()
        finally:
            self.close()

    # Behind the scenes -------------------------------------------------------------------------

    @property
    def _rank(self) -> int:
        """Of torch.distributed, else what the first dataset was told."""
        datasets = iter(self._registry.datasets.values())
        return ranks.rank() if ranks.are_several() else next((d.rank for d in datasets), 0)

    @property
    def _writes(self) -> bool:
        return self._rank == 0

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The Checkpointer is closed: make a new one.")

    def _finish(self) -> None:
        """Wait for the step that is being written, and raise what went wrong, once."""
        pending = self._pending
        if pending is None:
            return
        try:
            pending.result()
        finally:
            # Not if it was the wait that was interrupted.
            if pending.done():
                self._pending = None

    def _prepare(self, step: int, *, overwrite: bool) -> list[int]:
        """Make way for a step; which steps go when it comes."""
        self._finish()
        if not self._writes:
            return []
        self._folder.lock()
        for number in self._passed_over:
            if steps.is_ours(self._folder.step(number)):
                logger.warning("Moved a damaged step to %s.", self._folder.set_aside(number))
        self._passed_over = []
        newer = [number for number in self._folder.steps() if number >= step]
        for number in newer:
            if not steps.is_ours(self._folder.step(number)):
                raise ValueError(
                    f"{self._folder.step(number)} was written by another program and is not older "
                    f"than step {step}: move it elsewhere, or choose another folder."
                )
        if newer and not overwrite:
            raise ValueError(
                f"Step {newer[-1]} is in {self._folder.path} already, step {step} is not newer: "
                "pass overwrite=True to replace it and all newer ones."
            )
        return newer

    def _write(
        self, step: int, taken: Mapping[str, Any], about: About, replacing: list[int]
    ) -> None:
        """In the background: write one step, then delete old ones."""
        folder, saved = self._folder, False
        try:
            folder.write(step, lambda place: steps.write_step(place, taken, about), replacing)
            saved = True
            folder.discard(self._outdated())
        except Exception as error:
            cause = str(error).rstrip(".")
            if saved or isinstance(error, UnfinishedError):
                text = (
                    f"Step {step} is saved in {folder.path}, but tidying up behind it failed: "
                    f"{cause}. The next save tries again."
                )
            else:
                text = (
                    f"Step {step} could not be saved in {folder.path}: {cause}. Older steps are as "
                    "they were; mend the cause, and save again."
                )
            # Also logged, for those who never come back to ask.
            logger.error("%s", text)
            raise CheckpointError(text) from error

    def _outdated(self) -> list[int]:
        """Steps of ours that Orbax's policies let go."""
        ours = [_Info(n) for n in self._folder.steps() if steps.is_ours(self._folder.step(n))]
        kept = self._preservation.should_preserve(ours, context=policies.PreservationContext())
        return [info.step for info, keep in zip(ours, kept, strict=True) if not keep]

    def _find(self, step: int | None) -> tuple[int | None, Place | None]:
        """The step to restore and where it is, on the rank that decides."""
        self._finish()
        if ranks.are_several() and not self._writes:
            return None, None
        if self._writes and not self._read_only:
            self._folder.lock()
        if step is not None:
            check_step(self._folder, step, steps.find_fault)
            found: int | None = step
        else:
            found, self._passed_over = find_newest(self._folder, steps.find_fault, depth=5)
        return found, None if found is None else self._folder.places().get(found)

    def _read(self, step: int) -> dict[str, Any]:
        """All states of a step, if they are those of the registered objects."""
        about = steps.read_about(self._folder.step(step))
        if about is None:
            raise CheckpointError(
                f"Step {step} cannot be read in {self._folder.path} on rank {self._rank}: all "
                "ranks need the same folder."
            )
        self._registry.check(about.objects, step)
        return steps.read_step(self._folder.step(step), about.objects)


class _Info(NamedTuple):
    """A step as Orbax's policies want it."""

    step: int
    time: datetime.datetime = datetime.datetime.fromtimestamp(0, datetime.UTC)
    metrics: Any = None


def save_checkpoint(
    folder: str | os.PathLike[str], dataset: SynthPixDataset, step: int, max_to_keep: int = 1
) -> None:
    """Save a dataset alone, and return when it is on disk: synthpix.save_checkpoint for ours.

    Args:
        folder: Where the steps are.
        dataset: Saved under the name `data`.
        step: Its number, larger than all before.
        max_to_keep: How many of the newest steps to keep.

    Raises:
        CheckpointError: It could not be written.
        ValueError: There is such a step or a newer one.
    """
    with Checkpointer(folder, keep=max_to_keep) as checkpoints:
        checkpoints.register(data=dataset)
        checkpoints.save(step)
