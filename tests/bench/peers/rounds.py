"""Rounds of load that take turns: what was asked of whom, and what it took.

The machine is never quiet. So each round asks every side once, in an order that rotates, and a slow moment
strikes all of them; what counts is the median over the rounds, and of a comparison the median of the rounds'
ratios or differences.
"""

from __future__ import annotations

import resource
import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import httpx
from google.protobuf.message import DecodeError

from tests.bench import h2load, processes
from tests.bench.h2load import Fixed, LoadError, Target
from tests.bench.peers.expenses import Verdict
from tests.bench.peers.gateway import BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.h2load import Load, Loaded
    from tests.bench.peers.expenses import Question
    from tests.bench.peers.sides import Server

    GiveUp = Callable[[str, LoadError], None]
    """Is told which side has failed, and how."""

T = TypeVar("T")

PROBES: Final = 5
"""Answers to the same question that have to be equally long; then length tells a wrong one under load."""
PILOT: Final = 200
"""Requests by which the number of requests of a round is found; they also warm the server up."""
LEAST: Final = 40
KEEPS_UP: Final = 0.95
"""The part of a fixed rate that has to be reached, or the side is taken for saturated."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A side as it is loaded."""

    name: str
    target: Target
    answer_bytes: int
    roots: tuple[int, ...]
    """The processes of the server; none where it lives in the gateway, or nobody is asked."""
    check: Callable[[], None]
    """Asks outside of the load; raises :class:`~tests.bench.h2load.LoadError` when an answer is wrong."""
    gateway: tuple[int, ...] = ()
    """The processes of the gateway through which the server is asked."""


@dataclass(frozen=True, slots=True)
class Run:
    """One side in one round."""

    rate: float
    """Requests a second."""
    cpu: float
    """Microseconds of processor time of the server's processes for each request."""
    latencies: tuple[int, ...]
    """Microseconds, sorted."""
    others: float
    """The part of the machine's processor time in use that went to neither server, gateway nor load."""
    gateway: float = 0.0
    """Microseconds of processor time of the gateway's processes for each request."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A side under one load."""

    subject: Subject
    load: Load


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long."""

    rounds: int
    seconds: float
    """Of each side in each round, about."""


def _raise(_side: str, error: LoadError) -> NoReturn:
    raise error


def measured(
    cells: Sequence[Cell],
    plan: Plan,
    directory: Path,
    *,
    tell: Callable[[str], None] = lambda _: None,
    give_up: GiveUp = _raise,
) -> dict[tuple[str, str], tuple[Run, ...]]:
    """Measure *cells* in turns; by name of the side and label of the load.

    A side with a wrong answer, or without one, is asked no more: *give_up* is told, and what was measured
    of it here is not returned. If *give_up* raises, as it does by default, all ends there.

    Raises:
        LoadError: an answer is wrong, or missing.

    """
    standing = _Standing({cell.subject.name: cell.subject for cell in cells}, give_up)
    standing.check()
    sizes = [standing.tried(cell.subject.name, partial(_requests, cell, plan, directory)) for cell in cells]
    sized = [(cell, requests) for cell, requests in zip(cells, sizes, strict=True) if requests is not None]
    runs: dict[tuple[str, str], list[Run]] = {(cell.subject.name, cell.load.label): [] for cell in cells}
    for number in range(plan.rounds):
        for cell, requests in _rotated(sized, number):
            name, label = cell.subject.name, cell.load.label
            tell(f"round {number + 1} of {plan.rounds}: {name}, {label}")
            run = standing.tried(name, partial(_run, cell, requests, directory, number))
            runs[name, label] += [] if run is None else [run]
    standing.check()
    return {key: tuple(each) for key, each in runs.items() if key[0] in standing.subjects}


@dataclass(frozen=True, slots=True)
class _Standing:
    """The sides that have not failed yet."""

    subjects: dict[str, Subject]
    give_up: GiveUp

    def check(self) -> None:
        """Ask each of them outside of the load."""
        for name, subject in list(self.subjects.items()):
            self.tried(name, subject.check)

    def tried(self, name: str, act: Callable[[], T]) -> T | None:
        """Do it with a side; None if that has failed, now or before."""
        if name not in self.subjects:
            return None
        try:
            return act()
        except LoadError as error:
            del self.subjects[name]
            self.give_up(name, error)
            return None


def _requests(cell: Cell, plan: Plan, directory: Path) -> int:
    """Choose how many requests fill the time of a round."""
    if isinstance(cell.load, Fixed):
        return max(LEAST, round(cell.load.rate * plan.seconds))
    pilot = _loaded(cell, PILOT, directory)
    return max(LEAST, cell.load.connections * cell.load.streams, round(pilot.rate * plan.seconds))


def _run(cell: Cell, requests: int, directory: Path, seed: int) -> Run:
    own, gateway = processes.tree(cell.subject.roots), processes.tree(cell.subject.gateway)

    def accounts() -> tuple[float, ...]:
        known = _known_seconds([*own, *gateway])
        return (
            processes.cpu_seconds(own),
            processes.cpu_seconds(gateway),
            known,
            processes.machine_cpu_seconds(),
        )

    before = accounts()
    found = _loaded(cell, requests, directory, seed)
    server, gate, ours, everybodys = (late - early for late, early in zip(accounts(), before, strict=True))
    others = max(0.0, 1 - ours / everybodys) if everybodys > 0 else 0.0
    return Run(found.rate, server / requests * 1e6, found.latencies, others, gate / requests * 1e6)


def _loaded(cell: Cell, requests: int, directory: Path, seed: int = 0) -> Loaded:
    subject = cell.subject
    length = subject.answer_bytes
    try:
        return h2load.run(subject.target, cell.load, requests, directory, answer_bytes=length, seed=seed)
    except LoadError as error:
        raise LoadError(f"{subject.name}, {cell.load.label}: {error}") from error


def _known_seconds(pids: Iterable[int]) -> float:
    """Return the time of servers, of the load (our children that have ended) and of ourselves."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return processes.cpu_seconds(pids) + sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _rotated(items: Sequence[T], by: int) -> Iterator[T]:
    by %= max(len(items), 1)
    yield from (*items[by:], *items[:by])


