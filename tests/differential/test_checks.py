"""The same questions to our engine and to the real Cerbos: generated policies and requests, fixed seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.oracle import cerbos_binary
from tests.differential.run import REQUESTS, RESOURCES, compared
from tests.differential.shrink import shrunk

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_REFUSED = 2
"""Expressions of one set at most that only Cerbos's type checker refuses."""

SEEDS = range(1, 22)
"""Fixed, so that a failure is seen again; ``make differential`` takes others."""


def test_enough_is_compared() -> None:
    """The fixed seeds are 20,000 comparisons at least."""
    assert len(SEEDS) * REQUESTS * RESOURCES >= 20_000


@pytest.mark.parametrize("seed", SEEDS)
def test_decided_as_by_cerbos(seed: int, record_property: Callable[[str, object], None]) -> None:
    """Effects, deciding policies and scopes, derived roles, outputs and errors are those of Cerbos."""
    cerbos_binary()
    tally = compared(seed)
    record_property("compared", ("checks", tally.checks, tally.explained.total()))
    if tally.unexplained:
        case, found = shrunk(*tally.unexplained[0])
        pytest.fail(f"{tally}\n{case}\nours:   {found.ours}\nCerbos: {found.cerbos}")
    assert tally.checks == REQUESTS * RESOURCES
    assert tally.refused <= MOST_REFUSED
