"""Coverage on the terminal: a table of the files, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from engine.coverage import Total
from extauthz.coverage_report.words import COLUMNS, named, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from engine.coverage import Coverage, PolicyCoverage

GOOD: Final = 100.0
POOR: Final = 50.0


def coverage_text(coverage: Coverage) -> Iterator[RenderableType]:
    """Yield what is printed."""
    yield _table(coverage)
    missing = [
        Text.assemble((f"{policy.file}:{item.line}:{item.column}", "cyan"), f" {named(item)}: {item.gap}")
        for policy, item in coverage.gaps
        if not item.implied
    ]
    if missing:
        yield Text("\nnot covered:")
        yield from missing


def _table(coverage: Coverage) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("policy", no_wrap=True)
    for name in (*COLUMNS, "covered"):
        table.add_column(name, justify="right", no_wrap=True)
    for policy in coverage.policies:
        table.add_row(policy.file, *_cells(policy), _share(policy.total))
    table.add_row("", *("" for _ in COLUMNS), "")
    sums = [_sum(coverage, name) for name in COLUMNS]
    table.add_row(Text("all", "bold"), *map(_fraction, sums), _share(coverage.total))
    return table


def _cells(policy: PolicyCoverage) -> Iterator[Text]:
    totals = policy.totals()
    for kinds in COLUMNS.values():
        yield _fraction(_added(totals[kind] for kind in kinds if kind in totals))


def _sum(coverage: Coverage, column: str) -> Total:
    found = [policy.totals() for policy in coverage.policies]
    return _added(totals[kind] for totals in found for kind in COLUMNS[column] if kind in totals)


def _added(totals: Iterator[Total]) -> Total:
    several = list(totals)
    return Total(sum(one.covered for one in several), sum(one.marks for one in several))


def _fraction(total: Total) -> Text:
    return Text(f"{total.covered}/{total.marks}" if total.marks else "", _colour(total))


def _share(total: Total) -> Text:
    return Text(percent(total), _colour(total))


def _colour(total: Total) -> str:
    return "green" if total.percent >= GOOD else "yellow" if total.percent >= POOR else "red"
