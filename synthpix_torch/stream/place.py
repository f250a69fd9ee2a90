"""The methods of a dataset that read and move its place in the stream, which ranks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthpix_torch.stream.cursor import Cursor
from synthpix_torch.stream.ranks import Ranks
from synthpix_torch.stream.state import make_state, read_state
from synthpix_torch.stream.stream import Stream


class Resumable:
    """A stream with a place in it, which states save and restore.

    Attributes:
        stream: Makes batches from their numbers.
        cursor: The place in the stream.
    """

    def __init__(self, stream: Stream, cursor: Cursor, ranks: Ranks) -> None:
        self.stream = stream
        self.cursor = cursor
        self._ranks = ranks

    @property
    def rank(self) -> int:
        """Number of this process among `world_size`.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        return self._ranks.rank

    @property
    def world_size(self) -> int:
        """Number of processes that share the stream.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        return self._ranks.world_size

    @property
    def position(self) -> int:
        """Number of the next batch of the stream that no rank has been given."""
        return self.cursor.position

    @property
    def batches_per_epoch(self) -> float:
        """Batches of the stream until all records were served once; rarely a whole number."""
        return self.stream.batches_per_epoch

    def seek(self, number: int) -> None:
        """Continue from batch `number`, which takes as long for small numbers as for large ones.

        Raises:
            TypeError: `number` is not an integer.
            ValueError: The stream has no such batch.
        """
        self.stream.check_number(number, last=0)
        self.cursor.seek(number)

    def next_episode(self) -> None:
        """Continue from the next start of an episode, on every stream.

        At such a start, as before the first batch and after the last step of an episode, nothing
        changes. Call it on all ranks at the same step.

        Raises:
            RuntimeError: The configuration has no episodes.
        """
        if not self.stream.order.episodic:
            raise RuntimeError("There are no episodes: set episode_length in the configuration.")
        self.cursor.next_episode()

    def track(self, *, across_passes: bool = False) -> None:
        """Make `state_dict()` refer to the first uncommitted batch.

        For trainers that fetch batches before they train on them: uncommitted batches are delivered
        again, by the next pass and after the state is loaded.

        Args:
            across_passes: Do not deliver them again in a pass that follows an exhausted one, for
                trainers that begin it before the last batches are trained on, as beside a longer
                dataset. After a failure call `untrack`.
        """
        self.cursor.track(across_passes=across_passes)

    def commit(self) -> None:
        """Mark the oldest delivered batch as trained on.

        Raises:
            RuntimeError: There is no uncommitted batch.
        """
        self.cursor.commit()

    def untrack(self) -> None:
        """Stop tracking commits and continue from the first uncommitted batch."""
        self.cursor.untrack()

    @property
    def uncommitted(self) -> int:
        """Number of batches delivered since `track` and not committed."""
        return self.cursor.uncommitted

    @property
    def tracking(self) -> bool:
        """True while commits are tracked."""
        return self.cursor.tracking

    def state_dict(self) -> dict[str, Any]:
        """Make a dict of strings and integers that names the next batch.

        The same on every rank; see `synthpix_torch.stream.state`.
        """
        return make_state(self.cursor.first_uncommitted, self.stream.description)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from where the state was saved. Nothing changes unless the state fits.

        Raises:
            TypeError: `state_dict` is not a mapping.
            ValueError: It is not a state of a dataset, corrupt or newer than this version.
            StateMismatchError: It was saved with another configuration or other data.
        """
        self.cursor.seek(read_state(state_dict, self.stream.description))

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raise what `load_state_dict` would raise, and change nothing."""
        read_state(state_dict, self.stream.description)
