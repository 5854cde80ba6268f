"""Run the comparison: tables for people, JSON for programs, a page with charts for a README."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
from rich.console import Console

from tests.bench import h2load, processes
from tests.bench.h2load import Closed, Fixed, LoadError
from tests.bench.peers import conditions, expenses, gateway, machine, scale
from tests.bench.peers.report import Added, Report, markdown, tables
from tests.bench.peers.rounds import Cell, Plan, added, direct, figures, measured, through
from tests.bench.peers.sides import CORES, SIDES, Place, Side
from tests.bench.processes import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import FrameType

    from tests.bench.h2load import Load
    from tests.bench.peers.rounds import Figures, Run, Subject
    from tests.bench.peers.sides import Server

Runs = dict[tuple[str, str], tuple["Run", ...]]

CLOSED: Final = (Closed(1, 1), Closed(4, 4), Closed(8, 8))


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    plan: Plan
    fixed: Plan
    """The same for fixed rates through Envoy: few requests a second make long rounds."""
    rates: tuple[float, ...]
    """Fixed rates at which servers are asked directly, requests a second."""
    policies: tuple[int, ...]
    starts: int
    """How often each server is started with each number of policies, at most."""
    bursts: int
    """Of 2 ms, for each case that is measured in process."""
    own_half: bool
    """Whether each side is also measured at half of its own saturation."""

    def repeats(self, policies: int) -> int:
        """Start with many policies once: that takes a minute and varies little."""
        return 1 if policies > MANY else self.starts


MANY: Final = 1000
PAGE: Final = 140
"""Characters across, where the output is no terminal."""

FULL: Final = Extent(Plan(5, 0.7), Plan(5, 1.5), (500, 1500), (10, 1000, 10_000), 2, 101, own_half=True)
QUICK: Final = Extent(Plan(3, 0.4), Plan(3, 1.0), (500,), (10, 1000), 1, 31, own_half=False)


@click.command()
@click.option("--quick", is_flag=True, help="About three minutes: fewer and shorter rounds, fewer policies.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures to this file.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-report"),
    show_default=True,
    help="Write report.md and its charts into this directory.",
)
@click.option("--only", multiple=True, help="Compare sides whose name contains this; may be repeated.")
def main(*, quick: bool, path: Path | None, output: Path, only: tuple[str, ...]) -> None:
    """Compare extauthz with its peers, side by side on this machine."""
    if not h2load.available():
        raise click.ClickException("h2load is not installed (Debian: nghttp2-client)")
    signal.signal(signal.SIGTERM, _leave)  # or the servers would stay
    console = Console()
    if not console.is_terminal:
        console.width = PAGE
    words = sys.argv[1:]
    report = Report(
        command=" ".join(["make bench-peers", *([f'ARGS="{" ".join(words)}"'] if words else [])]),
        method="",
        machine=machine.described(),
    )
    began = time.monotonic()
    try:
        with console.status("starting") as status:
            compare(report, QUICK if quick else FULL, only, status.update)
    except (LoadError, StartError) as error:
        raise click.ClickException(f"{error}\n(what was measured before is in {output})") from error
    finally:
        report.seconds = time.monotonic() - began
        _tell(report, console, output, path)


def _tell(report: Report, console: Console, output: Path, path: Path | None) -> None:
    """Print and write what was measured: of a run that was broken off, what there is."""
    for table in tables(report):
        if table.rows:
            console.print(table.rich())
    for side, why in report.missing.items():
        console.print(f"not measured: {side}: {why}")
    write(report, output)
    console.print(f"{output / 'report.md'} has the tables and charts")
    if path is not None:
        path.write_text(json.dumps(report.document(), indent=2) + "\n")


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def write(report: Report, output: Path) -> None:
    """Write the page and its charts."""
    from tests.bench.peers import charts  # noqa: PLC0415 # matplotlib takes a second to load

    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(markdown(report, charts.draw(report, output)))


def compare(report: Report, extent: Extent, only: Sequence[str], tell: Callable[[str], None]) -> None:
    """Measure everything and enter it into *report*.

    Raises:
        LoadError: an answer of somebody is wrong or missing.
        StartError: a server does not start.

    """
    plan = extent.plan
    report.method = (
        f"{plan.rounds} rounds of about {plan.seconds:g} s for each side and load, the sides taking turns; "
        "medians of the rounds."
    )
    with ExitStack() as stack:
        place = Place(stack)
        chosen = _chosen(report, only)
        servers = {}
        for side in chosen:
            tell(f"starting {side.name}")
            servers[side.name] = stack.enter_context(side.start(place))
        runs = _direct(report, extent, place, servers, tell)
        report.conditions += conditions.throughput(runs)
        behind = [side for side in chosen if side.behind_envoy]
        if why := gateway.missing():
            report.missing["through Envoy"] = why
        elif behind:
            _through_envoy(report, extent, place, servers, behind, stack, tell)
        for name, server in servers.items():
            report.memory[name] = processes.memory(processes.tree(server.roots))
    report.starts += scale.starts(extent.policies, extent.repeats, tell)
    tell("decisions in process")
    report.measurements += scale.routes(extent.bursts)
    report.measurements += scale.decisions((extent.policies[0], extent.policies[-1]), extent.bursts)
    report.conditions += conditions.growth(report.starts, report.measurements, extent.policies[-1])


def _chosen(report: Report, only: Sequence[str]) -> list[Side]:
    chosen = []
    for side in SIDES:
        if only and not any(part in side.name for part in only):
            continue
        if why := side.missing():
            report.missing[side.name] = why
        else:
            chosen.append(side)
    return chosen


def _direct(
    report: Report, extent: Extent, place: Place, servers: Mapping[str, Server], tell: Callable[[str], None]
) -> Runs:
    subjects = [direct(name, server, place.directory) for name, server in servers.items()]
    runs: Runs = {}
    loads: list[Load] = [*CLOSED, *map(Fixed, extent.rates)]
    for load in loads:
        found = measured([Cell(each, load) for each in subjects], extent.plan, place.directory, tell=tell)
        report.direct += _figures(found, [load])
        runs |= found
    return runs


def _through_envoy(
    report: Report,
    extent: Extent,
    place: Place,
    servers: Mapping[str, Server],
    behind: Sequence[Side],
    stack: ExitStack,
    tell: Callable[[str], None],
) -> None:
    upstreams = {side.name: gateway.Upstream(servers[side.name].port, side.raw_headers) for side in behind}
    envoy = stack.enter_context(gateway.gateway(place.directory, upstreams, CORES))
    headers = dict(expenses.browser_headers(place.bearer))
    subjects = {
        name: through(
            name,
            port,
            servers[name].roots if name in servers else (),
            headers,
            expenses.AUTHORITY,
            expenses.TARGET,
        )
        for name, port in envoy.ports.items()
    }

    def load_all(cells: Sequence[Cell], loads: Sequence[Load]) -> Runs:
        plan = extent.fixed if isinstance(loads[0], Fixed) else extent.plan
        found = measured(cells, plan, place.directory, accounts=(envoy.pid,), tell=tell)
        report.gateway.extend(_figures(found, loads))
        return found

    saturation: dict[str, float] = {}
    for load in CLOSED:
        found = load_all([Cell(each, load) for each in subjects.values()], [load])
        saturation = {each.side: each.rate for each in _figures(found, [load])}
    slowest = min(rate for side, rate in saturation.items() if side != gateway.ALONE)
    half = Fixed(round(slowest / 2))
    runs = load_all([Cell(each, half) for each in subjects.values()], [half])
    if extent.own_half:
        runs |= _at_own_half(subjects, saturation, half, load_all)
    report.added += _added(runs)
    ours = [side.name for side in behind if side.name.startswith("extauthz")]
    report.conditions += conditions.behind_envoy(runs, ours, half.label)


def _at_own_half(
    subjects: Mapping[str, Subject],
    saturation: Mapping[str, float],
    done: Fixed,
    load_all: Callable[[Sequence[Cell], Sequence[Load]], Runs],
) -> Runs:
    """Measure each side at half of its own saturation, and Envoy alone at the same rate."""
    runs: Runs = {}
    rates = {done.rate}
    for name, subject in subjects.items():
        rate = round(saturation[name] / 2)
        if name == gateway.ALONE or rate == done.rate:
            continue
        while rate in rates:  # its rounds with Envoy alone are its own
            rate += 1
        rates.add(rate)
        load = Fixed(rate)
        runs |= load_all([Cell(subjects[gateway.ALONE], load), Cell(subject, load)], [load])
    return runs


def _added(runs: Runs) -> Iterable[Added]:
    for (side, load), found in runs.items():
        if side != gateway.ALONE:
            alone = runs[gateway.ALONE, load]
            yield Added(side, load, *(added(found, alone, percent) for percent in (50, 95, 99)))


def _figures(runs: Runs, loads: Sequence[Load]) -> list[Figures]:
    by_label = {load.label: load for load in loads}
    return [figures(side, by_label[label], found) for (side, label), found in runs.items()]


if __name__ == "__main__":
    main()
