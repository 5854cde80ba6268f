"""Rounds of load that take turns: what was asked of whom, and what it took.

The machine is never quiet. So each round asks every side once, in an order that rotates, and a slow moment
strikes all of them; what counts is the median over the rounds, and of a comparison the median of the rounds'
ratios or differences.
"""

from __future__ import annotations

import resource
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from tests.bench import h2load, processes
from tests.bench.h2load import Fixed, LoadError, Target
from tests.bench.peers.expenses import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.h2load import Load, Loaded
    from tests.bench.peers.sides import Server

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
    check: Callable[[], None]
    """Asks outside of the load; raises :class:`~tests.bench.h2load.LoadError` when an answer is wrong."""


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
    """The part of the machine's processor time in use that went to neither the servers nor the load."""


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


def measured(
    cells: Sequence[Cell],
    plan: Plan,
    directory: Path,
    *,
    accounts: Iterable[int] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> dict[tuple[str, str], tuple[Run, ...]]:
    """Measure *cells* in turns; by name of the side and label of the load.

    *accounts*: further processes (the gateway) whose time is not that of others.

    Raises:
        LoadError: an answer is wrong, or missing.

    """
    for subject in {cell.subject.name: cell.subject for cell in cells}.values():
        subject.check()
    numbers = [_requests(cell, plan, directory) for cell in cells]
    runs: dict[tuple[str, str], list[Run]] = {(cell.subject.name, cell.load.label): [] for cell in cells}
    for number in range(plan.rounds):
        for place in _rotated(range(len(cells)), number):
            cell = cells[place]
            tell(f"round {number + 1} of {plan.rounds}: {cell.subject.name}, {cell.load.label}")
            run = _run(cell, numbers[place], directory, number, tuple(accounts))
            runs[cell.subject.name, cell.load.label].append(run)
    for subject in {cell.subject.name: cell.subject for cell in cells}.values():
        subject.check()
    return {key: tuple(each) for key, each in runs.items()}


def _requests(cell: Cell, plan: Plan, directory: Path) -> int:
    """Choose how many requests fill the time of a round."""
    if isinstance(cell.load, Fixed):
        return max(LEAST, round(cell.load.rate * plan.seconds))
    pilot = _loaded(cell, PILOT, directory)
    return max(LEAST, cell.load.connections * cell.load.streams, round(pilot.rate * plan.seconds))


def _run(cell: Cell, requests: int, directory: Path, seed: int, accounts: tuple[int, ...]) -> Run:
    subject = cell.subject
    own = processes.tree(subject.roots)
    known = [*own, *processes.tree(accounts)]
    before = processes.cpu_seconds(own), _known_seconds(known), processes.machine_cpu_seconds()
    found = _loaded(cell, requests, directory, seed)
    after = processes.cpu_seconds(own), _known_seconds(known), processes.machine_cpu_seconds()
    spent, ours, everybodys = (late - early for late, early in zip(after, before, strict=True))
    others = max(0.0, 1 - ours / everybodys) if everybodys > 0 else 0.0
    return Run(found.rate, spent / requests * 1e6, found.latencies, others)


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


def _rotated(places: Sequence[int], by: int) -> Iterator[int]:
    by %= len(places)
    yield from (*places[by:], *places[:by])


# --- what a side is asked ---------------------------------------------------------------------------------


def direct(name: str, server: Server, directory: Path) -> Subject:
    """Make a subject of a server that is asked without a gateway; its answers are looked at first.

    Raises:
        LoadError: an answer is not what it has to be.

    """
    question = server.question
    body = directory / f"body-{server.port}-{len(question.allowed)}"
    body.write_bytes(question.allowed)
    target = Target(server.port, question.path, question.headers, body, http1=question.http1)

    def check() -> None:
        for asked, verdict in ((question.allowed, Verdict.ALLOW), (question.denied, Verdict.DENY)):
            if asked is not None:
                _expect(name, question.verdict(_asked(name, target, asked)), verdict)

    return Subject(name, target, _length(name, target, question.allowed), server.roots, check)


def through(
    name: str, port: int, roots: tuple[int, ...], request: Mapping[str, str], authority: str, path: str
) -> Subject:
    """Make a subject of a listener of the gateway; ``request`` are the headers that are to be allowed."""
    target = Target(port, path, tuple(request.items()), authority=authority)

    def check() -> None:
        _expect(name, _status(target, "GET"), httpx.codes.OK)
        if roots:
            _expect(name, _status(target, "DELETE"), httpx.codes.FORBIDDEN)

    return Subject(name, target, _length(name, target, None), roots, check)


def _expect(name: str, found: object, expected: object) -> None:
    if found != expected:
        raise LoadError(f"{name}: {found}, where {expected} is right")


def _length(name: str, target: Target, body: bytes | None) -> int:
    lengths = {len(_asked(name, target, body)) for _ in range(PROBES)}
    if len(lengths) != 1:
        raise LoadError(f"{name}: answers differ in length ({lengths}), they cannot be told apart under load")
    return lengths.pop()


def _asked(name: str, target: Target, body: bytes | None) -> bytes:
    """Ask once, as h2load does; the body of the answer."""
    answer = _answer(target, "GET" if body is None else "POST", body)
    if answer.status_code != httpx.codes.OK:
        raise LoadError(f"{name}: {answer.status_code} {answer.text[:200]}")
    return answer.content


def _status(target: Target, method: str) -> int:
    return _answer(target, method, None).status_code


def _answer(target: Target, method: str, body: bytes | None) -> httpx.Response:
    url = f"http://127.0.0.1:{target.port}{target.path}"
    headers = {**dict(target.headers), "host": target.authority}
    with httpx.Client(http1=target.http1, http2=not target.http1, timeout=15) as client:
        return client.request(method, url, content=body, headers=headers)


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


def figures(side: str, load: Load, runs: Sequence[Run]) -> Figures:
    """Put the rounds together."""
    rates = [run.rate for run in runs]
    rate = statistics.median(rates)
    together = sorted(latency for run in runs for latency in run.latencies)
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
        percentile(together, 99.9),
        statistics.median(run.others for run in runs),
        isinstance(load, Fixed) and rate < load.rate * KEEPS_UP,
    )


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
