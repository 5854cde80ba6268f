"""The server as a process under load, beside an empty handler on the same transport.

``h2load`` (Debian's ``nghttp2-client``) sends gRPC requests over a few connections, as Envoy does; rounds of
the servers alternate, and processor time is what the kernel accounts to a server's processes.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench import h2load, processes
from tests.bench.h2load import Closed
from tests.bench.measure import Measurement
from tests.bench.peers.rounds import direct
from tests.bench.peers.sides import EMPTY_ONE, OURS_ALL, OURS_ONE, SIDES, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.peers.rounds import Subject

REQUESTS: Final = 6000
"""For each round; bounded, so that the load ends by itself."""
LOAD: Final = Closed(4, 8)
MAX_ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of load measured."""

    requests_a_second: float
    cpu: float
    """Microseconds of the server for each request."""


def server(rounds: int) -> Iterator[Measurement]:
    """Measure requests a second and processor time a request: transport only, one worker, several."""
    if not h2load.available():
        print("server: h2load is not installed (Debian: nghttp2-client); left out", file=sys.stderr)  # noqa: T201 # a message of a command
        return
    with ExitStack() as stack:
        place = Place(stack)
        by_name = {side.name: side for side in SIDES}
        subjects = [
            direct(name, stack.enter_context(by_name[name].start(place)), place.directory)
            for name in dict.fromkeys((EMPTY_ONE, OURS_ONE, OURS_ALL))
        ]
        found: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
        for _ in range(min(rounds, MAX_ROUNDS)):
            for subject in subjects:
                found[subject.name].append(_load(subject, place.directory))
        yield from _measurements(found)


def _measurements(found: dict[str, list[Round]]) -> Iterator[Measurement]:
    first = next(iter(found.values()))
    for name, rounds in found.items():
        speeds = [each.requests_a_second for each in rounds]
        ratio = statistics.median(
            one / other.requests_a_second for one, other in zip(speeds, first, strict=True)
        )
        yield Measurement(
            "server",
            name,
            statistics.median(speeds),
            "requests/s",
            min(speeds),
            max(speeds),
            ratio,
            None,
            True,
        )
    for name, rounds in found.items():
        costs = [each.cpu for each in rounds]
        ratio = statistics.median(one / other.cpu for one, other in zip(costs, first, strict=True))
        yield Measurement("server", name, statistics.median(costs), "µs CPU", min(costs), max(costs), ratio)


def _load(subject: Subject, directory: Path) -> Round:
    own = processes.tree(subject.roots)
    before = processes.cpu_seconds(own)
    loaded = h2load.run(subject.target, LOAD, REQUESTS, directory, answer_bytes=subject.answer_bytes)
    return Round(loaded.rate, (processes.cpu_seconds(own) - before) / REQUESTS * 1e6)
