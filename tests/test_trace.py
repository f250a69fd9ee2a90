"""benchmarks.gpu_trace counts and draws the overlap in a trace."""

from pathlib import Path

import pytest

from benchmarks.gpu_trace import Piece, draw, merged, overlap, pieces, trained_on

EVENTS = [
    {"cat": "cpu_op", "name": "aten::add", "ts": 0, "dur": 9e4},
    {"cat": "kernel", "name": "at::native::add", "ts": 0, "dur": 1000, "args": {"stream": 7}},
    {"cat": "kernel", "name": "cutlass_conv", "ts": 500, "dur": 1500, "args": {"stream": 7}},
    {"cat": "kernel", "name": "input_scatter", "ts": 1000, "dur": 2000, "args": {"stream": 20}},
    {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 5000, "dur": 1000, "args": {"stream": 21}},
]


def test_the_cuda_stream_with_kernels_of_torch_belongs_to_torch() -> None:
    assert trained_on(pieces(EVENTS)) == 7


def test_overlap_is_the_time_when_both_work() -> None:
    work = pieces(EVENTS)
    torchs = merged(piece for piece in work if piece.stream == 7)
    others = merged(piece for piece in work if piece.stream != 7)
    assert torchs == [(0.0, 2.0)]
    assert others == [(1.0, 3.0), (5.0, 6.0)]
    assert overlap(torchs, others) == pytest.approx(1.0)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw(pieces(EVENTS), 7, tmp_path / "overlap.png", title="a trace")
    assert (tmp_path / "overlap.png").read_bytes().startswith(b"\x89PNG")


def test_adjacent_pieces_are_merged() -> None:
    assert merged([Piece(0, 1, 0, ""), Piece(1, 2, 0, ""), Piece(0.5, 0.6, 0, "")]) == [(0, 2)]
