"""`Recording`: the pairs of a recording as a map-style dataset."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, overload

import torch
from jaxtyping import Bool, Float
from torch.utils.data import Dataset, Subset

from synthpix_torch.arguments import rebuilding
from synthpix_torch.batch import Batch, ImageParameters
from synthpix_torch.dataset import SynthPixDataset
from synthpix_torch.extra import import_extra
from synthpix_torch.recording.batches import decode, digest
from synthpix_torch.recording.export import export
from synthpix_torch.recording.manifest import (
    RecordingError,
    file_digest,
    read_manifest,
    shard_path,
)

Key = TypeVar("Key")
Value = TypeVar("Value")

# Open files, or batches made again.
_KEPT: Final = 16


class Pair(NamedTuple):
    """An image pair of a recording; default collation makes batches of the same names.

    Attributes:
        images: The pair as channels, on the grey scale of the dataset that was recorded.
        flow_fields: The displacement from the first image to the second in pixels, or the velocity
            in the configured unit; channel 0 to the right, channel 1 down.
        valid_flow_mask: False where a body covers the flow field.
        number: Number of its batch in the stream.
        slot: Its place in that batch.
    """

    images: Float[torch.Tensor, "2 h w"]
    flow_fields: Float[torch.Tensor, "2 y x"]
    valid_flow_mask: Bool[torch.Tensor, "y x"]
    number: int
    slot: int


class Recording(Dataset[Pair]):
    """The pairs of a recording, in the order of the stream, with the bits of the dataset.

        validation = Recording("recordings/validation")
        for batch in DataLoader(validation, batch_size=16, num_workers=4):
            batch.images, batch.flow_fields

    Pairs are read at random without reading others, in any number of threads and worker processes.
    A recording without data makes its batches again, in this process only, and compares each with
    its digest. Two recordings are mixed by `torch.utils.data.ConcatDataset`, a recording and a
    stream by torchdata (docs/recordings.md).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        """Open a recording.

        Args:
            folder: Folder of a complete recording.
            config: Keys of the configuration to change, such as `file_list` for moved data; only
                for a recording without data.
            **arguments: Arguments of the dataset to change, such as `device` or `source`; only for
                a recording without data.

        Raises:
            FileNotFoundError: There is no recording.
            RecordingError: The recording is incomplete or corrupt.
            ImportError: safetensors is missing: install the extra `recordings`.
            ValueError: `config` or `arguments` are given for a recording with data.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        plan = self.manifest.plan
        self._scale = 1.0 if plan.recipe["arguments"]["scale_images"] else 255.0
        counts = [count for shard in self.manifest.shards for count in shard.pairs]
        # Index of the first pair after each batch.
        self._ends = list(accumulate(counts))
        self._ends_of_shards = list(accumulate(sum(shard.pairs) for shard in self.manifest.shards))
        self._digests = [one for shard in self.manifest.shards for one in shard.digests or ()]
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._dataset: SynthPixDataset | None = None
        if plan.data:
            if config or arguments:
                raise ValueError(
                    "A recording with data is read as it is: leave out "
                    f"{', '.join([*(['config'] if config else []), *arguments])}."
                )
            import_extra("safetensors")
            for index in range(len(self.manifest.shards)):
                if not shard_path(self.folder, index).is_file():
                    raise RecordingError(
                        f"{shard_path(self.folder, index)} is missing: restore it from a copy."
                    )
        else:
            self._dataset = self._build(config or {}, arguments)

    def _build(self, config: Mapping[str, Any], arguments: dict[str, Any]) -> SynthPixDataset:
        plan = self.manifest.plan
        keys, options = rebuilding(
            plan.recipe, config=config, arguments=arguments, place="recording"
        )
        dataset = SynthPixDataset(keys, **options)
        found = dataset.state_dict()["fingerprint"]
        if found != plan.fingerprint:
            changed = sorted(set(found.split("|")) ^ set(plan.fingerprint.split("|")))
            raise RecordingError(
                f"This dataset makes other batches than {self.folder} recorded; it differs in "
                f"{', '.join(changed)}. Use the data and the version that made the recording."
            )
        return dataset

    def __len__(self) -> int:
        """Count the pairs."""
        return self._ends[-1]

    def __repr__(self) -> str:
        plan = self.manifest.plan
        content = f"images as {plan.images}" if plan.data else "digests only"
        return (
            f"Recording({str(self.folder)!r}: {len(self)} pairs of batches {plan.first} to "
            f"{plan.stop - 1}, {content})"
        )

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Subset[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Subset[Pair]:
        """Read one pair, or choose a range of pairs without reading them.

        Raises:
            IndexError: There is no such pair.
            RecordingError: A batch that was made again differs from its digest.
            RuntimeError: A recording without data is used in a worker process of a DataLoader.
        """
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"The recording has {len(self)} pairs, there is no pair {index}.")
        index = range(len(self))[index]
        return self._read(index) if self._dataset is None else self._make(index)

    def _read(self, index: int) -> Pair:
        shard, row = self._locate(index)
        file = self._file(shard)
        images, flow_fields, number, slot = (
            file.get_slice(name)[row : row + 1][0]
            for name in ("images", "flow_fields", "number", "slot")
        )
        valid = torch.ones((), dtype=torch.bool).expand(flow_fields.shape[1:])
        if "valid_flow_mask" in file.keys():  # noqa: SIM118, it is no mapping
            valid = file.get_slice("valid_flow_mask")[row : row + 1][0]
        images = decode(images, self.manifest.plan.images, self._scale)
        return Pair(images, flow_fields, valid, int(number), int(slot))

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the shard of a pair and its row there."""
        shard = bisect_right(self._ends_of_shards, index)
        return shard, index - (self._ends_of_shards[shard - 1] if shard else 0)

    def _file(self, shard: int) -> Any:
        # A file opened before a fork is not shared with the child.
        return self._keep((os.getpid(), shard), lambda _: self._open(shard))

    def _open(self, shard: int) -> Any:
        path = shard_path(self.folder, shard)
        safetensors = import_extra("safetensors")
        try:
            return safetensors.safe_open(path, framework="pt")
        except safetensors.SafetensorError as error:
            raise RecordingError(f"{path} is corrupt ({error}): restore it from a copy.") from None

    def _make(self, index: int) -> Pair:
        place = bisect_right(self._ends, index)
        number = self.manifest.plan.first + place
        batch = self._keep(number, self._make_batch)
        slot = int(batch.mask.nonzero()[index - (self._ends[place - 1] if place else 0), 0])
        valid = batch.valid_flow_mask
        if valid is None:
            valid = torch.ones((), dtype=torch.bool).expand(batch.flow_fields[:, 0].shape)
        return Pair(
            batch.images[slot].clone(),
            batch.flow_fields[slot].clone(),
            valid[slot],
            number,
            slot,
        )

    def _make_batch(self, number: int) -> Batch:
        assert self._dataset is not None
        batch = self._dataset.batch_at(number)
        if digest(batch) != self._digests[number - self.manifest.plan.first]:
            raise RecordingError(f"{self._difference(number)}.")
        return batch

    def _difference(self, number: int) -> str:
        assert self._dataset is not None
        theirs, ours = self.manifest.made_with, self._dataset.stream.description.made_with
        other = [
            f"{name} {theirs[name]} there and {ours.get(name)} here"
            for name in theirs
            if theirs[name] != ours.get(name)
        ]
        cause = f" (made with {', '.join(other)})" if other else ""
        return f"batch {number} differs from the recording{cause}"

    def _keep(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """Return a value that was made lately, or make it."""
        value: Value
        try:
            value = self._kept[key]
        except KeyError:
            value = make(key)
            self._kept[key] = value
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return value

    def batch_at(self, number: int) -> Batch:
        """Read a batch of the stream again, without its empty slots; the names of files are "".

        Raises:
            ValueError: The recording has no such batch.
            RecordingError: A batch that was made again differs from its digest.
        """
        plan = self.manifest.plan
        if not plan.first <= number < plan.stop:
            raise ValueError(
                f"The recording has batches {plan.first} to {plan.stop - 1}, not {number}."
            )
        if self._dataset is not None:
            return self._keep(number, self._make_batch)
        place = number - plan.first
        begin = self._ends[place - 1] if place else 0
        shard, first = self._locate(begin) if begin < len(self) else (0, 0)
        file = self._file(shard)
        stored = {
            name: file.get_slice(name)[first : first + self._ends[place] - begin]
            for name in file.keys()  # noqa: SIM118, it is no mapping
        }
        params = {
            name: stored[f"params.{name}"]
            for name in ImageParameters._fields
            if f"params.{name}" in stored
        }
        return Batch(
            images=decode(stored["images"], plan.images, self._scale),
            flow_fields=stored["flow_fields"],
            mask=torch.ones(len(stored["slot"]), dtype=torch.bool),
            epoch=stored["epoch"],
            seeds=stored["seeds"],
            keys=stored["keys"].view(torch.uint32),
            params=ImageParameters(**params) if params else None,
            done=None,
            files=("",) * len(stored["slot"]),
            number=number,
            valid_flow_mask=stored.get("valid_flow_mask"),
        )

    @property
    def batches(self) -> RecordedBatches:
        """The batches as a map-style dataset, for a DataLoader with batch_size=None."""
        return RecordedBatches(self)

    def verify(self) -> list[str]:
        """Read every byte, or make every batch again, and return what is wrong, one line each.

        A recording without data reports batches that differ, and the hardware and versions that
        differ from those that made it.
        """
        faults = []
        if self._dataset is not None:
            for place, expected in enumerate(self._digests):
                number = self.manifest.plan.first + place
                if digest(self._dataset.batch_at(number)) != expected:
                    faults.append(self._difference(number))
            return faults
        for index, shard in enumerate(self.manifest.shards):
            path = shard_path(self.folder, index)
            try:
                if file_digest(path) != shard.sha256:
                    faults.append(f"{path} was changed")
            except OSError as error:
                faults.append(str(error))
        return faults

    def export(self, path: str | os.PathLike[str], *, form: str) -> None:
        """Write the pairs in a format of other programs.

        Args:
            path: File ("hdf5") or folder (else) to write, which must not exist.
            form: "hdf5": one file, chunked by pair, compressed, with units and the configuration as
                attributes; "flo": for each pair `<n>_img1.tif`, `<n>_img2.tif` (16 bits, 257 for
                each grey level of 255) and `<n>_flow.flo`; "npz": a file for each shard.

        Raises:
            ValueError: There is no such format, or `path` exists.
            ImportError: h5py or tifffile is missing: install the extra `recordings`.
        """
        export(self, self.manifest, Path(path), form=form)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}


class RecordedBatches(Dataset[Batch]):
    """The batches of a recording; see `Recording.batches`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __len__(self) -> int:
        """Count the batches."""
        plan = self._recording.manifest.plan
        return plan.stop - plan.first

    def __getitem__(self, index: int) -> Batch:
        """Read a batch.

        Raises:
            IndexError: There is no such batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"The recording has {len(self)} batches, there is no batch {index}.")
        return self._recording.batch_at(self._recording.manifest.plan.first + index)
