"""Write the golden files of the installed version: python tests/golden/write.py.

The folder is named after the version; files of released versions are never written again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from kinds import KINDS, RESIZED, base, few, write_all  # noqa: E402
from oracle import digest  # noqa: E402

from synthpix_torch import Batch, Checkpointer, RandomState, SynthPixDataset  # noqa: E402

NUMBERS = (0, 1, 2)
POSITION = 2
RENDERERS = ("particles", "synthpix")


def cpu_features() -> list[str]:
    """Instruction sets of this processor that XLA compiles for."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next((line.split()[2:] for line in text.splitlines() if line.startswith("flags")), [])
    return sorted(flag for flag in flags if flag.startswith(("avx", "fma", "amx")))


def environment() -> dict[str, object]:
    """Describe everything that the last bits of rendered images depend on."""
    return {
        **{name: version(name) for name in ("jaxlib", "numpy", "scipy", "synthpix")},
        "cpu": cpu_features(),
    }


def bits(batch: Batch, data: Path) -> str:
    """Digest a batch, with the names of files relative to the folder of the data."""
    return digest(batch._replace(files=tuple(file.replace(f"{data}/", "") for file in batch.files)))


def collect(data: Path) -> dict[str, dict[str, object]]:
    """State and digests of some batches of every kind, by "renderer: kind"."""
    found: dict[str, dict[str, object]] = {}
    for renderer in RENDERERS:
        kinds = KINDS | RESIZED if renderer == "synthpix" else KINDS
        for kind, config in kinds.items():
            if renderer == "synthpix" and "device" in kind:
                continue
            with SynthPixDataset(config(data), renderer=renderer) as dataset:
                dataset.seek(POSITION)
                found[f"{renderer}: {kind}"] = {
                    "state": dataset.state_dict(),
                    "digests": [bits(dataset.batch_at(number), data) for number in NUMBERS],
                }
    return found


def write_checkpoints(folder: Path) -> None:
    """Two steps with a dataset of synthpix's bits, a model, an optimizer and random states."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with (
        SynthPixDataset(base(**few), renderer="synthpix") as dataset,
        Checkpointer(folder) as checkpoints,
    ):
        checkpoints.register(data=dataset, model=model, optimizer=optimizer, random=RandomState())
        for step in (1, 2):
            dataset.seek(POSITION + step)
            checkpoints.save(step)


def main() -> None:
    folder = HERE / version("synthpix_torch")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        write_all(Path(data))
        content = {"environment": environment(), "kinds": collect(Path(data))}
    (folder / "streams.json").write_text(json.dumps(content, indent=1) + "\n")
    write_checkpoints(folder / "checkpoints")


if __name__ == "__main__":
    main()
