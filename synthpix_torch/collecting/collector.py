"""`Collector`: rows of results that agree with the checkpoints of a training."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from synthpix_torch.checks import check_integer
from synthpix_torch.collecting import segments
from synthpix_torch.collecting.chain import Chain
from synthpix_torch.collecting.rows import view
from synthpix_torch.collecting.trees import tree_to_dict
from synthpix_torch.extra import import_extra
from synthpix_torch.files import write_atomically
from synthpix_torch.stream.ranks import Ranks

logger = logging.getLogger(__name__)

FORMAT: Final = 1
_CHAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Writes that wait for the disk; then `collect` waits too, which bounds the memory.
_WAITING: Final = 8


class CollectorError(RuntimeError):
    """Rows could not be written or read, or do not reach the position of a checkpoint."""


class Collector:
    """Collect a tree of tensors, arrays or numbers at each step, in step with checkpoints.

        collector = Collector("runs/a/results", every=10)
        checkpoints.register(data=dataset, model=model, results=collector)
        for step, batch in ...:
            collector.collect({"epe": error, "sample": parameters})
            checkpoints.save(step)
        collector.finalize()
        paths = collector.finished()     # {"0": runs/a/results/0.h5}

    After a restore, collecting continues at the row of the checkpoint; rows beyond it are replaced.
    So rows, weights and data agree after every kill. With several ranks, rank 0 stores; give
    `collect` values that are reduced over ranks.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        every: int = 1,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a folder; nothing is written yet.

        Args:
            folder: For the rows; may grow beyond the memory. By default rows stay in memory, and
                a checkpoint holds all of them.
            every: Store each n-th call of `collect` in a chain, from the first.
            about: What is collected, as JSON; stored as attributes of the HDF5 files.

        Raises:
            TypeError: `every` is not an integer, or `about` is not JSON.
            ValueError: `every` is less than 1.
            ImportError: There is a folder, and safetensors or h5py is missing: install the extra
                `recordings`.
        """
        check_integer("every", every, 1)
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            import_extra("safetensors.torch")
            import_extra("h5py")
        self.every = every
        self.about = json.loads(json.dumps(dict(about or {})))
        self._chains: dict[str, Chain] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._lock = threading.RLock()
        self._held: int | None = None
        # Rows by chain that the last state counts.
        self._counted: dict[str, int] = {}

    # Collecting --------------------------------------------------------------------------------

    def collect(self, tree: Any, *, chain: str = "0") -> None:
        """Store a tree as the next row of a chain; it may be changed afterwards.

        Args:
            tree: Tensors, arrays and numbers, in any containers that torch or JAX knows. All trees
                of a chain have the same structure, shapes and dtypes. NaN is stored.
            chain: Name of the chain: letters, digits, ".", "_" and "-".

        Raises:
            TypeError: A leaf is no number or array of numbers.
            ValueError: The tree differs from the first of the chain, or the name is impossible.
            CollectorError: Earlier rows could not be written; they are kept in memory and written
                with the next ones.
        """
        with self._lock:
            self._raise_errors()
            there, is_full = self._chain(chain), False
            if there.calls % self.every == 0 and Ranks().rank == 0:
                row = {path: view(path, leaf) for path, leaf in tree_to_dict(tree).items()}
                is_full = there.add(chain, row)
                if self.folder is None:
                    there.like = tree
            there.calls += 1
            if there.is_short:
                self._thread().submit(there.prepare)
            if is_full:
                self._submit([chain])

    def rows(self, chain: str = "0") -> int:
        """Return the number of rows of a chain so far."""
        return -(-self._chain(chain).calls // self.every)

    # Checkpoints -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position of each chain, and begin to write all rows up to it.

        The state is valid once `flush` has returned; a `Checkpointer` calls it. Without a folder,
        the state holds the rows too.

        Raises:
            CollectorError: Earlier rows could not be written.
        """
        with self._lock:
            state: dict[str, Any] = {"format": FORMAT, "every": self.every}
            state["calls"] = {name: chain.calls for name, chain in self._chains.items()}
            if self.folder is None:
                rows = {name: chain.leaves() for name, chain in self._chains.items()}
                state["rows"] = {name: leaves for name, leaves in rows.items() if leaves}
            elif Ranks().rank == 0:
                self._submit(self._chains)
                self._counted = {name: self.rows(name) for name in self._chains}
            return state

    def flush(self) -> None:
        """Wait until the rows that the last `state_dict` counted are on disk.

        Raises:
            CollectorError: They could not be written.
        """
        self._wait()
        with self._lock:
            self._raise_errors()
            for name, rows in self._counted.items():
                stored = self._chains[name].stored
                if stored < rows:
                    raise CollectorError(
                        f"Rows {stored} to {rows - 1} of chain {name!r} are not on disk, because "
                        "an earlier write failed: save the state again."
                    )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue each chain from its position in a checkpoint.

        Rows beyond it are deleted when the next row is written, not before.

        Raises:
            ValueError: This is not the state of a collector, or of one with another `every`.
            CollectorError: The folder lacks rows that the checkpoint counts.
        """
        with self._lock:
            if not isinstance(state_dict, Mapping) or state_dict.get("format") != FORMAT:
                raise ValueError("This is not the state of a Collector of this version.")
            if state_dict["every"] != self.every:
                raise ValueError(
                    f"The state was saved with every={state_dict['every']}, this Collector has "
                    f"every={self.every}: use the saved value."
                )
            self._wait()
            chains: dict[str, Chain] = {}
            for name, calls in state_dict["calls"].items():
                chain = chains[name] = Chain(calls=calls, loaded=True)
                rows = -(-calls // self.every)
                if self.folder is None:
                    chain.load(name, state_dict["rows"].get(name, {}), rows)
                elif rows and Ranks().rank == 0:
                    chain.layout = segments.read_layout(self._last_segment(name, rows))
                    chain.stored = rows
            self._pending.clear()
            self._chains, self._counted = chains, {}

    def _last_segment(self, name: str, rows: int) -> segments.Segment:
        folder = self._rows_folder(name)
        there = segments.list_segments(folder)
        for segment in there:
            if segment.stop == rows:
                return segment
        raise CollectorError(
            f"The checkpoint counts {rows} rows of chain {name!r}, but {folder} holds "
            f"{segments.count_rows(there)}: restore the folder with the checkpoint, or restore "
            "an earlier step."
        )

    # Results -----------------------------------------------------------------------------------

    def finalize(self, chain: str | None = None) -> None:
        """Write the rest of the rows, and begin to write the HDF5 file of a chain, or of all.

        Raises:
            CollectorError: Earlier rows could not be written.
        """
        with self._lock:
            self._raise_errors()
            if self.folder is None or Ranks().rank != 0:
                return
            names = self._names(chain)
            self._submit(names)
            for name in names:
                self._enqueue(self._write_hdf5, name, self.rows(name))

    def finished(self, chain: str | None = None) -> dict[str, Any]:
        """Wait until everything is written, and return the results by chain.

        Returns:
            With a folder, the HDF5 file of each finalized chain: a group for each container and a
            dataset for each leaf, its rows first. Without, the tree, its leaves stacked.

        Raises:
            CollectorError: Rows could not be written.
        """
        with self._lock:
            self._wait()
            self._raise_errors()
            names = self._names(chain)
            if self.folder is None:
                return {name: self._chains[name].tree() for name in names}
            paths = {name: self.folder / f"{name}.h5" for name in names}
            return {name: path for name, path in paths.items() if path.exists()}

    def _names(self, chain: str | None) -> list[str]:
        if chain is not None and chain not in self._chains:
            known = ", ".join(self._chains) or "none yet"
            raise ValueError(f"There is no chain {chain!r}, the chains are: {known}.")
        return list(self._chains) if chain is None else [chain]

    def _write_hdf5(self, name: str, rows: int) -> None:
        assert self.folder is not None
        h5py, folder = import_extra("h5py"), self._rows_folder(name)
        if self._chains[name].stored < rows:
            # The error of the write is raised.
            return

        def write(path: Path) -> None:
            with h5py.File(path, "w") as file:
                for key, value in self.about.items():
                    file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
                first = 0
                for part in segments.read_segments(folder, rows):
                    for leaf, array in part.items():
                        shape = (rows, *array.shape[1:])
                        stored = file.require_dataset(
                            leaf or "value", shape, array.dtype, exact=True
                        )
                        stored[first : first + len(array)] = array
                    first += len(array)

        write_atomically(self.folder / f"{name}.h5", write)

    # Writing -----------------------------------------------------------------------------------

    def _chain(self, name: str) -> Chain:
        if name not in self._chains:
            if _CHAIN.fullmatch(name) is None:
                raise ValueError(
                    f"The name of a chain has letters, digits, '.', '_' and '-', not {name!r}."
                )
            self._chains[name] = Chain()
        return self._chains[name]

    def _rows_folder(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _submit(self, names: Iterable[str]) -> None:
        """Write the rows of chains in the background."""
        for name in names:
            self._chains[name].close_block()
        if self.folder is not None and any(chain.waiting for chain in self._chains.values()):
            self._enqueue(self._write_rows)

    def _enqueue(self, work: Any, *arguments: Any) -> None:
        while len(self._pending) >= _WAITING:
            self._pending[0].exception()
            self._raise_errors()
        self._pending.append(self._thread().submit(work, *arguments))

    def _thread(self) -> ThreadPoolExecutor:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="synthpix_torch collector")
        return self._writer

    def _write_rows(self) -> None:
        for name, chain in tuple(self._chains.items()):
            if chain.waiting:
                self._write_chain(name, chain)

    def _write_chain(self, name: str, chain: Chain) -> None:
        """Write the waiting rows, a segment for each block; they stay in memory if that fails."""
        folder = self._rows_folder(name)
        try:
            self._hold_folder()
            if not chain.clean:
                if chain.loaded:
                    segments.delete_from(folder, chain.stored)
                elif segments.list_segments(folder):
                    kept = segments.move_aside(folder)
                    logger.warning(
                        "%s holds rows of another run: they are kept as %s", folder, kept
                    )
                chain.clean = True
            while chain.waiting:
                segments.write_segment(folder, chain.stored, chain.waiting[0].rows())
                chain.release()
        except (OSError, RuntimeError) as error:
            last = chain.stored + sum(block.count for block in chain.waiting) - 1
            raise CollectorError(
                f"Rows {chain.stored} to {last} of chain {name!r} could not be written: {error}. "
                "They are kept in memory and written with the next ones."
            ) from error

    def _hold_folder(self) -> None:
        """Keep other processes from writing; the lock is released when this process ends."""
        assert self.folder is not None
        if self._held is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RuntimeError(f"another process collects in {self.folder}") from None
            self._held = descriptor

    def _wait(self) -> None:
        with self._lock:
            pending = tuple(self._pending)
        for future in pending:
            future.exception()

    def _raise_errors(self) -> None:
        """Raise the error of a write that has failed, once."""
        while self._pending and self._pending[0].done():
            error = self._pending.popleft().exception()
            if error is not None:
                raise error
