"""What may grow: the time to start and the memory with the policies, a decision with policies and routes."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine import Engine
from extauthz.transport.address import Address
from tests.bench import processes
from tests.bench.check import QUESTION
from tests.bench.h2load import Closed
from tests.bench.measure import Case, paired
from tests.bench.peers import expenses
from tests.bench.peers.rounds import Cell, Plan, direct, measured, percentile
from tests.bench.peers.sides import FAULTS, START_PATIENCE, Server, extauthz
from tests.bench.service import environment, request, running, user_token, write_policies
from tests.differential import oracle
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.bench.measure import Measurement

ROUTES: Final = (10, 100, 1000)

FURTHER_POLICY: Final = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: KIND
  version: default
  rules:
    - actions: [read]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: 'R.attr.ownerId == P.id || R.attr.team == "team-NUMBER"'}}
    - actions: [update]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition: {match: {expr: 'R.attr.amount < NUMBER && R.attr.region == P.attr.region'}}
    - actions: ["*"]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: 'R.attr.status in ["CLOSED", "STATE-NUMBER"]'}}
"""
"""Three rules, three conditions; no two policies have the same text."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a server needs to start with a number of policies, and then."""

    side: str
    policies: int
    seconds: float
    """From the start of the process until it says that it is ready; median."""
    rss: float
    """Of all its processes, MiB."""
    pss: float
    decision: float
    """Median time of an answer over loopback, one request at a time, in microseconds."""


def write_many(directory: Path, number: int) -> None:
    """Write the policy of the question, and others until there are *number* resource policies."""
    write_policies(directory)
    for each in range(1, number):
        text = FURTHER_POLICY.replace("KIND", f"kind{each}").replace("NUMBER", str(each))
        (directory / f"kind{each}.yaml").write_text(text)


OURS: Final = "extauthz, 1 worker"
AGAIN: Final = "extauthz, started again"
"""With what the first start has kept on disk."""
CERBOS: Final = "Cerbos"


def starts(
    numbers: Sequence[int],
    repeats: Callable[[int], int],
    tell: Callable[[str], None],
    give_up: Callable[[str, Exception], None],
) -> Iterator[Start]:
    """Start each server with each number of policies, taking turns; *repeats* says how often for a number.

    One that fails is started no more; *give_up* is told which, and how.
    """
    begin = {OURS: _ours, AGAIN: _ours}
    if oracle.find_binary() is not None:
        begin[CERBOS] = _cerbos
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="bench-policies-") as folder:
            policies = Path(folder)
            write_many(policies, number)
            found: dict[str, list[Start]] = {side: [] for side in begin}
            for repeat in range(repeats(number)):
                with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
                    for side, how in list(begin.items()):
                        tell(f"start {repeat + 1} of {side} with {number:,} policies")
                        try:
                            found[side].append(_start(side, how, Given(policies, number, Path(cache))))
                        except FAULTS as error:
                            del begin[side], found[side]
                            give_up(f"{side}, started with {number:,} policies", error)
            for side, each in found.items():
                yield _together(side, number, each)


@dataclass(frozen=True, slots=True)
class Given:
    """What a server starts with."""

    policies: Path
    number: int
    cache: Path
    """Where servers may keep what the next start can use; empty at the first one."""


def _together(side: str, number: int, found: Sequence[Start]) -> Start:
    columns = zip(*((one.seconds, one.rss, one.pss, one.decision) for one in found), strict=True)
    return Start(side, number, *map(statistics.median, columns))


def _start(side: str, how: Callable[[Given, Path], AbstractContextManager[Server]], given: Given) -> Start:
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        directory = Path(folder)
        before = time.monotonic()
        with how(given, directory) as server:
            seconds = time.monotonic() - before
            load = Closed(1, 1)
            cell = Cell(direct(side, server, directory), load)
            (run,) = measured([cell], Plan(1, DECIDING), directory)[side, load.label]
            held = processes.memory(processes.tree(server.roots))
            return Start(side, given.number, seconds, held.rss, held.pss, percentile(run.latencies, 50))


DECIDING: Final = 0.3
"""Seconds of questions after each start."""


@contextmanager
def _ours(given: Given, directory: Path) -> Iterator[Server]:
    port, http = free_port(), free_port()
    variables = environment(given.policies, grpc=f"127.0.0.1:{port}", http=f"127.0.0.1:{http}")
    variables["XDG_CACHE_HOME"] = str(given.cache)
    with extauthz(directory, variables, http) as pid:
        yield Server((pid,), Address("127.0.0.1", port), expenses.ext_authz(user_token()))


@contextmanager
def _cerbos(given: Given, directory: Path) -> Iterator[Server]:  # it makes a directory itself
    with oracle.cerbos(given.policies, patience=START_PATIENCE) as server:
        yield Server((server.pid,), Address("127.0.0.1", server.grpc_port), expenses.cerbos_grpc())


# --- in process -------------------------------------------------------------------------------------------


def routes(rounds: int) -> Iterator[Measurement]:
    """Answer a request from bytes to bytes with more and more routes: ``Authorizer.check``."""
    with ExitStack() as stack:
        data = request()
        tables = {}
        for number in ROUTES:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            tables[number] = stack.enter_context(running(directory, number)).authorizer
        cases = {
            f"Authorizer.check, {number:,} routes": Case(lambda table=table: table.check(data), budget=25)  # type: ignore[misc] # mypy cannot infer a lambda with a default
            for number, table in tables.items()
        }
        yield from paired("routes", cases, rounds)


def decisions(numbers: Sequence[int], rounds: int) -> Iterator[Measurement]:
    """Decide with more and more policies: the engine alone."""
    with ExitStack() as stack:
        engines = {}
        for number in numbers:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_many(directory, number)
            engines[number] = stack.enter_context(Engine.from_directory(directory))
        cases = {
            f"Engine.check, {number:,} policies": Case(lambda engine=engine: engine.check(QUESTION), budget=8)  # type: ignore[misc] # as above
            for number, engine in engines.items()
        }
        yield from paired("policies", cases, rounds)