# --- what a side is asked ---------------------------------------------------------------------------------


def direct(name: str, server: Server, directory: Path) -> Subject:
    """Make a subject of a server that is asked without a gateway; its answers are looked at first.

    Raises:
        LoadError: an answer is not what it has to be.

    """
    question, port = server.question, server.address.port
    body = directory / f"body-{port}-{len(question.allowed)}"
    body.write_bytes(question.allowed)
    target = Target(port, question.path, question.headers, body, http1=question.http1)

    def check() -> None:
        for asked, verdict in ((question.allowed, Verdict.ALLOW), (question.denied, Verdict.DENY)):
            if asked is not None:
                _expect(name, _verdict(name, question, _asked(name, target, asked)), verdict)

    return Subject(name, target, _length(name, target, question.allowed), server.roots, check)


@dataclass(frozen=True, slots=True)
class Entrance:
    """A listener of a gateway."""

    port: int
    gateway: int
    """The process of the gateway."""
    server: tuple[int, ...] = ()
    """Those of the server that is asked, where it has its own."""
    checked: bool = True
    """Whether somebody is asked."""


def through(name: str, entrance: Entrance, request: Mapping[str, str], authority: str, path: str) -> Subject:
    """Make a subject of a gateway's listener; ``request`` are the headers that are to be allowed.

    Raises:
        LoadError: an answer is not what it has to be.

    """
    target = Target(entrance.port, path, tuple(request.items()), authority=authority)

    def check() -> None:
        allowed = _answer(name, target, "GET", None)
        _expect(name, (allowed.status_code, allowed.text), (httpx.codes.OK, BODY))
        if entrance.checked:
            _expect(name, _answer(name, target, "DELETE", None).status_code, httpx.codes.FORBIDDEN)

    length = _length(name, target, None)
    return Subject(name, target, length, entrance.server, check, gateway=(entrance.gateway,))


