"""The dataset: iterate over a stream, look at any batch, save and load the place in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch.utils.data import IterableDataset

from synthpix_torch.arguments import Arguments, rebuilding
from synthpix_torch.batch import AnyBatch
from synthpix_torch.checkpoint.load import load_newest, read_recipe
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.records import FlowFieldSource
from synthpix_torch.describe import Report, describe
from synthpix_torch.interop.compilation import untraced
from synthpix_torch.interop.device import choose_device
from synthpix_torch.interop.dlpack import collect
from synthpix_torch.interop.versions import warn_of_problems
from synthpix_torch.stream.cursor import Cursor
from synthpix_torch.stream.passes import Delivery, Pass, Window, refuse_collation, refuse_workers
from synthpix_torch.stream.place import Resumable
from synthpix_torch.stream.ranks import given_ranks
from synthpix_torch.stream.stream import Stream

_OWN: Final = ("stream", "cursor", "ahead", "_arguments", "_ranks", "_jax_device", "_delivery")


class SynthPixDataset(Resumable, IterableDataset[Any]):
    """Yield endless or finite batches of PIV image pairs with flow fields, made on the device.

    Batch n is a pure function of the configuration and n, so the dataset has no history: its state
    is the number of the next batch, and any batch can be made again at any time.

    Iterate over it directly, or through `DataLoader(dataset, batch_size=None)` with no workers. A
    pass ends after `epoch_length` batches, with the data if it is finite, with the episode if there
    are episodes, and else never. After `break` the next pass continues where the last one stopped.

    With several ranks rank r of N takes batches n0 + r, n0 + N + r, ... of the one stream.

    Attributes:
        stream: Makes batches from their numbers.
        cursor: The place in the stream.
        ahead: Batches dispatched before they are requested.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any],
        *,
        source: FlowFieldSource | None = None,
        renderer: str = "particles",
        streams: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
        epoch_length: int | None = None,
        layout: str = "torch",
        image_dtype: torch.dtype = torch.float32,
        scale_images: bool = False,
        device: str | torch.device | None = None,
        ahead: int = 2,
        load_from: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the configuration and open the data; nothing is rendered or compiled yet.

        Args:
            config: Path of a YAML file with synthpix's keys, or a mapping. Flow fields are
                prefetched by `num_threads` threads, `buffer_size` records at most (default: two
                flow batches); with 0 they are read when they are needed.
            source: Flow fields of your own in place of files, see `FlowFieldSource`.
            renderer: "particles" is physically right (docs/physics.md), fast, and has the same bits
                in every run, on a GPU too. "synthpix" gives the bits of synthpix, flow fields and
                errors included.
            streams: Flow batches that are interleaved; defines the stream. With as many as ranks no
                two ranks read the same flow fields.
            rank: Number of this process, by default that of torch.distributed, else 0.
            world_size: Number of processes, by default that of torch.distributed, else 1.
            epoch_length: Batches per pass and rank, which gives the dataset a length.
            layout: "torch" for `Batch`, "synthpix" for `SynthPixBatch`.
            image_dtype: torch.float32, float16 or bfloat16.
            scale_images: Scale grey levels to 0 to 1 instead of 0 to 255.
            device: "cpu", "cuda" or "cuda:1"; by default the GPU that torch uses, if JAX can too.
            ahead: Batches to dispatch before they are requested; 0 for none.
            load_from: Folder of checkpoints, ours or of synthpix 0.3.1: continue from the newest
                complete step.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: An argument or a value of the configuration cannot be used.
            FileNotFoundError: A file that the configuration names does not exist, or `load_from`
                holds no complete step.
            RuntimeError: JAX or torch cannot use the requested GPU, or JAX is set to make typed
                keys.
            CheckpointError: This process cannot read `load_from` or a step in it.
        """
        IterableDataset.__init__(self)
        self._arguments = Arguments(
            source=source,
            renderer=renderer,
            streams=streams,
            rank=rank,
            world_size=world_size,
            epoch_length=epoch_length,
            layout=layout,
            image_dtype=image_dtype,
            scale_images=scale_images,
            device=device,
            ahead=ahead,
        )
        parsed = read_config(config, custom_source=source is not None)
        self._arguments.check(parsed)
        ranks = given_ranks(rank, world_size)
        self._jax_device = choose_device(device, parsed.device_ids)
        if self._jax_device.platform != "cpu":
            warn_of_problems(renderer=renderer)
        self.ahead = ahead
        stream = Stream(
            parsed,
            source=source,
            streams=streams,
            appearance=self._arguments.appearance,
            device=self._jax_device,
        )
        Resumable.__init__(self, stream, Cursor(stream.order, epoch_length=epoch_length), ranks)
        self._delivery = Delivery(stream, self.cursor, ranks, ahead=ahead)
        if load_from is not None:
            load_newest(self, load_from)

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | os.PathLike[str],
        *,
        step: int | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> SynthPixDataset:
        """Build the dataset that a checkpoint holds, and continue from its place in the stream.

        Args:
            folder: Folder of checkpoints of a `Checkpointer` or of `save_checkpoint`.
            step: Number of the step, by default the newest complete one.
            name: Name of the dataset in the step; needed only if there are several and none is
                called "data".
            config: Keys of the configuration to change, such as `file_list` for moved data.
            **arguments: Arguments of the dataset to change, such as `device` or `rank`. A source of
                your own is not in the checkpoint and must be given.

        Raises:
            FileNotFoundError: The folder holds no complete step.
            ValueError: The step holds no such dataset, or not its configuration.
            StateMismatchError: A change makes another stream.
        """
        recipe, state = read_recipe(folder, step=step, name=name)
        keys, options = rebuilding(recipe, config=config, arguments=arguments, place="checkpoint")
        dataset = cls(keys, **options)
        dataset.load_state_dict(state)
        return dataset

    # Iterating ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[AnyBatch]:
        """Make a pass that begins at `position` when its first batch is requested.

        The beginning of a pass ends the pass before it, whose next use raises.

        Raises:
            RuntimeError: Called in a worker process of a DataLoader.
            ValueError: A DataLoader would collate the batches, as it does by default.
        """
        refuse_workers()
        refuse_collation(self)
        return Pass(self._delivery)

    def __len__(self) -> int:
        """Count the batches of a whole pass on each rank.

        Raises:
            TypeError: A pass has no end.
            RuntimeError: The length depends on the number of ranks, which is not known yet.
        """
        order = self.stream.order
        shared = order.episodic or order.total is not None
        length = self.cursor.length(self.world_size if shared else 1)
        if length is None:
            raise TypeError("An endless SynthPixDataset has no length: give it an epoch_length.")
        return length

    def __bool__(self) -> bool:
        """Return True: a dataset is never empty, even without a length."""
        return True

    def __repr__(self) -> str:
        name, stream = type(self).__name__, self.stream.summary
        return f"<{name} at batch {self.position} of {stream}, {self.device}>"

    @untraced
    def batch_at(self, number: int) -> AnyBatch:
        """Make batch `number` of the stream; the iteration is not disturbed.

        Takes the time to read its flow fields, wherever in the stream it lies.

        Raises:
            TypeError: `number` is not an integer.
            ValueError: The stream has no such batch.
            RuntimeError: Called in a worker process of a DataLoader.
        """
        refuse_workers()
        self.stream.check_number(number, last=1)
        return self.stream.batch(number)

    def window(self, start: int, stop: int) -> Window:
        """Make a dataset of the fixed batches start to stop - 1, for validation.

        Raises:
            TypeError: A bound is not an integer.
            ValueError: The stream has no such batches.
        """
        self.stream.check_number(start, last=1)
        self.stream.check_number(stop, last=0)
        if stop <= start:
            raise ValueError(f"The window from {start} to {stop} is empty: stop must be larger.")
        return Window(self, start, stop)

    def describe(self, *, window: int = 32) -> Report:
        """Measure some batches, and name what is suspicious; the position stays.

        `print(dataset.describe())` is readable. `window` is the side of an interrogation window in
        pixels.
        """
        refuse_workers()
        return describe(self.stream, self._arguments, window=window)

    # Copies ------------------------------------------------------------------------------------

    @property
    def recipe(self) -> dict[str, Any]:
        """The configuration and the arguments that build this dataset again, as JSON."""
        source = self._arguments.source
        return {
            "config": self.stream.config.as_json(),
            "arguments": self._arguments.recipe,
            "source": None if source is None else type(source).__qualname__,
        }

    # The device --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""
        if self._jax_device.platform == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", self._jax_device.local_hardware_id)

    def close(self) -> None:
        """Stop prefetching, of windows too, and release dropped batches; `position` stays."""
        self._delivery.close()
        self.stream.close()
        collect()

    def __enter__(self) -> SynthPixDataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> tuple[Any, ...]:
        # Runs are made again: threads, caches and compiled functions are not pickled.
        of_subclass = {name: value for name, value in vars(self).items() if name not in _OWN}
        given = self.stream.config.given, self._arguments._asdict()
        return *given, self.state_dict(), of_subclass

    def __setstate__(self, saved: tuple[Any, ...]) -> None:
        config, arguments, state, of_subclass = saved
        # As any object is copied: without the constructor of a subclass.
        SynthPixDataset.__init__(self, config, **arguments)
        vars(self).update(of_subclass)
        # Refuses the state if files have changed since.
        self.load_state_dict(state)
