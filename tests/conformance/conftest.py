"""Counts the outside cases of a run: all, those that are met, those in the list of gaps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FOLDER = "tests/conformance/"
OUTCOMES = ("passed", "xfailed", "failed", "skipped")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each test over outside cases."""
    counts: dict[str, Counter[str]] = {}
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, ()):
            name = getattr(report, "nodeid", "")
            if FOLDER in name and "[" in name:
                test = name.split("[")[0].rpartition("/")[2]
                counts.setdefault(test, Counter())[outcome] += 1
            for kind, value in getattr(report, "user_properties", ()):
                if kind == "listed":  # a test over all listed gaps at once says which test they belong to
                    counts.setdefault(value[0], Counter())["xfailed"] += value[1]
    if counts:
        terminalreporter.section("conformance")
        for test, count in sorted(counts.items()):
            listed = f", {count['xfailed']} listed as gaps" if count["xfailed"] else ""
            terminalreporter.line(f"{test}: {count['passed']} of {count.total()} cases met{listed}")
