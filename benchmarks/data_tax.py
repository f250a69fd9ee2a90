"""Measure the share of a training step that is spent on data: python -m benchmarks.data_tax.

The same training runs on one batch that is kept in memory, on this package, and on synthpix's
sampler with a NumPy copy of each array into torch, interleaved. On a CPU the cores that train also
make the data, so the tax is at least the cost of making it; on a GPU the host has no such work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.pipelines import kinematic, sampler
from benchmarks.report import command_line, interleaved, spread, table, write
from synthpix_torch import SynthPixDataset

SIZE = 128
BATCH = 4
ROUNDS = 5
MODELS = {"small": (8, 16), "medium": (24, 6), "large": (64, 2)}
"""Width of the first layer, and training steps in a round."""

Pair = tuple[torch.Tensor, torch.Tensor]


def network(width: int) -> torch.nn.Module:
    """Create an encoder and a decoder of three levels, from an image pair to a flow field."""

    def block(inputs: int, outputs: int, stride: int = 1) -> list[torch.nn.Module]:
        convolution = torch.nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        return [convolution, torch.nn.LeakyReLU(0.1)]

    return torch.nn.Sequential(
        *block(2, width),
        *block(width, 2 * width, stride=2),
        *block(2 * width, 4 * width, stride=2),
        *block(4 * width, 4 * width),
        torch.nn.Upsample(scale_factor=2),
        *block(4 * width, 2 * width),
        torch.nn.Upsample(scale_factor=2),
        *block(2 * width, width),
        torch.nn.Conv2d(width, 2, 3, padding=1),
    )


def training(width: int, steps: int, batches: Iterator[Pair]) -> Callable[[], float]:
    """Measure a training step in seconds."""
    images, _ = next(batches)
    model = network(width).to(images.device)
    optimizer = torch.optim.Adam(model.parameters())

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            images, flow_fields = next(batches)
            loss = (model(images) - flow_fields).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        return (time.perf_counter() - begin) / steps

    return once


def kept(dataset: SynthPixDataset) -> Iterator[Pair]:
    batch = dataset.batch_at(0)
    return repeat((batch.images.clone(), batch.flow_fields.clone()))


def ours(dataset: SynthPixDataset) -> Iterator[Pair]:
    return ((batch.images, batch.flow_fields) for batch in dataset)


def naive(source: Any, device: torch.device) -> Iterator[Pair]:
    for batch in source:
        jax.block_until_ready((batch.images1, batch.images2))
        arrays = (batch.images1, batch.images2, batch.flow_fields)
        first, second, flow_fields = (torch.from_numpy(np.array(a)).to(device) for a in arrays)
        yield torch.stack([first, second], 1), flow_fields.permute(0, 3, 1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line(__doc__).parse_args(arguments)
    rows = []
    for repetitions in (8, 1):
        config = kinematic(
            SIZE, batch_size=BATCH, flow_fields_per_batch=BATCH, batches_per_flow_batch=repetitions
        )
        for name, (width, steps) in MODELS.items():
            dataset = SynthPixDataset(config)
            on_device = SynthPixDataset(config | {"scheduler_class": "kinematic-device"})
            contestants = {
                "kept": training(width, steps, kept(dataset)),
                "ours": training(width, steps, ours(dataset)),
                "on device": training(width, steps, ours(on_device)),
                "naive": training(width, steps, naive(sampler(config), dataset.device)),
            }
            measured = interleaved(contestants, rounds=ROUNDS)
            medians = {key: sorted(times)[len(times) // 2] for key, times in measured.items()}
            taxes = [1 - medians["kept"] / medians[key] for key in ("ours", "on device", "naive")]
            parameters = sum(parameter.numel() for parameter in network(width).parameters())
            rows.append(
                [
                    repetitions,
                    f"{name}, {parameters / 1e6:.2g} million",
                    *(spread(measured[key]) for key in ("kept", "ours", "naive")),
                    *(f"{tax:.0%}" for tax in taxes),
                ]
            )
            dataset.close()
            on_device.close()
    head = ["batches per flow batch", "model, parameters", "a kept batch, ms", "ours, ms"]
    head += ["synthpix and a copy, ms", "tax, ours", "tax, fields on the device", "tax, synthpix"]
    body = table(head, rows)
    body += f"\n\nMilliseconds per training step on {BATCH} pairs of {SIZE} px; median and "
    body += (
        f"quartiles of {ROUNDS} rounds. Tax: the share of a step beyond the step on a kept batch."
    )
    write("data_tax", "The share of data in a training step", body, folder=options.output)


if __name__ == "__main__":
    main()
