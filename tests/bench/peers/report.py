"""The outcome of a comparison: as data, as tables on a terminal, and as a Markdown page with charts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

from tests.bench.peers.gateway import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.bench.measure import Measurement
    from tests.bench.peers.conditions import Condition
    from tests.bench.peers.rounds import Figures
    from tests.bench.peers.scale import Start
    from tests.bench.processes import Memory


@dataclass(frozen=True, slots=True)
class Added:
    """What a check adds to a request through Envoy at one rate: microseconds at percentiles, and of CPU."""

    side: str
    load: str
    p50: float
    p95: float
    p99: float
    p999: float
    """Of all rounds together: one round has too few requests."""
    cpu: float
    """Processor time of server and gateway, less that of the gateway that asks nobody."""


@dataclass(slots=True)
class Report:
    """Everything that a run has found."""

    command: str
    method: str
    machine: Mapping[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    """Sides that could not be run here, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Sides that did not start or did not answer as they have to, and how; they were asked no more."""
    complete: bool = False
    """Whether the run came to its end."""
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

RATES = ("requests/s", "lowest", "highest")
TIMES = ("p50", "p95", "p99", "p99.9", "others")
LOAD_COLUMNS = (*RATES, "CPU µs", *TIMES)
LOAD_NOTE = (
    "Times in ms. `CPU µs`: of the server's processes, for each request. `others`: of the processor time "
    "that the machine spent, the part that went to neither the server nor the load."
)
GATEWAY_COLUMNS = (*RATES, "server µs", "gateway µs", "check µs", *TIMES)
GATEWAY_NOTE = (
    "Times in ms. Processor time for each request in µs: `server µs` of the server's processes (none, where "
    "it lives in the gateway), `gateway µs` of the whole gateway through which it is asked, `check µs` of "
    "both, less that of the gateway that asks nobody under the same load, round by round; median. `others`: "
    "of the processor time that the machine spent, the part that went to neither server, gateway nor load."
)
COMPARED = 3
"""Sides under the same load that are worth a table of their own."""


def tables(report: Report) -> Iterator[Table]:
    """Make the tables of a report, the promises first."""
    yield Table("Promises", ("promise", "figure", "limit", ""), tuple(map(_condition, report.conditions)))
    yield from _load_tables("Asked directly", report.direct, LOAD_COLUMNS, LOAD_NOTE, _figures)
    yield from _load_tables(
        "Through a real Envoy", report.gateway, GATEWAY_COLUMNS, GATEWAY_NOTE, _gateway_figures
    )
    yield Table(
        "What the check adds to a request through Envoy (ms)",
        ("side", "load", "p50", "p95", "p99", "p99.9", "check µs"),
        tuple(map(_added, report.added)),
        "The percentile less that of an Envoy without a check, round by round; median. p99.9: of all rounds "
        "together. `check µs`: processor time, as above.",
    )
    yield Table(
        "Memory after the load (MiB)",
        ("side", "RSS", "PSS"),
        tuple((side, f"{held.rss:.0f}", f"{held.pss:.0f}") for side, held in report.memory.items()),
        "All processes of the server together; PSS counts pages that they share once. Of a server that lives "
        "in the gateway: the whole gateway. The others need one besides, which is a row of its own.",
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


def _load_tables(
    title: str,
    found: Sequence[Figures],
    columns: tuple[str, ...],
    note: str,
    shown: Callable[[Figures], tuple[str, ...]],
) -> Iterator[Table]:
    """Make a table for each load; where few sides are under the same load, one for all of these."""
    by_load: dict[str, list[Figures]] = {}
    for each in found:
        by_load.setdefault(each.load, []).append(each)
    for load, compared in by_load.items():
        if len(compared) >= COMPARED:
            rows = tuple((each.side, *shown(each)) for each in compared)
            yield Table(f"{title}: {load}", ("side", *columns), rows, note)
            note = ""  # it stands above the first of them
    apart = [each for compared in by_load.values() if len(compared) < COMPARED for each in compared]
    rows = tuple((each.side, each.load, *shown(each)) for each in apart)
    yield Table(f"{title}: further loads", ("side", "load", *columns), rows, note)


def _condition(each: Condition) -> tuple[str, ...]:
    sign = "≥" if each.at_least else "≤"
    value = "" if each.value is None else f"{each.value:.2f}{each.unit}"
    return each.promise, value, f"{sign} {each.limit:.3g}{each.unit}", each.verdict


def _figures(each: Figures) -> tuple[str, ...]:
    return (*_rates(each), f"{each.cpu:,.0f}", *_times(each))


def _gateway_figures(each: Figures) -> tuple[str, ...]:
    server = f"{each.cpu:,.0f}" if each.cpu else ""
    check = "" if each.check is None or each.side == ALONE else f"{each.check:,.0f}"
    return (*_rates(each), server, f"{each.gateway:,.0f}", check, *_times(each))


def _rates(each: Figures) -> tuple[str, ...]:
    reached = " (not reached)" if each.saturated else ""
    return (f"{each.rate:,.0f}{reached}", f"{each.low:,.0f}", f"{each.high:,.0f}")


def _times(each: Figures) -> tuple[str, ...]:
    return (*map(_ms, (each.p50, each.p95, each.p99, each.p999)), f"{each.others:.0%}")


def _added(each: Added) -> tuple[str, ...]:
    times = map(_ms, (each.p50, each.p95, each.p99, each.p999))
    return (each.side, each.load, *times, f"{each.cpu:,.0f}")


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
    parts = [
        "# Side by side\n",
        "" if report.complete else "**Not complete**: the run goes on, or was broken off.\n",
        f"`{report.command}`, {report.seconds / 60:.1f} minutes. {report.method}\n",
        "\n".join(["| machine | |", "|---|---|", *facts, ""]),
        _reasons("Not measured here:", report.missing),
        _reasons("Failed, and asked no more:", report.failed),
        *(f"![{title}]({name})\n" for title, name in charts),
        *(table.markdown() for table in tables(report) if table.rows),
    ]
    return "\n".join(part for part in parts if part)


def _reasons(title: str, reasons: Mapping[str, str]) -> str:
    """List sides with what is in their way; what a server said stays in its item, line by line."""
    listed = [f"- {side}: {why}".replace("\n", "\n  ") for side, why in reasons.items()]
    return "\n".join([f"{title}\n", *listed, ""]) if listed else ""
