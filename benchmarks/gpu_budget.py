"""Count what an H100 would do, on a machine without a GPU: python -m benchmarks.gpu_budget.

XLA compiles for an H100 without one. The page lists launches, bytes, atomics and temporary memory
of the compiled programs, and a model of their time. Needs an environment with JAX's CUDA plugin,
for example that of synthpix_torch[cuda12]; takes about ten seconds per program.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from synthpix.data_generate import generate_images_from_flow

from benchmarks.gpu_program import Kernel, Program, read_program
from benchmarks.h100 import (
    BYTES_PER_SECOND,
    CLOCK,
    L2_SLICES,
    MULTIPROCESSORS,
    compile_into,
    device,
)
from benchmarks.pipelines import kinematic
from benchmarks.report import command_line, table, write
from synthpix_torch.config.reading import read_config
from synthpix_torch.render.output import Appearance
from synthpix_torch.render.programs import Loaded
from synthpix_torch.render.step import Renderer
from synthpix_torch.render.synthpix_geometry import geometry

FLOW_FIELDS: Final = 8
"""Flow fields of a batch of `step` and of synthpix's function; `adapt` and `fields` make one for
each pair."""

LAUNCH: Final = 1.5e-6
"""Assumed seconds from the end of a kernel to the begin of the next in a CUDA graph."""

PER_CLOCK: Final = {"special": 16, "memory": 32, "integer": 64}
"""Assumed instructions per clock and multiprocessor by kind, and `ALL` of any kind."""

ALL: Final = 128

PROGRAMS: Final = ("step", "adapt", "fields", "synthpix")


class Seconds(NamedTuple):
    """The modelled time of a program: if atomics cost only their issue, and if they are slow."""

    least: float
    most: float


class Counted(NamedTuple):
    """The counts of a compiled program, and the bytes of its temporary memory."""

    program: Program
    temporary: int


def count(name: str, *, size: int, batch: int) -> Counted:
    """Compile one of `PROGRAMS` for an H100 and count what it does."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_into(Path(folder), *_program(name, size=size, batch=batch))
        memory = compiled.memory_analysis()
        assert memory is not None
        return Counted(read_program(Path(folder)), memory.temp_size_in_bytes)


def _program(name: str, *, size: int, batch: int) -> tuple[Any, ...]:
    """Return a jitted function and the shapes of its arguments."""
    fields = batch if name in ("adapt", "fields") else min(batch, FLOW_FIELDS)
    config = read_config(
        kinematic(
            size,
            batch_size=batch,
            flow_fields_per_batch=fields,
            # A flow batch of one batch leaves its labels to it; the step makes those of several.
            batches_per_flow_batch=1 if fields == batch else 4,
            scheduler_class="kinematic-device",
        )
    )
    height, width = config.flow_field_size
    shape = (int(height), int(width), 2)
    fields_shape: Any = jax.ShapeDtypeStruct((fields, *shape), jnp.float32)
    if name == "synthpix":
        # The geometry is computed, not compiled.
        place = geometry(config, shape, jax.devices("cpu")[0])
        generate = partial(
            generate_images_from_flow,
            parameters=place.specification,
            position_bounds=place.position_bounds,
            flow_field_res_x=place.grid_steps[1],
            flow_field_res_y=place.grid_steps[0],
        )
        moving = jax.ShapeDtypeStruct((fields, *place.position_bounds, 2), jnp.float32)
        return jax.jit(generate), jax.ShapeDtypeStruct((2,), jnp.uint32), moving
    programs = Renderer(config, shape, appearance=Appearance(), device=device()).programs
    records: Any = jax.ShapeDtypeStruct((3, fields), jnp.int32)
    if name == "adapt":
        return programs.adapt, fields_shape, records
    if name == "fields":
        return programs.generate, jax.ShapeDtypeStruct((2, fields), jnp.uint32), records
    labels, _ = jax.eval_shape(programs.adapt, fields_shape, records)
    pairs: Any = jax.ShapeDtypeStruct((3, batch), jnp.uint32)
    loaded = Loaded(labels, fields_shape, None, records, pairs)
    last = jax.ShapeDtypeStruct((), jnp.bool_)
    return programs.step, loaded, jax.ShapeDtypeStruct((), jnp.int32), last


