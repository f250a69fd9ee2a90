"""Measure some batches of a stream, and describe them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float

from synthpix_torch.arguments import Arguments
from synthpix_torch.batch import AnyBatch, SynthPixBatch
from synthpix_torch.checks import check_integer
from synthpix_torch.config.config import Config
from synthpix_torch.config.plausibility import PhysicsWarning, odd_settings
from synthpix_torch.data.kinematic import folded_share
from synthpix_torch.describe.measures import measure_diameter
from synthpix_torch.describe.report import Report
from synthpix_torch.describe.suspicions import suspicions
from synthpix_torch.render.effects.light_sheet import correlation_factor
from synthpix_torch.render.effects.plan import plan_effects
from synthpix_torch.stream.stream import Stream

_BATCHES: Final = 3
_LABELS: Final = 2**16
"""Labels of a flow field that percentiles are taken of, at most."""

_DEPTHS: Final = 33
"""Quantiles of the third component that stand for all."""


def describe(stream: Stream, arguments: Arguments, *, window: int) -> Report:
    """Measure batches spread over a pass, and say what is suspicious.

    Nothing changes but which oddities of the records have been reported.

    Args:
        stream: Makes the batches.
        arguments: Those of the dataset.
        window: Side of an interrogation window in pixels.

    Raises:
        TypeError: `window` is not an integer.
        ValueError: `window` is not positive.
        Exception: What reading a record raised, with a note that names the record.
    """
    check_integer("window", window, 1)
    config, flows = stream.config, stream.flows
    numbers = _numbers(stream)
    with warnings.catch_warnings():
        # They become sentences of the report.
        warnings.simplefilter("ignore", PhysicsWarning)
        # Compiles.
        stream.batch(numbers[0])
        batches, seconds = zip(*(_timed(stream, number) for number in numbers), strict=True)
    images = np.concatenate([_images(batch, config, arguments) for batch in batches])
    fields = {name: field for one in batches for name, field in _displacements(one, config)}
    report = Report(
        source=config.scheduler_class or type(arguments.source).__name__,
        recorded=config.include_images,
        image_shape=config.image_shape,
        batch_size=config.batch_size,
        records=flows.records,
        records_per_flow_batch=config.records_per_flow_batch,
        used_in_a_pass=used_share(flows.records, config, ever=False),
        used_ever=used_share(flows.records, config, ever=True),
        grid_shape=(flows.shape[0], flows.shape[1]),
        window=window,
        batch_bytes=sum(tensor.nbytes for tensor in _tensors(batches[0])),
        batch_seconds=float(np.median(seconds)),
        device=str(batches[0].mask.device),
        **_about_flow_fields(list(fields.values()), config),
        **_about_images(images),
    )
    if not config.include_images:
        report = replace(report, **_about_scene(stream, batches, numbers[0], window))
    settings = () if config.include_images else odd_settings(config)
    remarks = (remark.message for remark in flows.remarks)
    return replace(report, suspicious=(*settings, *remarks, *suspicions(report)))


def _numbers(stream: Stream) -> list[int]:
    """Choose batches spread over a pass."""
    last = math.ceil(stream.batches_per_epoch) - 1
    if stream.total is not None:
        last = min(last, stream.total - 1)
    return sorted({round(number) for number in np.linspace(0, max(0, last), _BATCHES)})


def _timed(stream: Stream, number: int) -> tuple[AnyBatch, float]:
    start = time.perf_counter()
    batch = stream.batch(number)
    if batch.mask.is_cuda:
        torch.cuda.synchronize(batch.mask.device)
    return batch, time.perf_counter() - start


def _images(batch: AnyBatch, config: Config, arguments: Arguments) -> Float[np.ndarray, "n h w"]:
    """Return the first and the second images of a batch in grey levels of 255."""
    valid = batch.mask.cpu()
    pairs = [image[valid].float().cpu().numpy() for image in (batch.images1, batch.images2)]
    images = np.concatenate([image.reshape(-1, *config.image_shape) for image in pairs])
    return images * np.float32(255) if arguments.scale_images else images


def _displacements(
    batch: AnyBatch, config: Config
) -> Iterator[tuple[str, Float[np.ndarray, "y x 2"]]]:
    """Yield the name of each flow field of a batch, and its displacements (x, y) in pixels."""
    flow_fields = batch.flow_fields.float().cpu().numpy()
    if not isinstance(batch, SynthPixBatch):
        flow_fields = np.moveaxis(flow_fields, 1, 3)
    if config.output_units != "pixels":
        flow_fields = flow_fields * np.float32(config.dt * config.resolution)
    # Later slots repeat the flow fields; empty slots have no name.
    for name, field in zip(batch.files, flow_fields, strict=False):
        if name:
            yield name, field


def _about_flow_fields(fields: list[Float[np.ndarray, "y x 2"]], config: Config) -> dict[str, Any]:
    labels = np.concatenate([_sample(field) for field in fields])
    sizes = np.hypot(*labels.T)
    right, down = labels.T
    spacing = 1 / config.velocities_per_pixel
    folded = np.zeros(len(fields))
    if min(fields[0].shape[:2]) > 1:
        folded = np.array([folded_share(one, spacing=(spacing, spacing)) for one in fields])
    return {
        "flow_fields": len(fields),
        "displacement_median": float(np.median(sizes)),
        "displacement_99": float(np.percentile(sizes, 99)),
        "displacement_largest": float(sizes.max()),
        "displacement_x": (float(right.min()), float(right.max())),
        "displacement_y": (float(down.min()), float(down.max())),
        "folded_fields": float(np.mean(folded > 0)),
        "folded_area": float(np.mean(folded)),
    }


def _sample(field: Float[np.ndarray, "y x 2"]) -> Float[np.ndarray, "labels 2"]:
    """Take labels evenly from a flow field."""
    step = max(1, math.isqrt(field.shape[0] * field.shape[1] // _LABELS))
    return field[::step, ::step].reshape(-1, 2)


def _about_images(images: Float[np.ndarray, "n h w"]) -> dict[str, Any]:
    return {
        "diameter_measured": measure_diameter(images),
        "mean_level": float(images.mean(dtype=float)),
        "brightest_level": float(images.max()),
        "saturated": float(np.mean(images >= 254.5)),
        "dark": float(np.mean(images < 0.5)),
    }


def _about_scene(
    stream: Stream, batches: tuple[AnyBatch, ...], number: int, window: int
) -> dict[str, Any]:
    """Describe what the configuration of rendered images says."""
    config = stream.config
    resolution = float(config.resolution)
    density = _density(config, batches)
    nodes = stream.flows.shape[:2]
    spacing = tuple(
        size * resolution / n for size, n in zip(config.flow_field_size, nodes, strict=True)
    )
    diameters = [2.0 * end for ends in config.diameter_ranges for end in ends]
    return {
        "resolution": resolution,
        "image_area": tuple(side / resolution for side in config.image_shape),
        "grid_spacing": spacing,
        "density": density,
        "particles_per_window": density * window**2,
        "lost_pairs": lost_share(stream, number),
        "diameter": (min(diameters), max(diameters)),
    }


def used_share(records: int, config: Config, *, ever: bool) -> float:
    """Count the share of the records that are used in a pass over them, or ever.

    Of each `batch_size` records in the order of the stream the first are used.
    """
    size, used = config.batch_size, config.records_per_flow_batch
    if ever and config.loop and not config.episode_length:
        # Without an order of its own, a pass begins where the last flow batch ended.
        return 1.0 if config.randomize else min(1.0, used / math.gcd(size, records))
    groups, rest = divmod(records, size)
    return (groups * used + min(rest, used)) / records


def _density(config: Config, batches: tuple[AnyBatch, ...]) -> float:
    """Return the mean number of particles per pixel that an image shows."""
    seeded = [batch.params.seeding_densities.cpu().numpy() for batch in batches if batch.params]
    share = 1 - (config.p_hide_img1 + config.p_hide_img2) / 2
    if config.seeding_shares is not None:
        share *= float(config.seeding_shares.mean())
    if config.body_pixels is not None:
        share *= 1 - float(config.body_pixels.mean())
    return float(np.mean(seeded)) * share


def lost_share(stream: Stream, number: int) -> float:
    """Return the share of the particles of an image that the other does not show."""
    config = stream.config
    first, second = 1 - config.p_hide_img1, 1 - config.p_hide_img2
    if first + second == 0:
        return 1.0
    kept = 2 * first * second / (first + second)
    sheet = plan_effects(config, components=stream.flows.shape[2]).sheet
    if sheet is None:
        return 1 - kept
    depths = np.zeros(1)
    if stream.flows.shape[2] == 3:
        depths = np.quantile(_third_component(stream, number), np.linspace(0, 1, _DEPTHS))
    moves = depths * config.dt + sheet.displacement
    return 1 - kept * float(np.mean([correlation_factor(float(d), sheet=sheet) for d in moves]))


def _third_component(stream: Stream, number: int) -> np.ndarray:
    flow_batch = stream.order.place(number).flow_batch
    reader = stream.flows.read(lambda index: flow_batch if index == 0 else None)
    try:
        fields = next(reader).flow_fields
    finally:
        reader.close()
    assert fields is not None
    return np.asarray(fields[..., 2])


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    for part in batch:
        if isinstance(part, torch.Tensor):
            yield part
        elif isinstance(part, tuple):
            yield from _tensors(part)
