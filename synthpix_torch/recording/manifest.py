"""The manifest of a recording: what it holds, how it was made, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from synthpix_torch.files import write_atomically

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PLAN: Final = "plan.json"
STORAGE: Final = ("given", "uint8", "uint16")

# A manifest of 1,000 batches has less than 100 KiB; this is ten million.
_LARGEST: Final = 2**30


class RecordingError(RuntimeError):
    """A recording is incomplete, corrupt, or differs from the batches that are made again."""


class Shard(NamedTuple):
    """A part of a recording.

    Attributes:
        first: Number of its first batch.
        pairs: Number of image pairs in each of its batches.
        sha256: Checksum of its file; None without data.
        digests: Digest of each batch; None with data.
    """

    first: int
    pairs: list[int]
    sha256: str | None
    digests: list[str] | None


class Plan(NamedTuple):
    """The content of a recording, fixed before its first batch is made.

    Attributes:
        data: Whether the pairs are stored, or only the digests of their batches.
        images: How grey levels are stored: "given", "uint8" or "uint16".
        first: Number of the first batch.
        stop: Number of the first batch that is not recorded.
        shard_batches: Batches in a shard; the last may have fewer.
        fingerprint: Of the stream, as in the state of a dataset.
        recipe: Configuration and arguments of the dataset.
        units: Of grey levels and flow fields.
    """

    data: bool
    images: str
    first: int
    stop: int
    shard_batches: int
    fingerprint: str
    recipe: dict[str, Any]
    units: dict[str, str]

    @property
    def shards(self) -> list[range]:
        """The batches of each shard."""
        return [
            range(first, min(first + self.shard_batches, self.stop))
            for first in range(self.first, self.stop, self.shard_batches)
        ]


class Manifest(NamedTuple):
    """A complete recording.

    Attributes:
        plan: What it holds.
        made_with: Versions and hardware that made it.
        shards: Its parts in the order of their batches.
    """

    plan: Plan
    made_with: dict[str, str]
    shards: list[Shard]


def shard_path(folder: Path, index: int) -> Path:
    """Return the file of a shard with data."""
    return folder / "shards" / f"{index:06}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with which a recording is complete."""
    write_json(
        folder / MANIFEST,
        {
            "plan": manifest.plan._asdict(),
            "made_with": manifest.made_with,
            "shards": [shard._asdict() for shard in manifest.shards],
        },
    )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a complete recording.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no recording.
        RecordingError: The recording is incomplete, or its manifest is corrupt.
    """
    if not (folder / MANIFEST).exists():
        if (folder / PLAN).exists():
            plan = read_plan(folder)
            missing = sum(
                not done_path(folder, index).exists() for index in range(len(plan.shards))
            )
            raise RecordingError(
                f"The recording {folder} is incomplete, {missing} of {len(plan.shards)} shards are "
                "missing: call record again with the same arguments to finish it."
            )
        raise FileNotFoundError(f"{folder} holds no recording: there is no {MANIFEST} in it.")
    content = read_json(folder / MANIFEST)
    try:
        return Manifest(
            Plan(**content["plan"]),
            dict(content["made_with"]),
            [Shard(**shard) for shard in content["shards"]],
        )
    except (TypeError, KeyError) as error:
        raise RecordingError(f"{folder / MANIFEST} is not a manifest: {error}.") from None


def read_plan(folder: Path) -> Plan:
    """Read the plan of an unfinished recording.

    Raises:
        RecordingError: The plan is corrupt.
    """
    try:
        return Plan(**read_json(folder / PLAN))
    except TypeError as error:
        raise RecordingError(f"{folder / PLAN} is not a plan: {error}.") from None


def done_path(folder: Path, index: int) -> Path:
    """Return the file that says that a shard is complete; it holds its entry in the manifest."""
    return folder / "shards" / f"{index:06}.json"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with a checksum of its content, atomically."""
    checked = {"format": FORMAT, "sha256": _checksum(content), "content": content}
    text = json.dumps(checked, indent=1).encode()

    def write(unfinished: Path) -> None:
        unfinished.write_bytes(text)

    write_atomically(path, write)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` wrote.

    Raises:
        RecordingError: It is not one, it was changed, or a newer version wrote it.
    """
    if path.stat().st_size > _LARGEST:
        raise RecordingError(f"{path} is not part of a recording: it has over 1 GiB.")
    try:
        whole = json.loads(path.read_bytes())
        version, checksum, content = whole["format"], whole["sha256"], whole["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordingError(
            f"{path} is not part of a recording, or it is corrupt: restore it from a copy."
        ) from None
    if version != FORMAT:
        raise RecordingError(
            f"{path} has format {version}, this version of synthpix_torch reads {FORMAT}: "
            "install the version that wrote it."
        )
    if checksum != _checksum(content):
        raise RecordingError(f"{path} was changed: restore it from a copy.")
    return dict(content)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
