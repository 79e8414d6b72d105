"""Figures that fault tests have measured, printed at the end of the run."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print each test's figures; docs/reliability.md has them."""
    lines = [
        f"{report.nodeid.rpartition('/')[2]}: {text}"
        for report in terminalreporter.stats.get("passed", [])
        for name, text in report.user_properties
        if name == "figure"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def figure(record_property: Any) -> Any:
    """Return a function that notes what a test has measured, in words."""
    return lambda text: record_property("figure", text)
