"""Programs compiled for an H100 stay within a budget of launches and bytes.

The budget needs JAX's CUDA plugin and no GPU: docs/gpu.md has the environment.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest

from benchmarks.gpu_budget import count, modelled
from benchmarks.gpu_program import Program, read_program

HLO = """
%sliced (param_0: f32[1024], param_1: s32[]) -> (f32[16], f32[16]) {
  %param_0 = f32[1024]{0} parameter(0)
  %param_1 = s32[] parameter(1)
  %part = f32[16]{0} dynamic-slice(%param_0, %param_1), dynamic_slice_sizes={16}
  %half = f32[16]{0} multiply(%part, %part)
  ROOT %both = (f32[16]{0}, f32[16]{0}) tuple(%part, %half)
}

%body (state: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %state = (s32[], f32[1024]{0}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %values = f32[1024]{0} get-tuple-element(%state), index=1
  %add.1 = (f32[16]{0}, f32[16]{0}) fusion(%values, %number), kind=kLoop, calls=%sliced
  ROOT %next = (s32[], f32[1024]{0}) tuple(%number, %values)
}

ENTRY %main (x: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  %copy.1 = f32[1024]{0} copy(%x)
  %while.1 = (s32[], f32[1024]{0}) while(%start), condition=%test, body=%body, KNOWN
  ROOT %result = f32[1024]{0} get-tuple-element(%while.1), index=1
}
"""
KNOWN = 'backend_config={"known_trip_count":{"n":"3"}}'
LAUNCHES = """
001: kCopy         [source | next=002 (1)] kCopy
002: kWhile        [prev=001 (1) | sink]
condition:
    003: kCustomKernel [source | sink] compare grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0
  body:
    004: kCustomKernel [source | sink] add_1 grid: [2, 1, 1] threads: [128, 1, 1]  shared_memory: 0
"""
METADATA = "".join(
    f'thunk_info {{\n    profile_annotation: "{name}"\n    thunk_id: {number}\n}}\n'
    for number, name in enumerate(["copy.1", "while.1", "compare.1", "add.1"], 1)
)
PTX = """
.visible .entry add_1(
	.param .u64 add_1_param_0
)
.reqntid 128, 1, 1
{
	ld.global.nc.b32 	%r1, [%rd1];
	mul.rn.f32 	%f1, %f2, %f3;
	ex2.approx.f32 	%f4, %f1;
	add.s32 	%r2, %r1, 1;
	@%p1 bra 	$L__BB0_2;
	@%p2 red.global.add.f32 	[%rd2], %f4;
	ret;
}
"""


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    for name, text in {
        "m.sm_9.0a_gpu_after_optimizations.txt": HLO.replace("KNOWN", KNOWN),
        "m.thunk_sequence.txt": LAUNCHES,
        "m.thunk_metadata.txt": METADATA,
        "m.1.ptx": PTX,
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_launches_bytes_and_instructions_are_counted(dump: Path) -> None:
    program = read_program(dump)
    copy, kernel = program.kernels
    assert (copy.times, copy.moved, copy.threads) == (1, 2 * 4096, 0)
    # A slice and a number are read, two results written, three times.
    assert (kernel.times, kernel.moved, kernel.threads) == (3, 64 + 4 + 128, 256)
    once = dict.fromkeys(("atomic", "float", "special", "integer"), 1)
    assert kernel.instructions == {**once, "memory": 2, "other": 2}
    assert (program.launches, program.moved, program.atomics) == (4, 8192 + 3 * 196, 768)
    assert program.kinds_of_atomics == {"red.global.add.f32"}
    assert (program.parts, program.unknown_loops) == (2, [])
    assert "dynamic-slice" in program.opcodes


def test_a_loop_without_a_known_number_of_trips_is_named(dump: Path) -> None:
    (path,) = dump.glob("*optimizations.txt")
    path.write_text(HLO)
    assert read_program(dump).unknown_loops == ["while.1"]


@functools.cache
def compiled(name: str, batch: int) -> Program:
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        pytest.skip("needs JAX's CUDA plugin, and no GPU")
    return count(name, size=256, batch=batch).program


def check_exact(program: Program) -> None:
    """No float is added in the order of the threads, and no work depends on the data."""
    assert not [kind for kind in program.kinds_of_atomics if ".cas." in kind or ".f" in kind]
    assert not program.unknown_loops
    assert "sort" not in program.opcodes


@pytest.mark.long
@pytest.mark.parametrize(("batch", "launches", "megabytes"), [(64, 26, 400), (256, 32, 1555)])
def test_a_step_keeps_its_budget(batch: int, launches: int, megabytes: int) -> None:
    program = compiled("step", batch)
    check_exact(program)
    assert program.launches <= launches
    assert program.moved <= megabytes * 1e6
    assert program.parts == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["adapt", "fields"])
def test_flow_fields_keep_their_budget(name: str) -> None:
    program = compiled(name, 64)
    check_exact(program)
    launches, megabytes = {"adapt": (1, 90), "fields": (12, 330)}[name]
    assert program.launches <= launches
    assert program.moved <= megabytes * 1e6
    # Products would have an order of sums that the compiler chooses.
    assert not [kernel.name for kernel in program.kernels if "gemm" in kernel.name]


@pytest.mark.long
def test_the_model_is_slower_with_slow_atomics() -> None:
    time = modelled(compiled("step", 64))
    assert 1e-5 < time.least < time.most < 1e-2
