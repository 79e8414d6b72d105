"""docs/reliability.md: every row names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"
CELLS = 4


def test_every_row_has_its_test_and_its_figure(project_root: Path) -> None:
    """The file is there, the function in it, and no cell is empty."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert len(rows) > 30
    for row in rows:
        assert len(row) == CELLS, row
        assert all(row), row
        name, _, function = row[2].strip("`").partition("::")
        file = project_root / (name if "/" in name else f"tests/faults/{name}")
        assert file.exists(), name
        assert not function or f"def {function}(" in file.read_text("utf-8"), row[2]


def test_every_fault_test_is_in_a_row(project_root: Path) -> None:
    """No file of the faults is passed over."""
    text = DOCUMENT.read_text("utf-8")
    passed_over = {"test_malformed.py", "test_registry_concurrency.py"}
    files = {path.name for path in (project_root / "tests" / "faults").glob("test_*.py")}
    assert files - passed_over <= set(re.findall(r"`(test_\w+\.py)::", text))
