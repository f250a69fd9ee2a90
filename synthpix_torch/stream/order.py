"""Arithmetic of the global stream: which flow batch and repetition make batch n.

Pure Python integers, no arrays and no state, so that every claim about the order can be tested
exhaustively. Words used throughout:

- A *unit* is one flow batch used `steps` times (batches_per_flow_batch), or one episode of `steps`
  flow batches used once each. A substream yields unit after unit.
- A *group* is `streams` interleaved units, one of each substream: batch n belongs to substream
  n % streams.
- The last group of finite data holds the remaining units, so no unit is lost to interleaving.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Place:
    """The flow batch of batch n and its use.

    Attributes:
        flow_batch: Index of the flow batch.
        repetition: How often this flow batch was used before.
        last_step: Whether this is the last step of its unit (the end of an episode).
    """

    flow_batch: int
    repetition: int
    last_step: bool


@dataclass(frozen=True)
class Order:
    """The order of the global stream, a pure function of the configuration.

    Attributes:
        steps: Batches that one unit yields, at least 1.
        streams: Units that are interleaved, at least 1.
        units: Number of units of finite data, None if the data never ends.
        episodic: Whether a unit is an episode of `steps` flow batches.
    """

    steps: int
    streams: int = 1
    units: int | None = None
    episodic: bool = False

    @property
    def group_size(self) -> int:
        """Batches of a full group."""
        return self.steps * self.streams

    @property
    def total(self) -> int | None:
        """Number of batches of the whole stream, None if it never ends."""
        return None if self.units is None else self.units * self.steps

    def streams_of(self, group: int) -> int:
        """Count the units of a group: `streams`, or fewer in the last group of finite data."""
        if self.units is None:
            return self.streams
        return min(self.streams, self.units - group * self.streams)

    def place(self, number: int) -> Place:
        """Find the flow batch and repetition of batch `number`, which must lie in the stream."""
        group, rest = divmod(number, self.group_size)
        step, stream = divmod(rest, self.streams_of(group))
        unit = group * self.streams + stream
        last = step == self.steps - 1
        if self.episodic:
            return Place(unit * self.steps + step, 0, last)
        return Place(unit, step, last)

    def first_flow_batch(self, number: int) -> int:
        """Find the first flow batch of the group of batch `number`, in canonical order.

        No flow batch before it is needed again, whatever the number of ranks. At the end of finite
        data it is the number of flow batches.
        """
        per_unit = self.steps if self.episodic else 1
        unit = number // self.group_size * self.streams
        return (unit if self.units is None else min(unit, self.units)) * per_unit

    def next_boundary(self, number: int) -> int:
        """Find the first batch of a group at or after batch `number`; `total` at most."""
        boundary = -(-number // self.group_size) * self.group_size
        return boundary if self.total is None else min(boundary, self.total)

    def pass_length(
        self, position: int, world_size: int, *, epoch_length: int | None = None
    ) -> int | None:
        """Count the batches of each rank in a pass from `position`, None if it has no end.

        Every rank yields the same number. A pass of episodes ends with them. Batches at the end of
        finite data that are too few for a step of all ranks are dropped. An epoch ends up to one
        step late if the number of ranks changed within it.
        """
        if self.episodic:
            return (self.next_boundary(position + 1) - position) // world_size
        lengths = []
        if epoch_length is not None:
            size = epoch_length * world_size
            lengths.append(-(-(size - position % size) // world_size))
        if self.total is not None:
            lengths.append((self.total - position) // world_size)
        return min(lengths, default=None)

    def used_again(self, number: int, stride: int) -> bool:
        """Tell whether a reader of every `stride`-th batch needs this flow batch again."""
        if self.episodic:
            return False
        group, rest = divmod(number, self.group_size)
        streams = self.streams_of(group)
        return rest + stride * _visits(streams, stride) < self.steps * streams

    def first_use(self, start: int, stride: int, index: int) -> int | None:
        """Find the batch at which a reader first needs its `index`-th flow batch.

        The reader takes the batches start, start + stride, ... Within a group it returns to a flow
        batch after as many visits as it has substreams there, so the flow batches of a group are
        those of its first visits.

        Returns:
            The number of the batch, None when the stream ends before that.
        """
        if self.episodic:
            return self._within(start + index * stride)
        visit = start
        if self.units is None or start < self._end_of_full_groups:
            found, index = self._first_use_in_full_groups(start, stride, index)
            if found is not None:
                return found
            visit += -(-(self._end_of_full_groups - start) // stride) * stride
        if self._within(visit) is None:
            return None
        if index >= _visits(self.streams_of(visit // self.group_size), stride):
            return None
        return self._within(visit + index * stride)

    @property
    def _end_of_full_groups(self) -> int:
        assert self.units is not None
        return self.units // self.streams * self.group_size

    def _first_use_in_full_groups(
        self, start: int, stride: int, index: int
    ) -> tuple[int | None, int]:
        """Do the same in full groups; also return the rest of `index` at their end."""
        end = None if self.units is None else self._end_of_full_groups
        per_group = _visits(self.streams, stride)
        if stride * per_group >= self.group_size:
            # The group ends between two visits of a substream: every visit needs a new flow batch.
            number = start + index * stride
            if end is None or number < end:
                return number, 0
            return None, index + (start - end) // stride
        group = start // self.group_size
        here = min(-(-((group + 1) * self.group_size - start) // stride), per_group)
        if index < here:
            return start + index * stride, 0
        later, visit = divmod(index - here, per_group)
        group += 1 + later
        if end is not None and group * self.group_size >= end:
            return None, index - here - (end // self.group_size - group + later) * per_group
        first = start + -(-(group * self.group_size - start) // stride) * stride
        return first + visit * stride, 0

    def _within(self, number: int) -> int | None:
        return number if self.total is None or number < self.total else None


def _visits(streams: int, stride: int) -> int:
    """Count the visits of a reader until it meets its first substream again."""
    return streams // gcd(streams, stride)
