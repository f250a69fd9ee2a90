"""The time of the stages that make a batch, each measured alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import jax
import torch

from synthpix_torch.batch import to_batch
from synthpix_torch.dataset import SynthPixDataset


class Stages(NamedTuple):
    """Seconds per batch of each stage.

    A flow batch makes several batches, each of which bears its part of reading and adapting it.

    Attributes:
        flow_fields: To read or generate flow fields on the host, with all threads.
        adapt: To transfer flow fields to the device, or generate them there, and to interpolate
            them.
        render: To render images and labels.
        tensors: To wrap the arrays as tensors.
    """

    flow_fields: float
    adapt: float
    render: float
    tensors: float

    @property
    def slowest(self) -> str:
        """The name of the stage that takes the longest."""
        return max(self._fields, key=lambda name: float(getattr(self, name)))


def measure_stages(dataset: SynthPixDataset, *, seconds: float) -> Stages:
    """Measure the stages sequentially, about `seconds` in all."""
    stream = dataset.stream
    count, share = stream.flows.count, seconds / 3
    reader = stream.flows.read(lambda index: index if count is None else index % count)
    try:
        flow_batch = next(reader)
        # Those of the buffer came with the first.
        next(reader), next(reader)
        flow_fields = _mean_time(lambda: next(reader), share)
    finally:
        reader.close()
    renderer = stream.renderer
    loaded = jax.block_until_ready(renderer.load(flow_batch))
    adapt = _mean_time(lambda: jax.block_until_ready(renderer.load(flow_batch)), share)
    rendering: list[float] = []
    wrapping: list[float] = []
    end = time.perf_counter() + share
    while time.perf_counter() < end or len(rendering) < 4:
        begin = time.perf_counter()
        rendered = jax.block_until_ready(renderer.render(loaded, repetition=0, last_step=False))
        middle = time.perf_counter()
        batch = to_batch(rendered, files=flow_batch.files, number=0, bridge=stream.bridge)
        wrapping.append(time.perf_counter() - middle)
        rendering.append(middle - begin)
        del batch, rendered
    repetitions = stream.config.repetitions
    # The first call compiles.
    return Stages(
        flow_fields / repetitions, adapt / repetitions, median(rendering[1:]), median(wrapping[1:])
    )


def measure_batches(
    dataset: SynthPixDataset, *, seconds: float, advance: Callable[[float], object]
) -> tuple[float, float]:
    """Iterate over the dataset for some seconds, from its position.

    Args:
        dataset: The dataset.
        seconds: How long, without the first batches.
        advance: Called with the seconds that each batch took.

    Returns:
        The seconds until the first batch, which is compiled for, and the mean of all but the first
        ones.
    """
    begin = last = time.perf_counter()
    first = start = 0.0
    done = 0
    # What was prefetched while the first batch was compiled must not count.
    skipped = 1 + dataset.ahead + 2 * dataset.stream.config.repetitions
    while True:
        for batch in dataset:
            done += 1
            now = time.perf_counter()
            if done == 1:
                _wait(batch.images)
                first = time.perf_counter() - begin
            elif done == skipped:
                _wait(batch.images)
                start = last = time.perf_counter()
            elif done > skipped:
                advance(now - last)
                last = now
                if now - start > seconds and done >= 2 * skipped:
                    _wait(batch.images)
                    return first, (time.perf_counter() - start) / (done - skipped)


def _mean_time(action: Callable[[], object], seconds: float) -> float:
    begin = time.perf_counter()
    done = 0
    while done < 3 or time.perf_counter() - begin < seconds:
        action()
        done += 1
    return (time.perf_counter() - begin) / done


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
