"""A dataset that counts instead of rendering: its order, passes and states are the real ones."""

from __future__ import annotations

from typing import Any

import torch
from kinds import base, few

from synthpix_torch import Batch, SynthPixDataset
from synthpix_torch.batch import AnyBatch


class _Run:
    """The numbers start, start + stride, ... as batches that hold nothing else."""

    def __init__(self, start: int, stride: int) -> None:
        self.number = start
        self.stride = stride

    def __next__(self) -> Batch:
        number = self.number
        self.number += self.stride
        return Batch(
            images=torch.full((1, 2, 1, 1), float(number)),
            flow_fields=torch.zeros(1, 2, 1, 1),
            mask=torch.ones(1, dtype=torch.bool),
            epoch=torch.zeros(1, dtype=torch.int32),
            seeds=torch.zeros(1, dtype=torch.int32),
            keys=torch.zeros(1, 2, dtype=torch.uint32),
            params=None,
            done=None,
            files=("",),
            number=number,
        )

    def close(self) -> None: ...


def _run(start: int, *, stride: int = 1, stop: int | None = None, ahead: int = 0) -> Any:
    return _Run(start, stride)


class Looks:
    """A map-style dataset that looks at batches."""

    def __init__(self, dataset: SynthPixDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> AnyBatch:
        return self._dataset.batch_at(index)


class CountingDataset(SynthPixDataset):
    """Batches that hold nothing but their number."""

    def __init__(self, config: Any = None, **arguments: Any) -> None:
        super().__init__(config or base(**few), **arguments)
        self.stream.run = _run  # type: ignore[method-assign]
