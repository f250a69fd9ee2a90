"""Files of tensors in the format of safetensors, as pieces of memory to write one after another.

The package's own writer copies all tensors into one piece first. The format: 8 bytes with the
length of a JSON header, the header, the bytes of the tensors
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def pieces(
    tensors: Mapping[str, Sequence[torch.Tensor]], metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview]:
    """Return the content of a file; the pieces share the memory of the tensors.

    Args:
        tensors: Tensors on the CPU, contiguous, by name; those of a name are joined along their
            first dimension.
        metadata: Stored in the header.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    # The largest items first, so that all are aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    end = 0
    for name in names:
        parts, begin = tensors[name], end
        end += sum(part.nbytes for part in parts)
        header[name] = {
            "dtype": DTYPES[parts[0].dtype],
            "shape": [sum(len(part) for part in parts), *parts[0].shape[1:]],
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little"))
    yield memoryview(text)
    for name in names:
        for part in tensors[name]:
            yield memory(part)


def memory(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.flatten().view(torch.uint8).numpy().data
