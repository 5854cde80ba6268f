"""Charts of a report, as SVG: drawn by matplotlib, without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure

from tests.bench.peers.conditions import SATURATED
from tests.bench.peers.gateway import ALONE
from tests.bench.peers.scale import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.peers.report import Report

OURS: Final = "#2f6f4f"
EMPTY: Final = "#b8c4bc"
PEERS: Final = "#8a6d3b"
WIDTH: Final = 9.0
"""Inches."""


def draw(report: Report, directory: Path) -> list[tuple[str, str]]:
    """Draw what the report has figures for; titles and file names."""
    drawn = []
    for name, title, figure in _charts(report):
        figure.savefig(directory / name, format="svg", bbox_inches="tight")
        drawn.append((title, name))
    return drawn


def _charts(report: Report) -> Iterator[tuple[str, str, Figure]]:
    full = [each for each in report.direct if each.load == SATURATED]
    if full:
        title = f"Requests a second, {SATURATED}"
        yield "throughput.svg", title, _bars(title, {each.side: each.rate for each in full})
        title = f"CPU for each request in µs, {SATURATED}"
        yield "cpu.svg", title, _bars(title, {each.side: each.cpu for each in full})
    behind = [each for each in report.gateway if each.load == SATURATED]
    if behind:
        title = f"Requests a second through Envoy, {SATURATED}"
        yield "gateway.svg", title, _bars(title, {each.side: each.rate for each in behind})
        title = f"CPU of each check through Envoy in µs, server and gateway, {SATURATED}"
        costs = {each.side: each.check for each in behind if each.check is not None and each.side != ALONE}
        yield "gateway-cpu.svg", title, _bars(title, costs)
    if report.added:
        load = report.added[0].load
        title = f"What the check adds through Envoy in ms, {load}"
        groups = {
            each.side: {"p50": each.p50 / 1000, "p95": each.p95 / 1000, "p99": each.p99 / 1000}
            for each in report.added
            if each.load == load
        }
        yield "added.svg", title, _groups(title, groups)
    if report.memory:
        title = "Memory after the load in MiB (PSS)"
        yield "memory.svg", title, _bars(title, {side: held.pss for side, held in report.memory.items()})
    if report.starts:
        title = "Seconds to start, by number of policies"
        lines: dict[str, list[tuple[float, float]]] = {}
        for start in report.starts:
            lines.setdefault(start.side, []).append((start.policies, start.seconds))
        yield "start.svg", title, _lines(title, lines)


def _bars(title: str, values: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.6 + 0.4 * len(values)))
    axes = figure.subplots()
    names = list(values)[::-1]
    bars = axes.barh(names, [values[name] for name in names], color=[colour(name) for name in names])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    return figure


def _groups(title: str, groups: Mapping[str, Mapping[str, float]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    width = 0.8 / max(len(groups), 1)
    for number, (side, values) in enumerate(groups.items()):
        places = [index + number * width for index in range(len(values))]
        bars = axes.bar(places, list(values.values()), width * 0.92, label=side)
        axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=8)
    labels = list(next(iter(groups.values())))
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(labels))], labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left")
    return figure


def _lines(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    for side, points in lines.items():
        style = "--" if side == AGAIN else "-"
        axes.plot(*zip(*points, strict=True), style, marker="o", label=side, color=colour(side))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("policies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left")
    return figure


def colour(side: str) -> str:
    """Give ours, the empty handlers and the peers a colour each."""
    if side.startswith("extauthz"):
        return OURS
    return EMPTY if side.startswith(("empty", "Envoy")) else PEERS
