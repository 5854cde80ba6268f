"""Run the measurements; print a table for people, write JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.bench.measure import Measurement, empty_call

Phase = Callable[[int], Iterable[Measurement]]

PHASES: Mapping[str, str] = {
    "decode": "tests.bench.wire:decode",
    "canonicalise": "tests.bench.wire:canonicalise",
    "route": "tests.bench.check:route",
    "token": "tests.bench.check:token",
    "policy": "tests.bench.check:policy",
    "encode": "tests.bench.wire:encode",
    "check": "tests.bench.check:check",
    "server": "tests.bench.server:server",
    "load": "tests.bench.loading:load",
    "reload": "tests.bench.reloading:reload",
    "stores": "tests.bench.stores:stores",
}
"""Name of a phase to the function that measures it; imported only if it is run."""


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(PHASES)), help="Run this phase; may be repeated."
)
@click.option(
    "--rounds", default=101, show_default=True, help="Bursts of 2 ms for each case; their median counts."
)
def main(path: Path | None, only: tuple[str, ...], rounds: int) -> None:
    """Measure how long each phase of a check takes."""
    console = Console()
    measurements: list[Measurement] = []
    for name in only or PHASES:
        with console.status(name):
            measured = list(_phase(PHASES[name])(rounds))
        console.print(_table(name, measured))
        measurements += measured
    console.print(f"a call of nothing: {empty_call():.3g} µs")
    if path is not None:
        path.write_text(json.dumps(_report(measurements), indent=2) + "\n")


def _phase(where: str) -> Phase:
    module, _, name = where.partition(":")
    phase: Phase = getattr(import_module(module), name)
    return phase


def _table(name: str, measured: Iterable[Measurement]) -> Table:
    table = Table(title=name, title_justify="left")
    table.add_column("case")
    for column in ("median", "10 %", "90 %", "ratio", "budget"):
        table.add_column(column, justify="right")
    for each in measured:
        table.add_row(
            each.case,
            f"{_figure(each.value)} {each.unit}",
            _figure(each.low),
            _figure(each.high),
            "" if each.ratio is None else f"{each.ratio:.2f}",
            _figure(each.budget),
            style={None: "", True: "green", False: "red"}[each.within_budget],
        )
    return table


def _figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _report(measurements: Iterable[Measurement]) -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "empty_call": empty_call(),
        "measurements": [
            {**dataclasses.asdict(each), "within_budget": each.within_budget} for each in measurements
        ],
    }


if __name__ == "__main__":
    main()
