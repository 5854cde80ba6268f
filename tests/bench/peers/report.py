"""The outcome of a comparison: as data, as tables on a terminal, and as a Markdown page with charts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.measure import Measurement
    from tests.bench.peers.conditions import Condition
    from tests.bench.peers.rounds import Figures
    from tests.bench.peers.scale import Start
    from tests.bench.processes import Memory


@dataclass(frozen=True, slots=True)
class Added:
    """What a check adds to a request through Envoy at one rate: microseconds at three percentiles."""

    side: str
    load: str
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Report:
    """Everything that a run has found."""

    command: str
    method: str
    machine: Mapping[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    """Sides that could not be run here, and why."""
    conditions: list[Condition] = field(default_factory=list)
    direct: list[Figures] = field(default_factory=list)
    gateway: list[Figures] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """Write it as JSON can hold it."""
        document = dataclasses.asdict(self)
        document["conditions"] = [
            {**dataclasses.asdict(each), "verdict": each.verdict} for each in self.conditions
        ]
        return document


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column is the name, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def rich(self) -> RichTable:
        """Draw it on a terminal."""
        drawn = RichTable(
            title=self.title, title_justify="left", caption=self.note or None, caption_justify="left"
        )
        for number, column in enumerate(self.columns):
            drawn.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            drawn.add_row(*row, style=STYLES.get(row[-1], ""))
        return drawn

    def markdown(self) -> str:
        """Write it as GitHub's Markdown."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows)]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, *lines, ""])


STYLES = {"met": "green", "not met": "red"}

LOAD_COLUMNS = ("requests/s", "lowest", "highest", "CPU µs", "p50", "p95", "p99", "p99.9", "others")
LOAD_NOTE = (
    "Times in ms. `CPU µs`: of the server's processes, for each request. `others`: of the processor time "
    "that the machine spent, the part that went to neither the server nor the load."
)
COMPARED = 3
"""Sides under the same load that are worth a table of their own."""


def tables(report: Report) -> Iterator[Table]:
    """Make the tables of a report, the promises first."""
    yield Table("Promises", ("promise", "figure", "limit", ""), tuple(map(_condition, report.conditions)))
    yield from _load_tables("Asked directly", report.direct)
    yield from _load_tables("Through a real Envoy", report.gateway)
    yield Table(
        "What the check adds to a request through Envoy (ms)",
        ("side", "load", "p50", "p95", "p99"),
        tuple((each.side, each.load, *map(_ms, (each.p50, each.p95, each.p99))) for each in report.added),
        "The percentile less that of the same Envoy without a check, round by round; median.",
    )
    yield Table(
        "Memory after the load (MiB)",
        ("side", "RSS", "PSS"),
        tuple((side, f"{held.rss:.0f}", f"{held.pss:.0f}") for side, held in report.memory.items()),
        "All processes of the server together; PSS counts pages that they share once.",
    )
    yield Table(
        "Start and memory by number of policies",
        ("side", "policies", "start (s)", "RSS (MiB)", "PSS (MiB)", "answer p50 (ms)"),
        tuple(map(_start, report.starts)),
    )
    yield Table(
        "In process",
        ("case", "median (µs)", "10 %", "90 %", "to the first"),
        tuple(map(_measurement, report.measurements)),
        "Processor time of one call.",
    )


def _load_tables(title: str, found: Sequence[Figures]) -> Iterator[Table]:
    """Make a table for each load; where few sides are under the same load, one for all of these."""
    by_load: dict[str, list[Figures]] = {}
    for each in found:
        by_load.setdefault(each.load, []).append(each)
    note = LOAD_NOTE  # above the first of them
    for load, compared in by_load.items():
        if len(compared) >= COMPARED:
            rows = tuple((each.side, *_figures(each)) for each in compared)
            yield Table(f"{title}: {load}", ("side", *LOAD_COLUMNS), rows, note)
            note = ""
    apart = [each for compared in by_load.values() if len(compared) < COMPARED for each in compared]
    rows = tuple((each.side, each.load, *_figures(each)) for each in apart)
    yield Table(f"{title}: further loads", ("side", "load", *LOAD_COLUMNS), rows, note)


def _condition(each: Condition) -> tuple[str, ...]:
    sign = "≥" if each.at_least else "≤"
    value = "" if each.value is None else f"{each.value:.2f}{each.unit}"
    return each.promise, value, f"{sign} {each.limit:.3g}{each.unit}", each.verdict


def _figures(each: Figures) -> tuple[str, ...]:
    return (
        f"{each.rate:,.0f}" + (" (not reached)" if each.saturated else ""),
        *(f"{value:,.0f}" for value in (each.low, each.high, each.cpu)),
        *map(_ms, (each.p50, each.p95, each.p99, each.p999)),
        f"{each.others:.0%}",
    )


def _start(each: Start) -> tuple[str, ...]:
    return (
        each.side,
        f"{each.policies:,}",
        f"{each.seconds:.2f}",
        f"{each.rss:.0f}",
        f"{each.pss:.0f}",
        _ms(each.decision),
    )


def _measurement(each: Measurement) -> tuple[str, ...]:
    shown = (each.value, each.low, each.high, each.ratio)
    return (each.case, *("" if value is None else f"{value:.2f}" for value in shown))


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f}"


def markdown(report: Report, charts: Sequence[tuple[str, str]]) -> str:
    """Write the page; *charts* are titles and file names."""
    facts = [f"| {name} | {value} |" for name, value in report.machine.items()]
    left_out = [f"- {side}: {why}" for side, why in report.missing.items()]
    parts = [
        "# Side by side\n",
        f"`{report.command}`, {report.seconds / 60:.0f} minutes. {report.method}\n",
        "\n".join(["| machine | |", "|---|---|", *facts, ""]),
        "\n".join(["Not measured here:\n", *left_out, ""]) if left_out else "",
        *(f"![{title}]({name})\n" for title, name in charts),
        *(table.markdown() for table in tables(report) if table.rows),
    ]
    return "\n".join(part for part in parts if part)
