"""Recordings in the formats of other programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch

from synthpix_torch.data.formats.flo import write_flow
from synthpix_torch.extra import import_extra
from synthpix_torch.recording.batches import encode
from synthpix_torch.recording.manifest import Manifest


class Pairs(Protocol):
    """A sequence of `Pair`s, such as a `Recording`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def export(pairs: Pairs, manifest: Manifest, path: Path, *, form: str) -> None:
    """Write pairs to a new file or folder, which appears when it is complete.

    Args:
        pairs: The pairs of a recording.
        manifest: Its manifest.
        path: File or folder to write.
        form: A name in `FORMS`.

    Raises:
        ValueError: There is no such format, or `path` exists.
        ImportError: A package is missing.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}.")
    if path.exists():
        raise ValueError(f"{path} exists: choose another name.")
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        FORMS[form](pairs, manifest, unfinished)
        os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)


def _write_hdf5(pairs: Pairs, manifest: Manifest, path: Path) -> None:
    h5py = import_extra("h5py")
    with h5py.File(path, "w") as file:
        about = {**manifest.made_with, "fingerprint": manifest.plan.fingerprint}
        about["configuration"] = json.dumps(manifest.plan.recipe["config"])
        file.attrs.update(about)
        for name in ("images", "flow_fields", "valid_flow_mask"):
            first = getattr(pairs[0], name).numpy()
            stored = file.create_dataset(
                name,
                (len(pairs), *first.shape),
                first.dtype,
                chunks=(1, *first.shape),
                compression="gzip",
                shuffle=True,
            )
            if name in manifest.plan.units:
                stored.attrs["unit"] = manifest.plan.units[name]
        file["images"].attrs["axes"] = "pair, image, y, x"
        file["flow_fields"].attrs["axes"] = "pair, (to the right, down), y, x"
        for index in range(len(pairs)):
            pair = pairs[index]
            for name in ("images", "flow_fields", "valid_flow_mask"):
                file[name][index] = getattr(pair, name).numpy()


def _write_flo(pairs: Pairs, manifest: Manifest, folder: Path) -> None:
    tifffile = import_extra("tifffile")
    folder.mkdir(parents=True)
    scale = 1.0 if manifest.plan.units["images"] == "0 to 1" else 255.0
    digits = len(str(len(pairs) - 1))
    for index in range(len(pairs)):
        pair = pairs[index]
        name = f"{index:0{digits}}"
        levels = encode(pair.images, "uint16", scale)
        for which, image in enumerate(levels.numpy(), 1):
            tifffile.imwrite(folder / f"{name}_img{which}.tif", image)
        write_flow(folder / f"{name}_flow.flo", pair.flow_fields.permute(1, 2, 0).numpy())


def _write_npz(pairs: Pairs, manifest: Manifest, folder: Path) -> None:
    folder.mkdir(parents=True)
    first = 0
    for number, shard in enumerate(manifest.shards):
        part = [pairs[index] for index in range(first, first + sum(shard.pairs))]
        np.savez_compressed(
            folder / f"{number:06}.npz",
            images=torch.stack([pair.images for pair in part]).numpy(),
            flow_fields=torch.stack([pair.flow_fields for pair in part]).numpy(),
            valid_flow_mask=torch.stack([pair.valid_flow_mask for pair in part]).numpy(),
        )
        first += len(part)


FORMS: Final[dict[str, Callable[[Pairs, Manifest, Path], None]]] = {
    "hdf5": _write_hdf5,
    "flo": _write_flo,
    "npz": _write_npz,
}
"""Writers by name; the folder or file that they write does not exist yet."""
