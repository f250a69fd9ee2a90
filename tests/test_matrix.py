"""Every case has the result that docs/trainer-matrix.md states."""

from pathlib import Path

import pytest
from exact import NotExact, check_batches
from matrix import CASES, EXACT, HEAD, Case, outcome

TABLE = Path(__file__).parent.parent / "docs" / "trainer-matrix.md"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.trainer}: {case.name}")
def test_each_case_has_the_result_in_the_table(case: Case, tmp_path: Path) -> None:
    found = outcome(case, tmp_path)
    assert found.result == case.expected, found.difference


def test_the_table_in_the_docs_lists_every_case() -> None:
    rows = [f"| {case.trainer} | {case.name} | {case.expected} |" for case in CASES]
    assert TABLE.read_text() == "\n".join([HEAD, *rows, ""])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([8, 10, 11], "batch 10 came instead of batch 9 at step 2"),
        ([8, 8, 9], "batch 8 came instead of batch 9 at step 2"),
        ([8, 9], "no batch came instead of batch 10 at step 3"),
        ([8, 9, 10, 11], "batch 11 came instead of none at step 4"),
    ],
)
def test_a_difference_names_the_batch_that_came_and_the_batch_expected(
    found: list[int], words: str
) -> None:
    with pytest.raises(NotExact, match=f"resumed from step=8.ckpt: {words}"):
        check_batches(found, [8, 9, 10], "resumed from step=8.ckpt")


def test_a_lost_batch_without_a_warning_is_reported_with_the_difference(tmp_path: Path) -> None:
    case = Case("a trainer", "a case", EXACT, lambda _: check_batches([4], [3], "resumed"))
    found = outcome(case, tmp_path)
    assert found.result == "LOST SILENTLY"
    assert "batch 4 came instead of batch 3" in found.difference
