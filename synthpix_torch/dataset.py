"""The dataset: iterate, look at any batch, save and load the place in the stream."""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch.utils.data import IterableDataset

from synthpix_torch.batch import AnyBatch, hand_out
from synthpix_torch.checks import check_integer
from synthpix_torch.config.config import Config
from synthpix_torch.config.fingerprint import short
from synthpix_torch.config.reading import read_config
from synthpix_torch.data.flow_batches import Flows
from synthpix_torch.data.records import FlowFieldSource, Records
from synthpix_torch.integrations.trainers import check_caller
from synthpix_torch.interop.device import choose_device
from synthpix_torch.interop.dlpack import Bridge, collect
from synthpix_torch.interop.versions import version_of, warn_of_problems
from synthpix_torch.render.step import Appearance, Renderer, random_flags
from synthpix_torch.stream import state as states
from synthpix_torch.stream.order import Order
from synthpix_torch.stream.passes import Pass, Window, refuse_workers
from synthpix_torch.stream.run import Pipeline, Run

logger = logging.getLogger("synthpix_torch")

RENDERERS = ("particles", "synthpix")
LAYOUTS = ("torch", "synthpix")
LAST_NUMBER = 10**15
MADE_WITH = ("synthpix_torch", "synthpix", "jax", "jaxlib", "grain", "numpy", "scipy", "pillow")
IMAGE_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class SynthPixDataset(IterableDataset[Any]):
    """Endless or finite batches of PIV image pairs with flow fields, made on the device.

    Batch n is a pure function of the configuration and n, so that the dataset has no history: its
    state is the number of the next batch, and any batch can be made again at any time.

    Iterate over it directly, or through `DataLoader(dataset, batch_size=None)` with no workers. One
    pass ends after `epoch_length` batches, with the data if it is finite, with the episode if there
    are episodes, and else never. After `break` the next pass goes on where the last one was left.

    With several ranks rank r of N takes batches n0 + r, n0 + N + r, ... of the one stream.
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
            config: Path of a YAML file with synthpix's keys, or a mapping. Flow fields are read
                ahead by `num_threads` threads, `buffer_size` records at most (default: two flow
                batches); 0 reads when asked.
            source: Flow fields of your own in place of files, see `FlowFieldSource`.
            renderer: "particles" is fast and has the same bits on every run of a GPU, too; its
                images are within 1e-3 of synthpix's grey levels (of 255) on the same keys, before
                histogram matching.
                "synthpix" gives the bits of synthpix, flow fields included.
            streams: Flow batches in use side by side; part of what the stream is. With as many as
                ranks no two ranks read the same flow fields.
            rank: This process among all, by default that of torch.distributed, else 0.
            world_size: Number of processes, by default that of torch.distributed, else 1.
            epoch_length: Batches per pass and rank, which gives the dataset a length.
            layout: "torch" gives `Batch`, "synthpix" gives `SynthPixBatch`.
            image_dtype: torch.float32, float16 or bfloat16.
            scale_images: Grey levels from 0 to 1 instead of 0 to 255.
            device: "cpu", "cuda" or "cuda:1"; by default the GPU that torch uses, if JAX can too.
            ahead: Batches dispatched before they are asked for; 0 for none.
            load_from: A folder of checkpoints, ours or of synthpix 0.3.1: go on where the newest
                whole step was saved.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: An argument or a value of the configuration cannot be used.
            FileNotFoundError: A file that the configuration names does not exist, or `load_from`
                holds no whole step.
            RuntimeError: A GPU was asked for that JAX or torch cannot use, or JAX is set to make
                typed keys.
            CheckpointError: `load_from` or a step in it cannot be read by this process.
        """
        super().__init__()
        self._config = read_config(config, custom_source=source is not None)
        self._check_arguments(renderer, layout, image_dtype, scale_images)
        for name, value, least in (
            ("streams", streams, 1),
            ("epoch_length", epoch_length, 1),
            ("ahead", ahead, 0),
            ("rank", rank, 0),
            ("world_size", world_size, 1),
        ):
            optional = name not in ("streams", "ahead")
            if not (optional and value is None):
                check_integer(name, value, least)
        self._check_ranks(rank, world_size)
        if epoch_length is not None and self._config.episode_length:
            raise ValueError("A pass is an episode here: leave out epoch_length.")
        self._arguments = {
            "source": source,
            "renderer": renderer,
            "streams": streams,
            "rank": rank,
            "world_size": world_size,
            "epoch_length": epoch_length,
            "layout": layout,
            "image_dtype": image_dtype,
            "scale_images": scale_images,
            "device": device,
            "ahead": ahead,
        }
        self._rank, self._world_size = rank, world_size
        self._epoch_length = epoch_length
        self._ahead = ahead
        brightest = 255 if scale_images or image_dtype != torch.float32 else math.inf
        records = Records(self._config, source, exact=renderer == "synthpix", brightest=brightest)
        flows = Flows(self._config, records)
        self._order = _order(self._config, flows, records, streams)
        self._device = choose_device(device, self._config.device_ids)
        if self._device.platform != "cpu":
            warn_of_problems(renderer=renderer)
        appearance = Appearance(renderer, layout, IMAGE_DTYPES[image_dtype], scale_images)
        assert records.shape is not None
        self._pipeline = Pipeline(
            order=self._order,
            flows=flows,
            renderer=Renderer(
                self._config, records.shape, appearance=appearance, device=self._device
            ),
            batch_size=self._config.batch_size,
        )
        self._bridge = Bridge()
        self._description = self._describe(records, appearance, streams)
        self._position = 0
        self._committed: int | None = None
        self._across_passes = False
        self._uncommitted: deque[int] = deque()
        # A reference to it, and whether its user was told that there is no further batch. Weak,
        # because a pass holds its dataset.
        self._live: weakref.ref[Pass] | None = None
        self._live_ended = False
        self._run: Run | None = None
        # Held while a batch is delivered: threads that share a pass get each batch once.
        self._delivering = threading.RLock()
        self._windows: weakref.WeakSet[Run] = weakref.WeakSet()
        self._told = False
        if load_from is not None:
            # What reads folders stands on this module.
            from synthpix_torch.checkpoint.load import load_newest

            load_newest(self, load_from)

    # Iterating ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[AnyBatch]:
        """A pass that begins at `position` when its first batch is asked for.

        As soon as one pass begins, the pass before it is over: its next use is an error.

        Raises:
            RuntimeError: Called in a worker process of a DataLoader.
        """
        refuse_workers()
        return Pass(self)

    def __len__(self) -> int:
        """Batches of a whole pass on each rank.

        Raises:
            TypeError: A pass has no end.
        """
        length = self._order.pass_length(0, self.world_size, epoch_length=self._epoch_length)
        if length is None:
            raise TypeError("An endless SynthPixDataset has no length: give it an epoch_length.")
        return length

    def __bool__(self) -> bool:
        """A dataset is never empty, even without a length."""
        return True

    def batch_at(self, number: int) -> AnyBatch:
        """Batch `number` of the stream, without disturbing the iteration.

        Takes the time to read its flow fields, wherever in the stream it lies.

        Raises:
            TypeError: `number` is not an integer.
            ValueError: The stream has no such batch.
            RuntimeError: Called in a worker process of a DataLoader.
        """
        refuse_workers()
        self._check_number(number, last=1)
        run = self._pipeline.run(number, stop=number + 1)
        try:
            return self._take(run)
        finally:
            run.close()

    def window(self, start: int, stop: int) -> Window:
        """The fixed batches start to stop - 1 as a dataset of its own, for validation.

        Raises:
            TypeError: A bound is not an integer.
            ValueError: The stream has no such batches.
        """
        self._check_number(start, last=1)
        self._check_number(stop, last=0)
        if stop <= start:
            raise ValueError(f"The window from {start} to {stop} is empty: stop must be larger.")
        return Window(self, start, stop)

    # The place in the stream -------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Number of the next batch of the stream that no rank has been given."""
        return self._position

    @property
    def batches_per_epoch(self) -> float:
        """Batches of the stream until all records were served once; rarely a whole number."""
        return self._pipeline.flows.records / self._config.batch_size * self._config.repetitions

    def seek(self, number: int) -> None:
        """Go on at batch `number`, which takes no longer the larger it is.

        Raises:
            TypeError: `number` is not an integer.
            ValueError: The stream has no such batch.
        """
        self._check_number(number, last=0)
        self._move_to(number)

    def next_episode(self) -> None:
        """Go on at the next start of an episode, on every stream.

        At such a start already, as before the first batch and after the last step of an episode,
        nothing changes. Call it on all ranks at the same step.

        Raises:
            RuntimeError: The configuration has no episodes.
        """
        if not self._order.episodic:
            raise RuntimeError("There are no episodes: set episode_length in the configuration.")
        start = self._order.next_boundary(self._position)
        if start != self._position:
            self._move_to(start)

    def track(self, *, across_passes: bool = False) -> None:
        """From now on a state names the first batch that `commit` has not been called for.

        For trainers that read batches before they train on them: what was read and not trained on
        is delivered again, by the next pass and after the state is loaded.

        Args:
            across_passes: Not by a pass that follows one that came to its end, for trainers that
                begin it before the last batches are trained on, as beside a longer dataset. After
                a failure call `untrack`.
        """
        self.untrack()
        self._committed = self._position
        self._across_passes = across_passes

    def commit(self) -> None:
        """The oldest batch that was delivered since `track` has been trained on.

        Raises:
            RuntimeError: There is no such batch.
        """
        if not self._uncommitted:
            raise RuntimeError(
                "There is no batch to commit: call track() before the first batch and commit() "
                "once after each training step."
            )
        self._committed = self._uncommitted.popleft()

    def untrack(self) -> None:
        """Go on at the first batch that was not committed; states name what is delivered again."""
        if self._committed is not None:
            if self._uncommitted:
                self._move_to(self._committed)
            self._committed = None

    @property
    def uncommitted(self) -> int:
        """Batches delivered since `track` and not committed."""
        return len(self._uncommitted)

    @property
    def tracking(self) -> bool:
        """Whether states name what was committed, not what was delivered."""
        return self._committed is not None

    def state_dict(self) -> dict[str, Any]:
        """A new dict of strings and integers that names the next batch to deliver.

        The same on every rank; see `synthpix_torch.stream.state`.
        """
        return states.make_state(self._next_for_state, self._description)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the state was saved. Nothing changes unless the state fits.

        Raises:
            TypeError: `state_dict` is not a mapping.
            ValueError: It is not a state of a dataset, damaged or newer than this version.
            StateMismatchError: It was saved with another configuration or other data.
        """
        self._move_to(states.read_state(state_dict, self._description))

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raise what `load_state_dict` would raise, and change nothing."""
        states.read_state(state_dict, self._description)

    async def save(self, directory: Any) -> Awaitable[None]:
        """Orbax v1's stateful protocol: the state as it is now, written in the background."""
        state = self.state_dict()

        async def write() -> None:
            states.write_files(await directory.await_creation(), state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Orbax v1's stateful protocol: as `load_state_dict`."""

        async def read() -> None:
            self.load_state_dict(states.read_files(directory))

        return read()

    # Ranks and devices -------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Number of this process among `world_size`.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        if self._rank is not None:
            return self._rank
        return torch.distributed.get_rank() if _distributed() else 0

    @property
    def world_size(self) -> int:
        """Number of processes that share the stream.

        Raises:
            RuntimeError: There are several processes and torch.distributed has not started.
        """
        if self._world_size is not None:
            return self._world_size
        return torch.distributed.get_world_size() if _distributed() else 1

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""
        if self._device.platform == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", self._device.local_hardware_id)

    def close(self) -> None:
        """Stop reading ahead and let go of batches that were dropped; `position` stays.

        Its windows stop reading, too.
        """
        self._live = None
        run, self._run = self._run, None
        for open_run in (*self._windows, *([] if run is None else [run])):
            open_run.close()
        collect()

    def __enter__(self) -> SynthPixDataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # What runs is made again: threads, caches and compiled functions do not travel.
        return _rebuild, (type(self), self._config.given, self._arguments, self.state_dict())

    # Behind the scenes -------------------------------------------------------------------------

    @property
    def _next_for_state(self) -> int:
        return self._position if self._committed is None else self._committed

    def _is_live(self, one: Pass) -> bool:
        return self._live is not None and self._live() is one

    def _end(self, one: Pass) -> None:
        """A pass has no further batch, and its user knows."""
        self._live_ended = self._live_ended or self._is_live(one)

    def _move_to(self, position: int) -> None:
        self._live, self._live_ended = None, False
        self._position = self._wrapped(position, world_size=1)
        self._uncommitted.clear()
        if self._committed is not None:
            self._committed = self._position

    def _advance(self, rank: int, world_size: int) -> AnyBatch:
        """Deliver the next batch of this rank; on an error the position stays."""
        live, number = self._live, self._position + rank
        run = self._run
        if run is None or (run.number, run.stride) != (number, world_size):
            self._run = None
            if run is not None:
                run.close()
            run = self._run = self._pipeline.run(number, stride=world_size, ahead=self._ahead)
        try:
            batch = self._take(run)
            run.dispatch_ahead()
        except BaseException:
            self._run = None
            run.close()
            raise
        position = self._wrapped(number - rank + world_size, world_size)
        if self._live is not live:
            raise RuntimeError(
                "The dataset was moved or closed by another thread while a batch was made, which "
                "is not delivered: call iter(dataset) again."
            )
        # Last, and nothing between: Ctrl-C before it leaves the batch undelivered.
        if self._committed is not None:
            self._uncommitted.append(position)
        self._position = position
        return batch

    def _wrapped(self, position: int, world_size: int) -> int:
        """Where finite data begins again once not every rank would get a batch."""
        total = self._order.total
        return 0 if total is not None and position + world_size > total else position

    def _begin(self, new: Pass) -> tuple[int, int, int | None]:
        """Make a pass the live one; its rank, world size and number of batches."""
        rank, world_size = self.rank, self.world_size
        goes_on = self._across_passes and self._live_ended
        if self._committed is not None and self._uncommitted and not goes_on:
            self._move_to(self._committed)
        check_caller(tracking=self.tracking, world_size=world_size, position=self._position)
        self._check_world(world_size)
        self._position = self._wrapped(self._position, world_size)
        self._live, self._live_ended = weakref.ref(new), False
        left = self._order.pass_length(self._position, world_size, epoch_length=self._epoch_length)
        return rank, world_size, left

    def _check_world(self, world_size: int) -> None:
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
            if self._position % world_size:
                raise RuntimeError(
                    f"{world_size} ranks cannot go on within an episode at batch {self._position}: "
                    "use the number of ranks that saved the state, or call next_episode() first."
                )
        elif world_size > 1 and order.steps > 1 and order.streams == 1 and not self._told:
            self._told = True
            logger.warning(
                "With streams=1 each flow batch is read by %d ranks; with streams=%d each rank "
                "reads its own (another order, so for new runs only).",
                min(world_size, order.steps),
                world_size,
            )

    def _take(self, run: Run) -> AnyBatch:
        """The next batch of a run."""
        self._bridge.refuse_capture()
        made = next(run)
        return hand_out(made.rendered, files=made.files, number=made.number, bridge=self._bridge)

    def _describe(
        self, records: Records, appearance: Appearance, streams: int
    ) -> states.Description:
        return states.Description(
            fields={
                **self._config.fingerprint(),
                "data": records.identity(),
                "batches": {
                    "streams": str(streams),
                    **{key: short(value) for key, value in appearance._asdict().items()},
                },
                "jax": {flag: short(value) for flag, value in random_flags().items()},
            },
            made_with={
                **{name: version_of(name) for name in MADE_WITH},
                "device": self._device.device_kind,
            },
            # Without this object, so that it ends as soon as nobody holds it.
            next_index=partial(_next_index, self._order, self._config.records_per_flow_batch),
            total=self._order.total,
        )

    def _check_arguments(
        self, renderer: str, layout: str, image_dtype: torch.dtype, scale_images: bool
    ) -> None:
        for name, value, choices in (
            ("renderer", renderer, RENDERERS),
            ("layout", layout, LAYOUTS),
            ("image_dtype", image_dtype, tuple(IMAGE_DTYPES)),
            ("scale_images", scale_images, (False, True)),
        ):
            # 1 is equal to True, but a state tells them apart.
            if value not in choices or not isinstance(value, type(choices[0])):
                allowed = ", ".join(map(repr, choices))
                raise ValueError(f"{name} must be one of {allowed}, not {value!r}.")

    @staticmethod
    def _check_ranks(rank: int | None, world_size: int | None) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size belong together: give both or none.")
        if rank is not None and world_size is not None and rank >= world_size:
            raise ValueError(f"rank={rank} must be less than world_size={world_size}.")

    def _check_number(self, number: int, *, last: int) -> None:
        check_integer("The number of a batch", number, 0)
        if number > LAST_NUMBER:
            raise ValueError(f"The number of a batch must be at most {LAST_NUMBER}, not {number}.")
        total = self._order.total
        if total is not None and number > total - last:
            raise ValueError(f"The stream has no batch {number}: it ends with batch {total - 1}.")


def _next_index(order: Order, records_per_flow_batch: int, position: int) -> int:
    return order.first_flow_batch(position) * records_per_flow_batch


def _order(config: Config, flows: Flows, records: Records, streams: int) -> Order:
    if config.episode_length:
        units = None if config.loop else records.episodes
        return Order(config.episode_length, streams, units, episodic=True)
    return Order(config.repetitions, streams, flows.count)


def _distributed() -> bool:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return True
    # Not taken for granted: left over in a single process it would make us skip batches.
    expected = os.environ.get("WORLD_SIZE", "1")
    if expected not in ("", "1"):
        raise RuntimeError(
            f"WORLD_SIZE={expected} says that there are several processes, but torch.distributed "
            "has not started, so all would get the same batches: call "
            "torch.distributed.init_process_group() first, or give rank and world_size."
        )
    return False


def _rebuild(
    kind: type[SynthPixDataset],
    config: Mapping[str, Any],
    arguments: dict[str, Any],
    state: dict[str, Any],
) -> SynthPixDataset:
    dataset = kind(config, **arguments)
    # Which is refused if files have changed since.
    dataset.load_state_dict(state)
    return dataset
