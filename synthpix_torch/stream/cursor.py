"""The place in the stream: what was delivered, what was trained on, which pass is active."""

from __future__ import annotations

from collections import deque

from synthpix_torch.stream.order import Order


class Cursor:
    """Count delivered and committed batches of a stream; make none of them.

    All numbers are positions: the number of the first batch of the stream that no rank has been
    given. With several ranks each rank has its own cursor, and all cursors agree.

    The active pass is known by a ticket. `begin`, `seek` and `stop` make all earlier tickets
    invalid.
    """

    def __init__(self, order: Order, *, epoch_length: int | None = None) -> None:
        """Start at batch 0.

        Args:
            order: The order of the stream.
            epoch_length: Batches of a pass on each rank, None for as many as there are.
        """
        self._order = order
        self._epoch_length = epoch_length
        self._position = 0
        self._ticket = 0
        self._exhausted = False
        self._committed: int | None = None
        self._uncommitted: deque[int] = deque()
        self._across_passes = False

    @property
    def position(self) -> int:
        """Number of the next undelivered batch."""
        return self._position

    @property
    def first_uncommitted(self) -> int:
        """Number of the first uncommitted batch; the position unless commits are tracked."""
        return self._position if self._committed is None else self._committed

    @property
    def uncommitted(self) -> int:
        """Number of batches delivered since `track` and not committed."""
        return len(self._uncommitted)

    @property
    def tracking(self) -> bool:
        """True while commits are tracked."""
        return self._committed is not None

    # Passes ------------------------------------------------------------------------------------

    @property
    def next_start(self) -> int:
        """Number of the batch that the next pass begins with."""
        return self._position if self._rewind_to is None else self._rewind_to

    def begin(self, world_size: int) -> tuple[int, int | None]:
        """Begin a pass, which ends the one before.

        Batches that were not committed are delivered again, unless `track` was told otherwise and
        the pass before is exhausted.

        Returns:
            The ticket of the pass, and its number of batches on each rank; None if it never ends.

        Raises:
            RuntimeError: The ranks cannot share the stream from here.
        """
        self._check_world(world_size, self.next_start)
        if self._rewind_to is not None:
            self.seek(self._rewind_to)
        self._position = self._wrapped(self._position, world_size)
        self._ticket += 1
        self._exhausted = False
        length = self._order.pass_length(
            self._position, world_size, epoch_length=self._epoch_length
        )
        return self._ticket, length

    def is_active(self, ticket: int) -> bool:
        """Tell whether a ticket belongs to the active pass."""
        return ticket == self._ticket

    def is_interrupted(self, ticket: int) -> bool:
        """Tell whether a ticket belongs to the active pass, which has batches left."""
        return self.is_active(ticket) and not self._exhausted

    def exhaust(self, ticket: int) -> None:
        """Note that a pass has delivered its last batch and its user has been told."""
        self._exhausted = self._exhausted or self.is_active(ticket)

    def stop(self) -> None:
        """End the active pass; the position stays."""
        self._ticket += 1

    def deliver(self, world_size: int) -> None:
        """Note that each of `world_size` ranks was given its next batch."""
        position = self._wrapped(self._position + world_size, world_size)
        # Last, and nothing between: Ctrl-C before it leaves the batch undelivered.
        if self._committed is not None:
            self._uncommitted.append(position)
        self._position = position

    def length(self, world_size: int) -> int | None:
        """Count the batches of a whole pass on each rank; None if it never ends."""
        return self._order.pass_length(0, world_size, epoch_length=self._epoch_length)

    # Moving ------------------------------------------------------------------------------------

    def seek(self, position: int) -> None:
        """Continue from a position; all delivered batches count as committed."""
        self._ticket += 1
        self._exhausted = False
        self._position = self._wrapped(position, world_size=1)
        self._uncommitted.clear()
        if self._committed is not None:
            self._committed = self._position

    def next_episode(self) -> None:
        """Continue from the next start of an episode; change nothing at such a start."""
        start = self._order.next_boundary(self._position)
        if start != self._position:
            self.seek(start)

    # Commits -----------------------------------------------------------------------------------

    def track(self, *, across_passes: bool) -> None:
        """Count commits from here on.

        Args:
            across_passes: Keep uncommitted batches delivered when a pass follows an exhausted one.
        """
        self.untrack()
        self._committed = self._position
        self._across_passes = across_passes

    def commit(self) -> None:
        """Mark the oldest uncommitted batch as trained on.

        Raises:
            RuntimeError: There is no uncommitted batch.
        """
        if not self._uncommitted:
            raise RuntimeError(
                "There is no batch to commit: call track() before the first batch and commit() "
                "once after each training step."
            )
        self._committed = self._uncommitted.popleft()

    def untrack(self) -> None:
        """Stop counting commits and continue from the first uncommitted batch."""
        if self._committed is not None:
            if self._uncommitted:
                self.seek(self._committed)
            self._committed = None

    # -------------------------------------------------------------------------------------------

    @property
    def _rewind_to(self) -> int | None:
        """The first uncommitted batch, if the next pass delivers it again.

        Finite data may wrap around, so that it has the number of the position.
        """
        keeps_uncommitted = self._across_passes and self._exhausted
        return self._committed if self._uncommitted and not keeps_uncommitted else None

    def _wrapped(self, position: int, world_size: int) -> int:
        """Return to 0 where finite data has too few batches left for all ranks."""
        total = self._order.total
        return 0 if total is not None and position + world_size > total else position

    def _check_world(self, world_size: int, start: int) -> None:
        order = self._order
        if order.total is not None and order.total < world_size:
            raise RuntimeError(
                f"The data makes {order.total} batches, too few for {world_size} ranks: use fewer "
                "ranks or loop: true."
            )
        if order.episodic:
            last = order.streams if order.units is None else order.units % order.streams
            if order.streams % world_size or last % world_size:
                raise RuntimeError(
                    f"{world_size} ranks cannot share {order.streams} streams of episodes"
                    f"{'' if order.units is None else f' ({order.units} in all)'} equally: make "
                    "both a multiple of the number of ranks."
                )
            if start % world_size:
                raise RuntimeError(
                    f"{world_size} ranks cannot continue within an episode at batch {start}: use "
                    "the number of ranks that saved the state, or call next_episode() first."
                )
