"""The same plans by our engine and by the real Cerbos: generated policies and questions, fixed seeds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conformance.suite import GAPS
from tests.differential.oracle import cerbos_binary
from tests.differential.plan_quirks import QUIRKS
from tests.differential.plans import QUESTIONS, compared

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(1, 43)
"""Fixed, so that a failure is seen again. Some sets Cerbos cannot compile; those compare nothing."""

LEAST = 2_000


def test_enough_is_asked() -> None:
    """The fixed seeds are 2,000 comparisons, also if a fifth of the sets compares nothing."""
    assert len(SEEDS) * QUESTIONS * 0.8 >= LEAST


def test_every_quirk_is_listed() -> None:
    """Each way in which our plans differ from Cerbos's on purpose is listed with its reason."""
    listed = yaml.safe_load(GAPS.with_name("divergences.yaml").read_text())
    assert QUIRKS.keys() <= listed.keys()
    of_plans = {name: entry for name, entry in listed.items() if name.startswith("plan-")}
    assert all(entry.keys() == {"cerbos", "ours", "why", "plans"} for entry in of_plans.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_planned_as_by_cerbos(seed: int, record_property: Callable[[str, object], None]) -> None:
    """Kinds, filters, debug strings and matched scopes are those of Cerbos."""
    cerbos_binary()
    tally = compared(seed)
    record_property("compared", ("plans", tally.plans, tally.explained.total()))
    if tally.unexplained:
        files, request, mine, theirs = tally.unexplained[0]
        pytest.fail(f"{json.dumps(files)}\n{json.dumps(request)}\nours:   {mine}\nCerbos: {theirs}")
