"""Keys of the flow fields: where they come from, in which order, how they are read."""

from typing import Final

from synthpix_torch.config import rules
from synthpix_torch.config.key import Key

_positive_integer = rules.positive_integer()
_count = rules.count()

STREAM_KEYS: Final[dict[str, Key]] = {
    "scheduler_class": Key(
        rules.text("a file format such as '.npy', or a generator such as 'lamb-oseen'"),
        "Where flow fields come from: files of a format, or a generator.",
        example=".npy",
        group="stream",
    ),
    "batch_size": Key(
        rules.positive_integer(most=2**20),
        "Image pairs in a batch.",
        "pairs",
        example=8,
        group="stream",
    ),
    "flow_fields_per_batch": Key(
        _positive_integer,
        "Flow fields that a batch is rendered from; pair i moves with field i modulo this number.",
        "flow fields",
        filler=1,
        example=4,
        group="stream",
    ),
    "batches_per_flow_batch": Key(
        _positive_integer,
        "Consecutive batches that are rendered from the same flow fields with new particles.",
        "batches",
        filler=1,
        example=1,
        group="stream",
    ),
    "seed": Key(
        rules.integer("an integer between 0 and 2**32 - 1", lambda v: 0 <= v < 2**32),
        "Seed of the order of the records, of generated flow fields and of the particles.",
        default=0,
        group="stream",
    ),
    "file_list": Key(
        rules.paths(),
        "Files or folders with flow fields.",
        default=(),
    ),
    "randomize": Key(
        rules.flag(),
        "Whether each pass over the records has an order of its own.",
        default=False,
        group="stream",
    ),
    "loop": Key(
        rules.flag(),
        "Whether the records are used again and again, so that the stream never ends.",
        default=True,
        group="stream",
    ),
    "include_images": Key(
        rules.flag(),
        "Whether recorded image pairs are read from the files instead of rendered.",
        default=False,
        group="stream",
    ),
    "flow_variables": Key(
        rules.names("a name, or two names of the components to the right and down", 1, 2),
        "Variables of .h5 and .mat files that hold the flow field: one of shape (H, W, 2), or two "
        "of shape (H, W). By default V of .mat files; u and v of .h5 files, or their first "
        "dataset.",
        default=None,
        group="stream",
    ),
    "image_variables": Key(
        rules.names("two names", 2),
        "Variables of .h5 and .mat files that hold the first and the second recorded image; by "
        "default I0 and I1.",
        default=None,
        group="stream",
    ),
    "episode_length": Key(
        _count,
        "Files in time order that make an episode; 0 for no episodes.",
        "batches",
        default=0,
        group="stream",
    ),
    "num_threads": Key(
        rules.count(most=1024),
        "Threads that prefetch records; with generated fields at most one for two processors, "
        "unless the renderer is synthpix's.",
        "threads",
        default=16,
    ),
    "buffer_size": Key(
        rules.count(most=2**16),
        "Records that are prefetched at most; by default those of two flow batches.",
        "records",
        default=None,
    ),
    "worker_count": Key(
        _count,
        "Must be 0: worker processes would reorder the stream.",
        "processes",
        default=0,
    ),
    "use_grain_scheduler": Key(
        rules.flag(),
        "Must be true: synthpix's legacy schedulers have no exact resume.",
        default=True,
    ),
    "device_ids": Key(
        rules.device_numbers(),
        "The number of the GPU to use, as a list of one; empty for the one that torch uses.",
        default=(),
    ),
}