def _expect(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise LoadError(f"{name}: {found}, where {expected} is right")


def _length(name: str, target: Target, body: bytes | None) -> int:
    lengths = {len(_asked(name, target, body)) for _ in range(PROBES)}
    if len(lengths) != 1:
        raise LoadError(f"{name}: answers differ in length ({lengths}), they cannot be told apart under load")
    return lengths.pop()


def _verdict(name: str, question: Question, body: bytes) -> Verdict:
    try:
        return question.verdict(body)
    except (ValueError, LookupError, DecodeError) as error:
        raise LoadError(f"{name}: not an answer: {error!r}") from error


def _asked(name: str, target: Target, body: bytes | None) -> bytes:
    """Ask once, as h2load does; the body of the answer."""
    answer = _answer(name, target, "GET" if body is None else "POST", body)
    if answer.status_code != httpx.codes.OK:
        raise LoadError(f"{name}: {answer.status_code} {answer.text[:200]}")
    return answer.content


def _answer(name: str, target: Target, method: str, body: bytes | None) -> httpx.Response:
    url = f"http://127.0.0.1:{target.port}{target.path}"
    headers = {**dict(target.headers), "host": target.authority}
    with httpx.Client(http1=target.http1, http2=not target.http1, timeout=15) as client:
        try:
            return client.request(method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise LoadError(f"{name}: no answer: {error!r}") from error


# --- figures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """What all rounds of a side under one load say together."""

    side: str
    load: str
    rate: float
    """Requests a second, median; *low* and *high* are the lowest and the highest round."""
    low: float
    high: float
    cpu: float
    p50: float
    """Microseconds: the median of the rounds' percentiles."""
    p95: float
    p99: float
    p999: float
    """Of the requests of all rounds together: one round has too few."""
    others: float
    saturated: bool
    """A fixed rate was not reached."""
    gateway: float = 0.0
    """As *cpu*, of the gateway through which the server was asked: all that it does for a request."""
    check: float | None = None
    """As *cpu*: of server and gateway together, less that of the gateway that asks nobody."""


def figures(side: str, load: Load, runs: Sequence[Run], alone: Sequence[Run] = ()) -> Figures:
    """Put the rounds together; *alone*: those of the gateway that asks nobody, where it was measured, too."""
    rates = [run.rate for run in runs]
    rate = statistics.median(rates)
    return Figures(
        side,
        load.label,
        rate,
        min(rates),
        max(rates),
        statistics.median(run.cpu for run in runs),
        _median_percentile(runs, 50),
        _median_percentile(runs, 95),
        _median_percentile(runs, 99),
        percentile(_together(runs), 99.9),
        statistics.median(run.others for run in runs),
        isinstance(load, Fixed) and rate < load.rate * KEEPS_UP,
        statistics.median(run.gateway for run in runs),
        added_cpu(runs, alone) if alone else None,
    )


def _together(runs: Sequence[Run]) -> list[int]:
    return sorted(latency for run in runs for latency in run.latencies)


def _median_percentile(runs: Sequence[Run], percent: float) -> float:
    return statistics.median(percentile(run.latencies, percent) for run in runs)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that *percent* of all do not exceed (nearest rank)."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def ratio(ones: Sequence[Run], others: Sequence[Run], of: Callable[[Run], float]) -> float:
    """Compare two sides round by round: the median of the ratios."""
    return statistics.median(of(one) / of(other) for one, other in zip(ones, others, strict=True))


def added(ones: Sequence[Run], others: Sequence[Run], percent: float) -> float:
    """Subtract percentiles round by round: the median of the differences, in microseconds."""
    return statistics.median(
        percentile(one.latencies, percent) - percentile(other.latencies, percent)
        for one, other in zip(ones, others, strict=True)
    )


def added_far(ones: Sequence[Run], others: Sequence[Run]) -> float:
    """Subtract the 99.9th percentiles of all rounds together, in microseconds: one has too few requests."""
    return percentile(_together(ones), 99.9) - percentile(_together(others), 99.9)


def added_cpu(ones: Sequence[Run], alone: Sequence[Run]) -> float:
    """Tell what a check costs, wherever it is paid: server and gateway, less a gateway that asks nobody.

    The median of the rounds' differences, in microseconds of processor time for each request.
    """
    return statistics.median(
        one.cpu + one.gateway - other.gateway for one, other in zip(ones, alone, strict=True)
    )
