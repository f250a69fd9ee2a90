"""Every case of docs/trainer-matrix.md is what the table says."""

from pathlib import Path

import pytest
from matrix import CASES, Case, outcome

TABLE = Path(__file__).parent.parent / "docs" / "trainer-matrix.md"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.trainer}: {case.name}")
def test_the_outcome_of_a_case_is_that_of_the_table(case: Case, tmp_path: Path) -> None:
    assert outcome(case, tmp_path) == case.expected


def test_the_table_in_the_docs_lists_every_case() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {case.trainer} | {case.name} | {case.expected} |" for case in CASES]
