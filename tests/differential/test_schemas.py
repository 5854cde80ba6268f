"""The same attributes held against the same schemas by our engine and by the real Cerbos, fixed seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential.oracle import cerbos_binary
from tests.differential.schemas import CONFIGURATIONS, REQUESTS, RESOURCES, compared
from tests.differential.shrink import shrunk

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(1, 9)


def test_enough_is_compared() -> None:
    """The fixed seeds are a few thousand comparisons, in every configuration."""
    assert len(SEEDS) * REQUESTS * RESOURCES >= 4_000
    assert len(SEEDS) >= len(CONFIGURATIONS)


@pytest.mark.parametrize("seed", SEEDS)
def test_validated_as_by_cerbos(seed: int, record_property: Callable[[str, object], None]) -> None:
    """Sources, paths and messages of what is wrong with attributes are Cerbos's, and so are the decisions."""
    cerbos_binary()
    tally = compared(seed)
    record_property("compared", ("schemas", tally.checks, tally.explained.total()))
    if tally.unexplained:
        case, found = shrunk(*tally.unexplained[0])
        pytest.fail(f"{tally}\n{case}\nours:   {found.ours}\nCerbos: {found.cerbos}")
    assert tally.checks == REQUESTS * RESOURCES
    assert set(tally.explained) <= {"schemas-below-their-policy"}
