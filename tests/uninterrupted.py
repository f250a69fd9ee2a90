"""Runs every kind of pipeline in a process of its own and writes the digests of its batches.

python tests/uninterrupted.py DATA OUTPUT
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinds import KINDS
from oracle import digest

from synthpix_torch import SynthPixDataset

COUNT = 17


def passes(dataset: SynthPixDataset) -> Iterator[Any]:
    """Batches of pass after pass."""
    while True:
        yield from dataset


def main(data: Path, output: Path) -> None:
    digests = {}
    for kind, config in KINDS.items():
        with SynthPixDataset(config(data)) as dataset:
            digests[kind] = [
                digest(batch) for batch, _ in zip(passes(dataset), range(COUNT), strict=False)
            ]
    output.write_text(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
