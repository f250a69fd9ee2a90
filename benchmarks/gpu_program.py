"""Count what a program compiled for a GPU does: launches, bytes, atomics and instructions.

Reads what XLA leaves in a folder (`h100.compile_into`): the optimized HLO, the PTX of each kernel,
and the sequence of launches. The counts are static: bytes are those of the operands and results of
each kernel (of slices, not of whole arrays), instructions are counted once whether or not a thread
takes their branch or repeats them in a loop.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8}
_SPECIAL = ("ex2", "lg2", "sin", "cos", "sqrt", "rsqrt", "rcp", "div", "tanh")
_MEMORY = ("ld", "st", "atom", "red")
_OTHER = ("mov", "bra", "ret", "bar", "cvta", "griddepcontrol")
_CONTAINERS = ("kCommandBuffer", "kSequential", "kDynamicSliceFusion", "kWhile")


class Kernel(NamedTuple):
    """The counts of one kernel or copy.

    Attributes:
        name: The HLO instruction.
        times: How often it is launched.
        moved: Bytes that one launch reads and writes.
        threads: Threads of one launch; 0 for copies.
        instructions: PTX instructions of a thread by kind: "float", "integer", "special",
            "memory", "other", and "atomic", which are counted as memory, too.
        atomics: The different atomic instructions.
    """

    name: str
    times: int
    moved: int
    threads: int
    instructions: Counter[str]
    atomics: frozenset[str]


class Program(NamedTuple):
    """The counts of a program.

    Attributes:
        kernels: Everything that is launched.
        parts: CUDA graphs, loops, and launches outside of both, in one call.
        unknown_loops: Loops whose number of trips XLA does not know.
        opcodes: All opcodes of the optimized HLO.
    """

    kernels: list[Kernel]
    parts: int
    unknown_loops: list[str]
    opcodes: frozenset[str]

    @property
    def launches(self) -> int:
        """Return the kernels and copies of one call."""
        return sum(kernel.times for kernel in self.kernels)

    @property
    def moved(self) -> int:
        """Return the bytes that one call reads and writes."""
        return sum(kernel.times * kernel.moved for kernel in self.kernels)

    @property
    def atomics(self) -> int:
        """Return the atomic operations of one call."""
        return sum(k.times * k.threads * k.instructions["atomic"] for k in self.kernels)

    @property
    def kinds_of_atomics(self) -> frozenset[str]:
        """Return the different atomic instructions."""
        return frozenset().union(*(kernel.atomics for kernel in self.kernels))


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: list[str]
    tail: str
    is_root: bool


class _Launch(NamedTuple):
    """One line of the sequence of launches; `around` are the loops and slices that it is in."""

    number: int
    kind: str
    kernel: str
    threads: int
    around: list[int]


def read_program(folder: Path) -> Program:
    """Count the program that was compiled into a folder."""
    (hlo,) = folder.glob("*gpu_after_optimizations.txt")
    computations = _computations(hlo.read_text())
    fused = {
        name
        for instructions in computations.values()
        for one in instructions
        for name in re.findall(r"calls=%?([\w.\-]+)", one.tail)
    }
    scheduled = {
        one.name: {other.name: other for other in instructions}
        for computation, instructions in computations.items()
        if computation not in fused
        for one in instructions
    }
    (metadata,) = folder.glob("*thunk_metadata.txt")
    names = {
        int(number): name
        for name, number in re.findall(
            r'profile_annotation: "([^"]+)"\s+thunk_id: (\d+)', metadata.read_text()
        )
    }
    ptx = _kernels(folder)
    (sequence,) = folder.glob("*thunk_sequence.txt")
    launches = list(_launches(sequence.read_text()))
    trips = {
        one.number: _trips(scheduled[names[one.number]][names[one.number]])
        for one in launches
        if one.kind == "kWhile"
    }
    kernels = []
    for one in launches:
        if one.kind in _CONTAINERS:
            continue
        # A copy of a slice is described by the fusion around it.
        slices = [number for number in one.around if number not in trips]
        name = names[slices[-1] if slices else one.number]
        kernels.append(
            Kernel(
                name,
                math.prod(trips[number] or 1 for number in one.around if number in trips),
                _moved(scheduled[name][name], scheduled[name], computations),
                one.threads,
                *ptx.get(one.kernel, (Counter(), frozenset())),
            )
        )
    last = [*folder.glob("*thunk_sequence_after_thunk_passes.txt"), sequence][0]
    return Program(
        kernels=kernels,
        parts=len(re.findall(r"^\d+: k", last.read_text(), re.MULTILINE)),
        unknown_loops=[names[number] for number, count in trips.items() if count is None],
        opcodes=frozenset(one.opcode for found in computations.values() for one in found),
    )


def _computations(text: str) -> dict[str, list[_Instruction]]:
    found: dict[str, list[_Instruction]] = {}
    for line in text.splitlines():
        if begin := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            current = found.setdefault(begin[1], [])
        elif one := re.match(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line):
            root, name, shape, opcode, rest = one.groups()
            arguments, _, tail = rest.partition(")")
            operands = re.findall(r"%([\w.\-]+)", arguments)
            current.append(_Instruction(name, shape, opcode, operands, tail, root is not None))
    return found


def _trips(loop: _Instruction) -> int | None:
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.tail)
    return int(known[1]) if known else None


def _size(shape: str) -> int:
    """Return the bytes of an HLO shape."""
    total = 0
    for kind, sides in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        total += _BYTES.get(kind, 4) * math.prod(int(side) for side in sides.split(",") if side)
    return total


def _moved(
    one: _Instruction,
    around: dict[str, _Instruction],
    computations: dict[str, list[_Instruction]],
) -> int:
    """Return the bytes that an instruction reads and writes."""
    called = re.search(r"calls=%?([\w.\-]+)", one.tail)
    if one.opcode != "fusion" or called is None:
        return _size(one.shape) + sum(_size(around[name].shape) for name in one.operands)
    inside = {each.name: each for each in computations[called[1]]}
    users: dict[str, list[tuple[_Instruction, int]]] = defaultdict(list)
    for each in inside.values():
        for place, name in enumerate(each.operands):
            users[name].append((each, place))
    (root,) = (each for each in inside.values() if each.is_root)
    results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    read = sum(_read(each, users) for each in inside.values() if each.opcode == "parameter")
    return read + sum(_written(each, inside) for each in results)


def _read(parameter: _Instruction, users: dict[str, list[tuple[_Instruction, int]]]) -> int:
    """Return the bytes that a fusion reads of a parameter: only slices of it if it is sliced."""
    whole, part = _size(parameter.shape), 0
    waiting = list(users[parameter.name])
    while waiting:
        user, place = waiting.pop()
        if user.opcode == "bitcast":
            waiting += users[user.name]
        elif place == 0 and user.opcode in ("dynamic-slice", "slice", "gather"):
            part += _size(user.shape)
        elif place != 0 or user.opcode != "dynamic-update-slice":
            return whole
    return min(whole, part)


def _written(result: _Instruction, inside: dict[str, _Instruction]) -> int:
    """Return the bytes of a result of a fusion, or of the slice that it updates."""
    while result.opcode == "bitcast":
        result = inside[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return _size(inside[result.operands[1]].shape)
    return _size(result.shape)


def _launches(listing: str) -> Iterator[_Launch]:
    """Read the sequence of launches; those of a loop's condition are left out.

    XLA does not evaluate the condition of a loop whose number of trips it knows.
    """
    around: list[tuple[int, int, str]] = []
    conditions: set[int] = set()
    for line in listing.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() == "condition:":
            conditions.add(around[-1][1])
        elif line.strip() == "body:":
            while around[-1][1] not in conditions:
                around.pop()
            conditions.remove(around[-1][1])
        elif found := re.match(r"\s*(\d+): (k\w+)\s+(?:\[[^\]]*\])?\s*(.*)", line):
            while around and around[-1][0] >= indent:
                around.pop()
            number, kind, rest = int(found[1]), found[2], found[3]
            grid = re.match(r"(\w+) grid: \[([\d, ]+)\] threads: \[([\d, ]+)\]", rest)
            sides = re.findall(r"\d+", f"{grid[2]}, {grid[3]}") if grid else ["0"]
            if not conditions & {each for _, each, _ in around}:
                inside = [each for _, each, what in around if what in _CONTAINERS]
                kernel, threads = grid[1] if grid else "", math.prod(map(int, sides))
                yield _Launch(number, kind, kernel, threads, inside)
            around.append((indent, number, kind))


def _kernels(folder: Path) -> dict[str, tuple[Counter[str], frozenset[str]]]:
    """Count the PTX instructions of each kernel, and name its atomics."""
    found = {}
    for path in folder.glob("*.ptx"):
        for name, body in re.findall(
            r"\.visible \.entry (\w+)\(.*?\n\{(.*?)\n\}", path.read_text(), re.DOTALL
        ):
            lines = re.findall(r"^\s+(?:@!?%p\d+\s+)?([a-z][\w.:]*)[\s;]", body, re.MULTILINE)
            counts = Counter(kind for line in lines for kind in _kinds(line))
            atomics = (line for line in lines if line.startswith(("atom.", "red.")))
            found[name] = counts, frozenset(atomics)
    return found


def _kinds(instruction: str) -> list[str]:
    opcode = instruction.partition(".")[0]
    if opcode in _MEMORY:
        return ["memory", "atomic"] if opcode in ("atom", "red") else ["memory"]
    if opcode in _SPECIAL:
        return ["special"]
    if opcode in _OTHER:
        return ["other"]
    return ["float" if re.search(r"\.(f|bf)\d", instruction) else "integer"]
