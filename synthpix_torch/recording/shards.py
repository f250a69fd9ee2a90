"""Write a shard in the format of safetensors, part by part, while its checksum is computed.

The package's own writer would need all tensors in one piece, and the file read again for the
checksum. The format: 8 bytes with the length of a JSON header, the header, the bytes of the tensors
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

DTYPES: Final = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_shard(
    path: Path, parts: Sequence[Mapping[str, torch.Tensor]], metadata: Mapping[str, str]
) -> str:
    """Write tensors that come in parts, and return the SHA-256 of the file.

    Args:
        path: The file.
        parts: Tensors on the CPU, contiguous, of the same names in each part; those of a name are
            joined along their first dimension.
        metadata: Stored in the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # The largest items first, so that all are aligned.
    names = sorted(parts[0], key=lambda name: (-parts[0][name].itemsize, name))
    end = 0
    for name in names:
        first, begin = parts[0][name], end
        end += sum(part[name].nbytes for part in parts)
        shape = [sum(len(part[name]) for part in parts), *first.shape[1:]]
        header[name] = {
            "dtype": DTYPES[first.dtype],
            "shape": shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    total = hashlib.sha256()
    with path.open("wb") as file:
        for content in (memoryview(len(text).to_bytes(8, "little")), memoryview(text)):
            file.write(content)
            total.update(content)
        for name in names:
            for part in parts:
                content = part[name].flatten().view(torch.uint8).numpy().data
                file.write(content)
                total.update(content)
    return total.hexdigest()