def modelled(program: Program) -> Seconds:
    """Sum the time of all kernels: the longer of memory and instructions, and the launch."""
    least = most = 0.0
    for kernel in program.kernels:
        work = max(kernel.moved / BYTES_PER_SECOND, _issue(kernel))
        atomics = kernel.threads * kernel.instructions["atomic"] / (L2_SLICES * CLOCK)
        least += kernel.times * (LAUNCH + work)
        most += kernel.times * (LAUNCH + max(work, atomics))
    return Seconds(least, most)


def _issue(kernel: Kernel) -> float:
    """Return the seconds that the instructions of a kernel take to issue."""
    kinds = kernel.instructions
    clocks = (kinds.total() - kinds["atomic"]) / ALL
    clocks = max(clocks, *(kinds[kind] / each for kind, each in PER_CLOCK.items()))
    return kernel.threads * clocks / (MULTIPROCESSORS * CLOCK)


def _row(name: str, size: int, batch: int, counted: Counted) -> list[object]:
    program, time = counted.program, modelled(counted.program)
    kinds = program.kinds_of_atomics
    return [
        *(size, batch, name, program.launches, program.parts),
        f"{program.moved / 1e6:.0f}",
        f"{program.atomics / 1e6:.1f}",
        "yes" if any(".cas." in kind for kind in kinds) else "no",
        f"{counted.temporary / 2**20:.0f}",
        f"{time.least * 1e6:.0f} to {time.most * 1e6:.0f}",
    ]


def _thousands(least: float, most: float) -> str:
    return f"{least / 1e3:.0f} to {most / 1e3:.0f}"


def _speed(size: int, batch: int, times: dict[str, Seconds]) -> list[object]:
    """Return thousands of pairs per second: kept flow fields, new ones, and synthpix's."""
    alone, fields = times["step"], times["fields"]
    return [
        *(size, batch),
        _thousands(batch / alone.most, batch / alone.least),
        _thousands(batch / (alone.most + fields.most), batch / (alone.least + fields.least)),
        f"{batch / times['synthpix'].least / 1e3:.0f}",
        f"{times['synthpix'].least / alone.most:.1f}",
    ]


ASSUMPTIONS = f"""Nothing here was run on a GPU. Counts are exact for the compiled programs, but
static: no early exits, no repetition inside a kernel, no cache. The model of the time:

- A kernel takes the longer of its bytes at {BYTES_PER_SECOND / 1e12} TB/s and its PTX instructions
  at {CLOCK / 1e9} GHz on {MULTIPROCESSORS} multiprocessors, which issue {ALL} a clock, at most
  {PER_CLOCK["integer"]} of integers, {PER_CLOCK["memory"]} of memory and {PER_CLOCK["special"]}
  special functions. PTX stands for machine instructions.
- Launches are sequential, {LAUNCH * 1e6} us each, as in a CUDA graph. Launches outside of graphs
  take longer, and the host's time is not counted.
- Atomics cost their issue alone (the shorter time), or one addition per clock in each of
  {L2_SLICES} slices of the L2 cache (the longer). Contention is not modelled, so the time of
  compare-and-swap loops is a lower bound."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    options = parser.parse_args(arguments)
    # JAX's CUDA plugin would look for a driver, and programs for no device cannot be cached.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    rows, speeds = [], []
    for size in options.sizes:
        for batch in options.batch_sizes:
            times = {}
            for name in PROGRAMS:
                counted = count(name, size=size, batch=batch)
                times[name] = modelled(counted.program)
                rows.append(_row(name, size, batch, counted))
                # In case the run is interrupted.
                print(*rows[-1], sep=" | ", flush=True)
            speeds.append(_speed(size, batch, times))
    head = ["image, px", "pairs", "program", "launches", "graphs and loops", "MB moved"]
    head += ["atomics, million", "compare-and-swap", "temporary, MiB", "us (model)"]
    body = "Compiled for an NVIDIA H100 80GB HBM3 (sm_90a).\n\n" + table(head, rows)
    body += "\n\n`step` renders a batch from 8 flow fields on the device, as does `synthpix`, its "
    body += "`generate_images_from_flow`; `adapt` and `fields` (kinematic-device) prepare a flow "
    body += "field for each pair.\n\n"
    head = ["image, px", "pairs", "8 kept fields", "a new field from the device for each pair"]
    head += ["synthpix's function, at most", "times synthpix, at least"]
    body += f"Thousands of pairs per second by the model:\n\n{table(head, speeds)}\n\n{ASSUMPTIONS}"
    write("gpu_budget", "What an H100 would do", body, folder=options.output)


if __name__ == "__main__":
    main()
