"""CEL alone: generated expressions over all libraries, evaluated by us and by the real Cerbos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.differential import cel
from tests.differential.oracle import OracleError, cerbos_binary

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(1, 9)
MOST_UNLIKE = 0.02
"""Of the expressions, those at most that the two type checkers may see differently."""


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluated_as_by_cerbos(seed: int, record_property: Callable[[str, object], None]) -> None:
    """An expression has the value that it has in Cerbos, or fails where it fails there."""
    cerbos_binary()
    texts = cel.texts(seed, cel.RULES)
    refused = cel.refused_by_us(texts, cel.checker())
    unlike = refused.keys() - cel.refused_by_cerbos(list(refused)).keys()
    accepted = [text for text in texts if text not in refused]
    try:
        found = list(cel.mismatches(accepted, seed))
    except OracleError:  # it refuses some of them
        theirs = cel.refused_by_cerbos(accepted)
        unlike |= theirs.keys()
        accepted = [text for text in accepted if text not in theirs]
        found = list(cel.mismatches(accepted, seed))
    unexplained = [one for one in found if not cel.explained(one)]
    record_property("compared", ("expressions", len(accepted), len(found) - len(unexplained)))
    assert not unexplained
    assert len(unlike) <= MOST_UNLIKE * len(texts), sorted(unlike)
