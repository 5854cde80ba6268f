"""CEL alone: generated expressions over all libraries, evaluated by us and by the real Cerbos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.differential import cel
from tests.differential.oracle import cerbos_binary
from tests.differential.sides import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

DIVERGENCES = Path(__file__).resolve().parents[1] / "conformance/divergences.yaml"
LISTED: dict[str, Any] = {
    name: divergence
    for name, divergence in yaml.safe_load(DIVERGENCES.read_text()).items()
    if "shown" in divergence
}
SEEDS = range(1, 5)
MOST_UNLIKE = 0.02
"""Of the expressions, those at most that the two type checkers may see differently."""


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluated_as_by_cerbos(seed: int, record_property: Callable[[str, object], None]) -> None:
    """An expression has the value that it has in Cerbos, or fails where it fails there."""
    cerbos_binary()
    found = cel.compared(seed)
    record_property("compared", ("expressions", found.expressions, found.explained))
    assert not found.unexplained
    assert len(found.unlike) <= MOST_UNLIKE * found.expressions, sorted(found.unlike)


WORDS = ("error", "refused", "no answer")


@pytest.mark.parametrize("name", LISTED)
def test_divergences(name: str) -> None:
    """Where expressions differ on purpose, both of us do what the list of divergences says."""
    cerbos_binary()
    for row in LISTED[name]["shown"]:
        found = cel.both(row["expr"])
        wanted = (row["ours"], row["cerbos"])
        assert found == tuple(one if one in WORDS else canonical(one) for one in wanted), row["expr"]
