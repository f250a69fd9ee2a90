"""Save and restore registered objects as numbered steps of a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from synthpix_torch.checkpoint import step as steps
from synthpix_torch.checkpoint.files import CorruptError
from synthpix_torch.checkpoint.folder import CheckpointError, CleanupError, Folder
from synthpix_torch.checkpoint.load import Found, find_step
from synthpix_torch.checkpoint.objects import Objects
from synthpix_torch.checkpoint.retention import Retention
from synthpix_torch.checkpoint.step import Manifest
from synthpix_torch.checks import check_integer
from synthpix_torch.stream import ranks

logger = logging.getLogger("synthpix_torch")


class Checkpointer:
    """Saves and restores registered objects together, as numbered steps of a folder.

    A step is written atomically. Rank 0 writes, all ranks read; with several ranks call `save`,
    `restore` and `wait` on all of them, with the same arguments. Use it in a `with` statement, or
    call `close`, which waits for the last step and raises its error; the end of the program waits,
    too, and logs the error.

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
        best: str | None = None,
        best_mode: str = "min",
        keep_best: int = 1,
        read_only: bool = False,
    ) -> None:
        """Read and write nothing yet.

        Args:
            folder: The folder of the steps; made by the first `restore`, or `save` of a due step.
            keep: How many of the newest steps to keep, None for all. Older steps that hold an
                object that is not registered are kept, too.
            keep_every: Keep multiples of it for ever.
            every: `save` writes multiples of it only.
            best: The metric by which steps are compared.
            best_mode: "min" or "max": whether a small or a large metric is good.
            keep_best: How many of the best steps to keep beside the newest.
            read_only: Restore without a lock, while another process may be writing.

        Raises:
            TypeError: A number is not an integer, or a metric is not a string.
            ValueError: A number is not positive, `best_mode` is unknown, or the folder is not on a
                local disk.
        """
        check_integer("every", every, 1)
        self._retention = Retention(keep, keep_every, best, best_mode, keep_best)
        self._retention.check()
        self._folder = Folder(folder)
        self._every = every
        self._read_only = read_only
        self._objects = Objects()
        self._skipped: list[int] = []
        # Its thread completes what was submitted before the interpreter exits.
        self._writer = ThreadPoolExecutor(1, "synthpix_torch-checkpoint")
        self._process = os.getpid()
        self._pending: Future[None] | None = None
        self._has_saved = False
        self._closed = False

    def register(self, **objects: Any) -> None:
        """Add objects to save, anything with `state_dict` and `load_state_dict`, by name.

        An object that writes files of its own may have a method `flush`, which flushes to disk what
        its last `state_dict` referred to. It is called in the background before a step is complete;
        on ranks that do not write, in `save`.

        Raises:
            TypeError: An object lacks one of the two methods.
            ValueError: A name is taken or cannot name an item, or an object has two names.
        """
        self._check_open()
        self._objects.add(objects)

    def save(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        force: bool = False,
    ) -> bool:
        """Save the present states of all objects; they are written in the background.

        Later changes of the objects are not saved. Waits first if the previous step is still being
        written.

        Args:
            step: Its number, larger than all before.
            metrics: Numbers by name, by which steps are compared; rank 0 writes its own.
            overwrite: Replace the step of the same number and all newer ones.
            force: Save although `step` is not a multiple of `every`.

        Returns:
            Whether the step is saved; False if it is not a multiple of `every`.

        Raises:
            CheckpointError: The previous step could not be written, or this process may not write.
            ValueError: There is such a step or a newer one, nothing is registered, or the metric
                `best` is missing among the metrics.
            TypeError: A state holds a value that could not be restored, or a metric is not a
                number.
            RuntimeError: The ranks differ in what to save, or another rank failed.
        """
        self._check_open()
        check_integer("step", step, 0)
        if self._read_only:
            raise CheckpointError("This Checkpointer only reads: leave out read_only=True to save.")
        if not self._objects:
            raise ValueError("Nothing is registered: call register(data=dataset) first.")
        if step % self._every and not force:
            # Several ranks raise an error together, when a step is due.
            if not ranks.has_process_group() and self._pending is not None and self._pending.done():
                self._finish()
            return False
        self._has_saved = True
        numbers, replacing = ranks.together(
            lambda: (self._retention.read(metrics), self._prepare(step, overwrite=overwrite))
        )
        taken = self._objects.take(step, keep=self._writes)
        if self._writes:
            manifest = self._objects.describe(taken, step, numbers)
            self._pending = self._writer.submit(self._write, step, taken, manifest, replacing)
        return True

    def restore(
        self, step: int | None = None, *, best: bool = False, only: Iterable[str] | None = None
    ) -> int | None:
        """Load the newest complete step into the registered objects, the best or a given one.

        Corrupt steps are skipped with a warning; the next `save` quarantines them. Nothing changes
        unless everything can be read and fits.

        Args:
            step: The step; the newest complete one by default.
            best: Load the complete step with the best metric; of equal ones the newest.
            only: Names of the objects to restore; others are left as they are, and the step may
                hold objects that are not registered.

        Returns:
            The number of the step, None if there is no complete step.

        Raises:
            CheckpointError: The given step is corrupt, this process cannot read a step now, or
                another process writes to the folder.
            ValueError: There is no such step, it holds other objects than are registered, or no
                step has the metric.
            StateMismatchError: A dataset was saved with another configuration or other data.
            RuntimeError: Another rank failed.
            Exception: An object's own error, if a state does not fit.
        """
        self._check_open()
        if step is not None:
            check_integer("step", step, 0)
        if isinstance(only, str):
            raise TypeError(f"only must be a list of names: pass only=[{only!r}].")
        if best and (step is not None or self._retention.best is None):
            raise ValueError(
                "restore(best=True) needs the metric: pass Checkpointer(..., best=name), and no "
                "step=."
            )
        only = None if only is None else list(only)
        ranks.check_equal({"step": str(step), "best": str(best), "only": str(only)})
        while True:
            # Rank 0 decides: the others might look while a step is moved.
            found = ranks.from_first(partial(self._find, step, best))
            if self._writes:
                found.warn(self._folder.path, stacklevel=2)
            if found.number is None:
                return None
            failure: Exception | None = None
            try:
                saved = ranks.together(partial(self._read, found.number, only))
            except Exception as error:
                failure = error
            # Else its writer has moved, deleted or replaced it while it was read.
            if ranks.from_first(self._folder.locations).get(found.number) == found.location:
                break
        if failure is not None:
            raise failure
        self._objects.load(saved, self._rank)
        return found.number

    def steps(self) -> list[int]:
        """Return the numbers of the steps on disk in order, complete or corrupt."""
        return self._folder.steps()

    def wait(self) -> None:
        """Wait until the last step is on disk; with several ranks, on all of them.

        Raises:
            CheckpointError: It could not be written.
            RuntimeError: It could not be written, on the other ranks.
        """
        self._check_open()
        ranks.together(self._finish)

    def close(self) -> None:
        """Wait for the last step, then let other processes write.

        Only the rank that writes waits and raises, so that a rank that fails can close alone; a
        `with` block that ends without an error calls `wait` first.

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
        """The rank in torch.distributed, else that of the first dataset."""
        if ranks.has_process_group():
            return ranks.get_rank()
        return next((dataset.rank for dataset in self._objects.datasets.values()), 0)

    @property
    def _writes(self) -> bool:
        return self._rank == 0

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The Checkpointer is closed: make a new one.")

    def _finish(self) -> None:
        """Wait for the step that is being written, and raise its error once."""
        pending = self._pending
        # The thread that writes stays with the parent of a fork.
        if pending is None or self._process != os.getpid():
            return
        try:
            pending.result()
        finally:
            # Not done if the wait was interrupted.
            if pending.done():
                self._pending = None

    def _prepare(self, step: int, *, overwrite: bool) -> list[int]:
        """Quarantine skipped steps, and return the steps that this one replaces."""
        self._finish()
        if not self._writes:
            return []
        folder = self._folder
        folder.lock()
        try:
            for number in self._skipped:
                if steps.is_ours(folder.step(number)):
                    logger.warning("Moved a corrupt step to %s.", folder.quarantine(number))
            self._skipped = []
            newer = [number for number in folder.steps() if number >= step]
            foreign = [number for number in newer if not steps.is_ours(folder.step(number))]
        except OSError as error:
            raise CheckpointError(
                f"The steps in {folder.path} cannot be read or moved: {error}. Fix that, and save "
                "again."
            ) from error
        if foreign:
            raise ValueError(
                f"{folder.step(foreign[0])} was written by another program and is not older than "
                f"step {step}: move it elsewhere, or choose another folder."
            )
        if newer and not overwrite:
            raise ValueError(
                f"Step {newer[-1]} is in {folder.path} already, step {step} is not newer: "
                "pass overwrite=True to replace it and all newer ones."
            )
        return newer

    def _write(
        self, step: int, taken: Mapping[str, Any], manifest: Manifest, replacing: list[int]
    ) -> None:
        """Write a step in the background, then delete old ones."""
        folder, saved = self._folder, False
        try:
            self._objects.flush()
            folder.write(step, lambda path: steps.write_step(path, taken, manifest), replacing)
            saved = True
            folder.delete(self._retention.outdated(folder, manifest.objects))
        except Exception as error:
            cause = str(error).rstrip(".")
            if saved or isinstance(error, CleanupError):
                text = (
                    f"Step {step} is saved in {folder.path}, but old steps could not be deleted: "
                    f"{cause}. The next save tries again."
                )
            else:
                text = (
                    f"Step {step} could not be saved in {folder.path}: {cause}. Older steps are "
                    "unchanged; fix the cause, and save again."
                )
            # Also logged, for programs that end without another call.
            logger.error("%s", text)
            raise CheckpointError(text) from error

    def _find(self, step: int | None, best: bool) -> Found:
        self._finish()
        if self._writes and not self._read_only:
            self._folder.lock()
        ranked = self._retention.ranked if best else None
        found = find_step(self._folder, steps.find_fault, step, ranked)
        self._skipped = list(found.faults)
        return found

    def _read(self, step: int, only: list[str] | None) -> dict[str, Any]:
        """Read the states of a step for the registered objects."""
        path = self._folder.step(step)
        try:
            manifest = steps.read_manifest(path)
            if manifest is None:
                raise CheckpointError(
                    f"Step {step} cannot be read in {self._folder.path} on rank {self._rank}: all "
                    "ranks need the same folder."
                )
            return steps.read_step(path, self._objects.select(manifest.objects, step, only))
        except (OSError, CorruptError) as error:
            raise CheckpointError(
                f"Step {step} in {self._folder.path} cannot be read: {error}."
            ) from error
