"""What has to be true in a comparison: each promise with its figure and its limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.peers import scale, sides
from tests.bench.peers.gateway import ALONE
from tests.bench.peers.rounds import added, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.bench.measure import Measurement
    from tests.bench.peers.rounds import Run
    from tests.bench.peers.scale import Start

SATURATED: Final = "64 in flight"
"""The load by which throughput and cost are compared."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A promise and what was measured."""

    promise: str
    value: float | None
    """None when it was not measured here."""
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None when it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "met", False: "not met", None: "not measured"}[self.met]


def throughput(runs: Mapping[tuple[str, str], tuple[Run, ...]]) -> Iterator[Condition]:
    """Compare requests a second and processor time under a full load, each transport with its limits."""
    for name, (ours, empty, times, cost, part) in TRANSPORTS.items():
        yield Condition(
            f"{name}: requests/s, times Cerbos's CheckResources over gRPC",
            _ratio(runs, ours, sides.CERBOS_GRPC, "rate"),
            times,
            at_least=True,
        )
        if cost is not None:
            yield Condition(
                f"{name}: CPU a request, of Cerbos's",
                _ratio(runs, ours, sides.CERBOS_GRPC, "cpu"),
                cost,
            )
        yield Condition(
            f"{name}: requests/s, of those of `{empty}`",
            _ratio(runs, ours, empty, "rate"),
            part,
            at_least=True,
        )


TRANSPORTS: Final[Mapping[str, tuple[str, str, float, float | None, float]]] = {
    f"transport envoy, {sides.workers(sides.ENVOYS)}": (
        sides.OURS_ENVOY,
        sides.EMPTY_ENVOY,
        3.0,
        1 / 3,
        0.75,
    ),
    f"transport grpcio, {sides.workers(sides.CORES)}": (
        sides.OURS_ALL,
        sides.EMPTY_ASYNCIO,
        1.0,
        None,
        0.8,
    ),
}
"""Our side, the empty handler, and the limits: times Cerbos, CPU of Cerbos's, part of the empty handler."""


def _ratio(runs: Mapping[tuple[str, str], tuple[Run, ...]], one: str, other: str, field: str) -> float | None:
    ones, others = runs.get((one, SATURATED)), runs.get((other, SATURATED))
    if ones is None or others is None:
        return None
    if not all(getattr(run, field) for run in others):  # rounds shorter than the kernel's ticks
        return None
    return ratio(ones, others, lambda run: float(getattr(run, field)))


def behind_envoy(
    runs: Mapping[tuple[str, str], tuple[Run, ...]], ours: Sequence[str], load: str
) -> Iterator[Condition]:
    """Compare what a check adds to a request through Envoy, at one fixed rate for all."""
    for side in ours:
        for peer in (sides.CERBOS_ADAPTER, sides.OPA_AUTHZ):
            for percent in (50, 99):
                yield Condition(
                    f"through Envoy at {load}: added p{percent}, {side}, of that of {peer}",
                    _added_ratio(runs, side, peer, load, percent),
                    1.0,
                )


def _added_ratio(
    runs: Mapping[tuple[str, str], tuple[Run, ...]], one: str, other: str, load: str, percent: int
) -> float | None:
    alone = runs.get((ALONE, load))
    ones, others = runs.get((one, load)), runs.get((other, load))
    if alone is None or ones is None or others is None:
        return None
    theirs = added(others, alone, percent)
    return added(ones, alone, percent) / theirs if theirs > 0 else None


def growth(starts: Iterable[Start], measurements: Iterable[Measurement], most: int) -> Iterator[Condition]:
    """Hold start, memory and decisions against their limits; *most* policies."""
    by_side = {start.side: start for start in starts if start.policies == most}
    ours, cerbos = by_side.get(scale.OURS), by_side.get(scale.CERBOS)
    for what, side, limit in (("start", scale.OURS, 1 / 3), ("start again", scale.AGAIN, 1 / 10)):
        mine = by_side.get(side)
        yield Condition(
            f"{what} with {most:,} policies, of Cerbos's time",
            mine.seconds / cerbos.seconds if mine and cerbos else None,
            limit,
        )
    yield Condition(
        f"memory with {most:,} policies, one worker", ours.pss if ours else None, 300, unit=" MiB"
    )
    for phase, text in (("routes", "Authorizer.check"), ("policies", "Engine.check")):
        cases = [each for each in measurements if each.phase == phase]
        if cases:
            first, last = cases[0], cases[-1]
            yield Condition(f"{text}, median in process", first.value, first.budget or 0.0, unit=" µs")
            yield Condition(f"{last.case}, of the time with the fewest", last.ratio, 1.2)
