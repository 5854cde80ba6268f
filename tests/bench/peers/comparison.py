"""The course of a comparison: who is measured, one after the other, and what becomes of a side that fails.

A side that does not start, or gives one wrong answer, is out from then on, and the report says why; the
others go on. What was measured is entered into the report as it comes.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.bench import processes
from tests.bench.h2load import Fixed, LoadError
from tests.bench.peers import conditions, expenses, gateway, scale
from tests.bench.peers.extent import CLOSED
from tests.bench.peers.report import Added
from tests.bench.peers.rounds import (
    Cell,
    Entrance,
    added,
    added_cpu,
    added_far,
    direct,
    figures,
    measured,
    through,
)
from tests.bench.peers.sides import CORES, FAULTS, SIDES, Place, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.bench.h2load import Load
    from tests.bench.peers.extent import Extent
    from tests.bench.peers.report import Report
    from tests.bench.peers.rounds import Figures, Plan, Run, Subject
    from tests.bench.peers.sides import Server

Runs = dict[tuple[str, str], tuple["Run", ...]]

THROUGH: Final = "through Envoy"
"""The part of a comparison that needs a gateway, as the report names it."""


def chosen(only: Sequence[str]) -> tuple[list[Side], dict[str, str]]:
    """Choose sides whose name contains one of *only*, or all; those that cannot be run here, and why."""
    named = [side for side in SIDES if not only or any(part in side.name for part in only)]
    missing = {side.name: why for side in named if (why := side.missing())}
    return [side for side in named if side.name not in missing], missing


def compare(
    report: Report,
    extent: Extent,
    sides: Sequence[Side],
    tell: Callable[[str], None] = lambda _: None,
    save: Callable[[], None] = lambda: None,
) -> None:
    """Measure everything and enter it into *report*; *save* is called whenever something was entered."""
    report.method = (
        f"{extent.plan.rounds} rounds of about {extent.plan.seconds:g} s for each side and load, the sides "
        "taking turns; medians of the rounds."
    )
    with ExitStack() as stack:
        servers = _Servers(report, extent, tell, save, Place(stack), stack)
        servers.start(sides)
        servers.ask_directly()
        if why := gateway.missing():
            report.missing[THROUGH] = why
        elif any(side.behind_envoy or side.is_gateway for side in sides):
            servers.ask_through_envoy()
        servers.weigh()
    for start in scale.starts(extent.policies, extent.repeats, tell, _giving_up(report, save)):
        report.starts.append(start)
        save()
    tell("decisions in process")
    report.measurements += scale.routes(extent.bursts)
    report.measurements += scale.decisions((extent.policies[0], extent.policies[-1]), extent.bursts)
    report.conditions += conditions.growth(report.starts, report.measurements, extent.policies[-1])
    report.complete = True
    save()


def _giving_up(report: Report, save: Callable[[], None]) -> Callable[[str, Exception], None]:
    """Make what enters a side that has failed into *report*."""

    def failed(side: str, error: Exception) -> None:
        report.failed[side] = str(error).removeprefix(f"{side}: ")
        save()

    return failed


@dataclass(slots=True)
class _Servers:
    """The servers that are up at the same time, and those of them that have not failed."""

    report: Report
    extent: Extent
    tell: Callable[[str], None]
    save: Callable[[], None]
    place: Place
    stack: ExitStack
    sides: list[Side] = field(default_factory=list)
    servers: dict[str, Server] = field(default_factory=dict)
    asking: gateway.Gateway | None = None
    """The gateway that asks them, once it is up."""

    def start(self, sides: Iterable[Side]) -> None:
        """Start all that can be started."""
        for side in sides:
            self.tell(f"starting {side.name}")
            with self._failing(side.name):
                self.servers[side.name] = self.stack.enter_context(side.start(self.place))
                self.sides.append(side)

    def weigh(self) -> None:
        """See what memory each has, and the gateway that has asked them."""
        if self.asking is not None:
            self.report.memory[gateway.OF_THE_OTHERS] = processes.memory(processes.tree([self.asking.pid]))
        for side in self._standing():
            roots = self.servers[side.name].roots
            self.report.memory[side.name] = processes.memory(processes.tree(roots))
        self.save()

    def _standing(self) -> list[Side]:
        return [side for side in self.sides if side.name not in self.report.failed]

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Let go of what has failed."""
        try:
            yield
        except FAULTS as error:
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        _giving_up(self.report, self.save)(name, error)

    def _measured(self, subjects: Iterable[Subject], load: Load, plan: Plan, into: list[Figures]) -> Runs:
        """Measure those that have not failed, and enter their figures."""
        cells = [Cell(each, load) for each in subjects if each.name not in self.report.failed]
        found = measured(cells, plan, self.place.directory, tell=self.tell, give_up=self._give_up)
        alone = found.get((gateway.ALONE, load.label), ())
        into.extend(figures(side, load, runs, alone) for (side, _), runs in found.items())
        self.save()
        return found

    # -- directly ------------------------------------------------------------------------------------------

    def ask_directly(self) -> None:
        """Load each server by itself."""
        subjects = []
        for side in self._standing():
            if side.directly:
                with self._failing(side.name):
                    subjects.append(direct(side.name, self.servers[side.name], self.place.directory))
        runs: Runs = {}
        loads: list[Load] = [*CLOSED, *map(Fixed, self.extent.rates)]
        for load in loads:
            runs |= self._measured(subjects, load, self.extent.plan, self.report.direct)
        self.report.conditions += conditions.throughput(runs)

    # -- through Envoy -------------------------------------------------------------------------------------

    def ask_through_envoy(self) -> None:
        """Load the gateways: each listener of the one that asks servers, and those that hold one."""
        with self._failing(THROUGH):
            subjects = self._subjects()
            saturation = self._saturation(subjects)
            half = Fixed(round(min(saturation[name] for name in self._checked(saturation)) / 2))
            runs = self._at(half, subjects.values())
            promised = {ours for ours, *_ in conditions.TRANSPORTS.values()}
            ours = [side.name for side in self.sides if side.name in promised]
            self.report.conditions += conditions.behind_envoy(runs, ours, half.label)
            if self.extent.own_half:
                self._at_own_half(subjects, saturation, half)

    def _subjects(self) -> dict[str, Subject]:
        self.tell("starting the gateway")
        upstreams = {
            side.name: gateway.Upstream(self.servers[side.name].address, side.raw_headers)
            for side in self._standing()
            if side.behind_envoy
        }
        asking = self.stack.enter_context(gateway.gateway(self.place.directory, upstreams, CORES))
        self.asking = asking
        entrances = {gateway.ALONE: Entrance(asking.ports[gateway.ALONE], asking.pid, checked=False)}
        for side in self._standing():
            server = self.servers[side.name]
            if side.behind_envoy:
                entrances[side.name] = Entrance(asking.ports[side.name], asking.pid, server.roots)
            elif side.is_gateway:
                (pid,) = server.roots
                entrances[side.name] = Entrance(server.address.port, pid)
        headers = dict(expenses.browser_headers(self.place.bearer))
        subjects = {}
        for name, entrance in entrances.items():
            with self._failing(name):
                subjects[name] = through(name, entrance, headers, expenses.AUTHORITY, expenses.TARGET)
        return subjects

    def _saturation(self, subjects: Mapping[str, Subject]) -> dict[str, float]:
        """Find how many requests a second each can do, by the last of the closed loops."""
        found: Runs = {}
        for load in CLOSED:
            found = self._measured(subjects.values(), load, self.extent.plan, self.report.gateway)
        return {side: statistics.median(run.rate for run in runs) for (side, _), runs in found.items()}

    def _checked(self, names: Iterable[str]) -> list[str]:
        """List those that ask somebody.

        Raises:
            LoadError: nothing is left that could be compared.

        """
        standing = [name for name in names if name not in self.report.failed]
        if gateway.ALONE not in standing or len(standing) == 1:
            raise LoadError("nothing is left to compare: without a check, or with one")
        return [name for name in standing if name != gateway.ALONE]

    def _at(self, load: Fixed, subjects: Iterable[Subject]) -> Runs:
        runs = self._measured(subjects, load, self.extent.fixed, self.report.gateway)
        self.report.added += _added(runs, load)
        self.save()
        return runs

    def _at_own_half(
        self, subjects: Mapping[str, Subject], saturation: Mapping[str, float], done: Fixed
    ) -> None:
        """Measure each side at half of its own saturation, and Envoy alone at the same rate."""
        rates = {done.rate}
        for name in self._checked(saturation):
            rate = round(saturation[name] / 2)
            if rate == done.rate:
                continue
            if gateway.ALONE in self.report.failed:
                return
            while rate in rates:  # its rounds with Envoy alone are its own
                rate += 1
            rates.add(rate)
            self._at(Fixed(rate), (subjects[gateway.ALONE], subjects[name]))


def _added(runs: Runs, load: Fixed) -> Iterator[Added]:
    alone = runs.get((gateway.ALONE, load.label))
    for (side, _), found in runs.items():
        if alone is not None and side != gateway.ALONE:
            p50, p95, p99 = (added(found, alone, percent) for percent in (50, 95, 99))
            far, cpu = added_far(found, alone), added_cpu(found, alone)
            yield Added(side, load.label, p50, p95, p99, far, cpu)
