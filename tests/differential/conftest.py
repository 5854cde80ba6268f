"""Counts the comparisons with the real Cerbos of a run, and those that differ as listed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each kind of comparison that tests have recorded as ``compared``."""
    compared: Counter[str] = Counter()
    listed: Counter[str] = Counter()
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            for kind, value in getattr(report, "user_properties", ()):
                if kind == "compared" and getattr(report, "when", "") == "call":
                    compared[value[0]] += value[1]
                    listed[value[0]] += value[2]
    if compared:
        terminalreporter.section("compared with Cerbos")
        for what, count in sorted(compared.items()):
            terminalreporter.line(f"{what}: {count}, of which {listed[what]} differ as listed")
