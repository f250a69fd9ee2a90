"""Checks of keys that must fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthpix_torch.config.config import Config

_LEGACY_CLASSES = (
    "HDF5FlowFieldScheduler",
    "MATFlowFieldScheduler",
    "NumpyFlowFieldScheduler",
    "EpisodicFlowFieldScheduler",
    "PrefetchingFlowFieldScheduler",
)


def refuse_legacy(given: Mapping[str, Any]) -> None:
    """Raise if a configuration names one of synthpix's legacy schedulers.

    Raises:
        ValueError: It does.
    """
    if given.get("use_grain_scheduler") is False or given.get("scheduler_class") in _LEGACY_CLASSES:
        raise ValueError(
            "The configuration names synthpix's legacy scheduler, whose order has no exact "
            "resume. Use scheduler_class .npy, .h5, .mat or kinematic, and leave out "
            "use_grain_scheduler."
        )


def check_combinations(config: Config, *, custom_source: bool) -> None:
    """Raise if two keys exclude each other.

    Args:
        config: The configuration.
        custom_source: The flow fields come from a source of the user's own.

    Raises:
        ValueError: The message names both keys and what to change.
    """
    if custom_source and (config.scheduler_class is not None or config.file_list):
        raise ValueError(
            "Flow fields come from `source` or from files, not from both: leave out "
            "scheduler_class and file_list, or `source`."
        )
    if custom_source and config.include_images:
        raise ValueError(
            "A source of your own holds flow fields, not real images: set include_images: false."
        )
    if config.worker_count > 0:
        raise ValueError(
            f"worker_count={config.worker_count} would reorder the stream: use worker_count: 0, "
            "num_threads reads in parallel and keeps the order."
        )
    if len(config.device_ids) > 1:
        raise ValueError(
            f"device_ids names {len(config.device_ids)} devices, one process uses one: start "
            "one process per GPU (torchrun), each with its own device."
        )
    for name in ("mask", "histogram"):
        if config.include_images and getattr(config, name) is not None:
            raise ValueError(f"Real images are served as they are: leave out {name}.")
    if config.crop is not None and (not config.include_images or "image_shape" not in config.given):
        raise ValueError(
            "crop cuts image_shape from recorded images: give image_shape with it, or leave out "
            "crop. Rendered images lie at img_offset."
        )
    if config.episode_length > 0:
        _check_episodes(config, custom_source=custom_source)
    if not config.include_images and config.flow_fields_per_batch > config.batch_size:
        raise ValueError(
            f"flow_fields_per_batch={config.flow_fields_per_batch} must not be larger than "
            f"batch_size={config.batch_size}."
        )


def _check_episodes(config: Config, *, custom_source: bool) -> None:
    if custom_source or config.generated:
        raise ValueError(
            "Episodes are made of files in time order: set episode_length: 0, "
            "or a scheduler_class that reads files."
        )
    if config.randomize:
        raise ValueError(
            "randomize: true would destroy the time order within episodes: set randomize: false, "
            "the order of the episodes is shuffled by `seed` anyway."
        )
    if not config.include_images and config.batches_per_flow_batch != 1:
        raise ValueError(
            f"batches_per_flow_batch={config.batches_per_flow_batch} would repeat the steps of "
            "an episode: set batches_per_flow_batch: 1."
        )
