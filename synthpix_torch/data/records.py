"""Random access to records: a flow field, and with real images its image pair, by record number."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Num
from synthpix.data_sources import EpisodicDataSource

from synthpix_torch.config.config import Config
from synthpix_torch.config.fingerprint import digest_array, short
from synthpix_torch.config.rules import LARGEST_COUNT
from synthpix_torch.data.array_checks import check_flow_field, check_image
from synthpix_torch.data.fields import GeneratedFields
from synthpix_torch.data.files import digest_contents, digest_names
from synthpix_torch.data.generator import Generator
from synthpix_torch.data.memory import aligned
from synthpix_torch.data.plausibility import (
    Remark,
    Reporter,
    remarks_on_flow_field,
    remarks_on_image,
    remarks_on_speeds,
)
from synthpix_torch.data.recorded import Frame
from synthpix_torch.data.sources import open_source

_ATTEMPTS = 20


@runtime_checkable
class FlowFieldSource(Protocol):
    """Random access to flow fields, the contract of a source of the user's own.

    A NumPy array of shape (records, H, W, 2), a list of arrays and a torch map-style dataset all
    fit. Each record is an array of shape (H, W, 2), channel 0 to the right and channel 1 down, in
    the length unit per second that the configuration uses, or a mapping with such an array as
    `flow_fields` and, if wanted, a name as `file`.

    The source is read by several threads at once, in no particular order, and a record may be read
    more than once: the same index must always give the same record, in memory that the next
    record does not overwrite. To be pickled with its
    dataset, the source must be picklable. A string attribute `fingerprint`, if there is one,
    stands for the contents when a state is loaded; without one only type, length, shape and dtype
    are compared.
    """

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, index: int, /) -> Any:
        """Record `index`."""


class Record(NamedTuple):
    """One record as it was read.

    Attributes:
        flow_field: Shape (H, W, 2), or (H, W, 3) of which the first two are used; None if it is
            made on the device.
        images: The image pair, each of the configured image_shape; None unless images are recorded.
        file: Where the record comes from.
        repeated: Whether its episode fills a batch that would not be full otherwise.
        remarks: What is physically odd about it, for whoever takes it.
    """

    flow_field: Num[np.ndarray, "h w c"] | None
    images: tuple[Num[np.ndarray, "y x"], Num[np.ndarray, "y x"]] | None
    file: str
    repeated: bool
    remarks: tuple[Remark, ...] = ()


class Records:
    """The records of a configuration, each checked when it is read.

    Attributes:
        config: The configuration, with the `image_shape` of recorded images.
        shape: Shape of every flow field, (H, W, 2) or (H, W, 3).
        episodes: Number of episodes, each of batch_size records a step; None without episodes.
    """

    def __init__(
        self,
        config: Config,
        source: FlowFieldSource | None = None,
        *,
        exact: bool = False,
        brightest: float = math.inf,
    ) -> None:
        """Find the records; nothing but the first is read.

        Args:
            config: The configuration.
            source: Records of the user's own, in place of those that the configuration names.
            exact: Generate flow fields and resize recorded images as synthpix does, for its bits.
            brightest: The largest grey level that recorded images may have.

        Raises:
            FileNotFoundError: A file or folder that the configuration names does not exist.
            ValueError: There is no record, or the first cannot be used.
            TypeError: `source` has no length or no random access.

        Warns:
            PhysicsWarning: The first record, or the generator, does not suit the configuration.
        """
        self.config = config
        opened = open_source(config, exact=exact) if source is None else _checked(source)
        self._generator = opened if isinstance(opened, Generator) else None
        self._source = opened.records if isinstance(opened, Generator) else opened
        self._on_device = self._generator is not None and self._generator.generate is not None
        records = None if self._on_device or self._generator is None else self._generator.records
        self._on_host = records if isinstance(records, GeneratedFields) else None
        self._own = source is not None
        # Where relative paths begin; absolute ones name the same files everywhere.
        paths = () if self._own else getattr(self._source, "file_list", ())
        self._folder = None if all(map(os.path.isabs, paths)) else os.getcwd()
        self._exact = exact
        self._brightest = brightest
        self._frame: Frame | None = None
        self._reporter = Reporter()
        self._contents = ""
        _check_length(self._source)
        self.episodes: int | None = None
        if config.episode_length:
            self.episodes = len(self._source) // (config.episode_length * config.batch_size)
        self.shape: tuple[int, ...] | None = None
        self.dtype = "float32"
        if self._generator is not None:
            # Known without the cost of generating one.
            self.shape = (*self._generator.shape, 2)
            where = f"scheduler_class {config.scheduler_class!r}"
            bounds = self._generator.slowest, self._generator.fastest
            self.report(remarks_on_speeds(config, *bounds, where=where))
            self.report(self._generator.remarks())
        else:
            first = self.read(0)
            assert first.flow_field is not None
            self.shape, self.dtype = first.flow_field.shape, str(first.flow_field.dtype)
            if not self._own:
                self._contents = self._digest_contents(first)
            self.report(first.remarks)

    def __len__(self) -> int:
        return len(self._source)

    def memory(self, count: int) -> Float[np.ndarray, "count h w 2"] | None:
        """Return memory for the fields of some records; None unless the host generates them."""
        if self._on_host is None:
            return None
        assert self.shape is not None
        return aligned((count, *self.shape), np.dtype(np.float32))

    def read(self, number: int, *, out: Float[np.ndarray, "h w 2"] | None = None) -> Record:
        """Read record `number`.

        Args:
            number: Number of the record.
            out: A part of what `memory` returned, for its field.

        Raises:
            ValueError: The record has another shape than the first, is not finite, or is not what
                the contract asks for.
            Exception: What reading it raised, with a note that names the record.
        """
        if self._on_device:
            return Record(None, None, f"{self.config.scheduler_class}://{number}", repeated=False)
        if self._on_host is not None:
            flow_field = self._on_host.generate(number, out=out)
            return Record(flow_field, None, f"{self._on_host.scheme}://{number}", repeated=False)
        if self._folder is not None and os.getcwd() != self._folder:
            raise RuntimeError(
                f"file_list has relative paths, and the working directory is no longer "
                f"{self._folder}: make them absolute, or go back there."
            )
        try:
            raw = self._read(number)
        except StopIteration as error:
            # As it is, it would end the iteration over the batches without a word.
            raise RuntimeError(
                f"{self._name(number)} ended an iteration while it was read: it holds nothing, or "
                "the source calls next() on an exhausted iterator."
            ) from error
        except Exception as error:
            error.add_note(f"{self._name(number)} could not be read.")
            raise
        name = str(raw.get("file", "")) if isinstance(raw, Mapping) else ""
        where = f"Record {number}" + (f" ({name})" if name else "")
        fields = raw if isinstance(raw, Mapping) else {"flow_fields": raw}
        if "flow_fields" not in fields:
            raise ValueError(f"{where} is a mapping without 'flow_fields': add the flow field.")
        if np.ma.is_masked(fields["flow_fields"]):
            raise ValueError(f"{where} is a masked array with masked values: fill or leave it out.")
        try:
            flow_field = np.asarray(fields["flow_fields"])
        except (TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"{where} is not an array of numbers: {error}") from error
        pixels = 1.0 if self.config.include_images else self.config.dt * self.config.resolution
        check_flow_field(flow_field, scale=pixels, where=where)
        images = None
        remarks = (
            ()
            if self._generator
            else (*remarks_on_flow_field(self.config, flow_field, where=where),)
        )
        if self.config.include_images:
            flow_field, images = self._serve(flow_field, fields, where)
            remarks += (*remarks_on_image(images[0], where=where),)
        if self.shape is not None and flow_field.shape != self.shape:
            raise ValueError(
                f"{where} has shape {flow_field.shape}, the first record has {self.shape}: "
                "all flow fields must have one shape."
            )
        name = name or f"record://{number}"
        return Record(flow_field, images, name, _is_repeated(fields), remarks)

    def report(self, remarks: Iterable[Remark]) -> None:
        """Warn of remarks on records, once for each kind; call it in the thread of the user.

        Warns:
            PhysicsWarning: A kind of remark is new.
        """
        self._reporter.report(remarks)

    @property
    def quick(self) -> bool:
        """True if flow fields are generated as fast as rendered; synthpix's own take far longer."""
        return self._on_device or self._on_host is not None

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """The remarks that were reported, one for each kind."""
        return tuple(self._reporter.reported.values())

    @property
    def name_in_grain(self) -> str:
        """Name of these records in the checkpoints of synthpix."""
        return repr(self._source) if self._generator is None else self._generator.name_in_grain

    def identity(self) -> dict[str, str]:
        """Describe these records without paths, so that moved data keep their identity."""
        if self._generator is not None:
            names = str(self.config.scheduler_class)
        elif self._own:
            given = getattr(self._source, "fingerprint", None)
            names = short(given if isinstance(given, str) else type(self._source).__qualname__)
        else:
            names = digest_names(self._source.file_list)
        contents = {"contents": self._contents} if self._contents else {}
        return {
            "records": str(len(self)),
            "names": names,
            **contents,
            "flow field shape": short(self.shape),
            "flow field dtype": self.dtype,
        }

    def _digest_contents(self, first: Record) -> str:
        """Digest the first record as it was read, and samples of the files."""
        arrays = first.images if self.config.include_images else (first.flow_field,)
        # What synthpix has resized may have other bits with other versions of Pillow.
        resized = self._exact and self.config.include_images
        digests = [] if resized or arrays is None else [digest_array(array) for array in arrays]
        return short([digest_contents(self._source.file_list), *digests])

    def _name(self, number: int) -> str:
        """Name a record that could not be read."""
        files: Any = getattr(self._source, "file_list", None)
        if isinstance(self._source, EpisodicDataSource):
            files = [file for file, *_ in self._source._interleaved_files]
        return f"Record {number}" + ("" if self._own or files is None else f" ({files[number]})")

    def _read(self, number: int) -> Any:
        for _ in range(_ATTEMPTS):
            try:
                return self._source[number]
            except SystemError as error:
                # Before 3.11.8 CPython loses count when two threads parse at once, as np.load does
                # with each header. The record is not at fault, and reading it again is harmless.
                if "recursion depth mismatch" not in str(error):
                    raise
        return self._source[number]

    def _serve(
        self, flow_field: np.ndarray, fields: Mapping[str, Any], where: str
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Return the labels and the image pair of a recorded pair."""
        first, second = np.asarray(fields["images1"]), np.asarray(fields["images2"])
        if self._frame is None and not self._exact:
            self._frame = Frame(self.config, first.shape, where=where)
            self.config = replace(self.config, image_shape=self._frame.shape)
        shape = self.config.image_shape if self._frame is None else self._frame.recorded
        for image in (first, second):
            # Resizing overshoots at edges.
            bound = self._brightest * (2 if self._exact and image.dtype.kind == "f" else 1)
            check_image(image, shape, brightest=bound, where=where)
        if self._frame is None:
            return flow_field, (first, second)
        frame = self._frame
        return frame.labels(flow_field), (frame.crop(first), frame.crop(second))


def _is_repeated(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("_is_padding", False))


def _check_length(source: Any) -> None:
    try:
        count = len(source)
    except OverflowError:
        count = LARGEST_COUNT + 1
    if count == 0:
        raise ValueError("The source of flow fields is empty: it needs at least one record.")
    if count > LARGEST_COUNT:
        raise ValueError(
            f"The source of flow fields has more than {LARGEST_COUNT} records: shorten it."
        )


def _checked(source: Any) -> Any:
    if not isinstance(source, FlowFieldSource):
        raise TypeError(
            f"source must have __len__ and __getitem__, {type(source).__name__} has not: pass an "
            "array, a list or a map-style dataset."
        )
    return source
