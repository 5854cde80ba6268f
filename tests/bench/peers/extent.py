"""How much of a comparison is measured, and about how long that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.h2load import Closed
from tests.bench.measure import BURST
from tests.bench.peers import scale
from tests.bench.peers.rounds import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.peers.sides import Side

CLOSED: Final = (Closed(1, 1), Closed(4, 4), Closed(8, 8))
MANY: Final = 1000


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


FULL: Final = Extent(Plan(5, 0.7), Plan(5, 1.5), (500, 1500), (10, 1000, 10_000), 2, 101, own_half=True)
QUICK: Final = Extent(Plan(3, 0.4), Plan(3, 1.0), (500,), (10, 1000), 1, 31, own_half=False)


# --- about how long ---------------------------------------------------------------------------------------

LOAD: Final = 0.1
"""Seconds that a load takes beside its own: to start h2load and to read what it writes."""
ASKING: Final = 0.2
"""Of each side under each load: its answers are looked at, and a short load tells how long a round is."""
SERVER: Final = 3.0
"""To start a server and to end it."""
POLICY: Final = {scale.OURS: 0.0012, scale.AGAIN: 0.0003, scale.CERBOS: 0.003}
"""More for each policy."""
CASES: Final = 5
"""Measured in process, about."""


def seconds(extent: Extent, sides: Sequence[Side]) -> float:
    """Estimate how long it takes to measure *sides*, in seconds, on two processors that nobody else uses."""
    asked = sum(side.directly for side in sides)
    behind = sum(side.behind_envoy or side.is_gateway for side in sides)
    return (
        SERVER * len(sides)
        + asked * (len(CLOSED) + len(extent.rates)) * _turns(extent.plan)
        + (_through_envoy(extent, behind) if behind else 0.0)
        + _starts(extent)
        + extent.bursts * BURST * CASES
        + POLICY[scale.OURS] * sum(extent.policies)  # an engine in process
    )


def _turns(plan: Plan) -> float:
    """All rounds of one side under one load."""
    return ASKING + plan.rounds * (plan.seconds + LOAD)


def _through_envoy(extent: Extent, behind: int) -> float:
    alone = 1
    closed = len(CLOSED) * (behind + alone) * _turns(extent.plan)
    fixed = behind + alone + (behind * (1 + alone) if extent.own_half else 0)
    return SERVER + closed + fixed * _turns(extent.fixed)


def _starts(extent: Extent) -> float:
    return sum(
        extent.repeats(number) * sum(SERVER + each * number for each in POLICY.values())
        for number in extent.policies
    )
