"""Compares the two sides' answers and explains what differs by the quirks that are known."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from engine.check import check
from tests.differential.quirks import QUIRKS
from tests.differential.sides import Answer, Cerbos, Request, answer, ours, questions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine import Engine

BROKEN = ("500 panic caught", "500 proto:\xa0google.protobuf.Value.number_value")
"""Cerbos has no answer: bytes as a key of a map, a number in an output that JSON does not have."""

MOST_AT_ONCE = 3
"""How many quirks may meet in one answer."""


class Difference(NamedTuple):
    """An answer of ours that is not Cerbos's."""

    request: Request
    """The request, with the one resource that was answered differently."""

    ours: Answer
    cerbos: Answer
    quirks: tuple[str, ...] | None
    """The quirks that explain it; ``None``: it is not explained."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that differ."""
        return tuple(
            name for name in Answer._fields if getattr(self.ours, name) != getattr(self.cerbos, name)
        )


def differences(engine: Engine, cerbos: Cerbos, request: Request) -> Iterator[Difference]:
    """Ask both sides, and return what differs.

    A request that is answered differently is asked again in halves, down to the resources that it is about:
    which policies were looked at is only told for all of them together.
    """
    left, right = ours(engine, request), cerbos.answers(request)
    if left == right:
        return
    resources = request["resources"]
    if len(resources) > 1:
        middle = len(resources) // 2
        for half in (resources[:middle], resources[middle:]):
            yield from differences(engine, cerbos, {**request, "resources": half})
    elif not right[0].failure.startswith(BROKEN):
        yield Difference(request, left[0], right[0], explanation(engine, request, right[0]))


def explanation(engine: Engine, request: Request, theirs: Answer) -> tuple[str, ...] | None:
    """Return the fewest quirks with which our engine gives the answer *theirs*."""
    for count in range(1, MOST_AT_ONCE + 1):
        for chosen in itertools.combinations(QUIRKS, count):
            if quirky(engine, request, chosen) == theirs:
                return chosen
    return None


def quirky(engine: Engine, request: Request, chosen: Sequence[str]) -> Answer:
    """Return our answer about one resource with some quirks."""
    with contextlib.ExitStack() as stack:
        for name in chosen:
            stack.enter_context(QUIRKS[name]())
        table = engine.table.with_settings(engine.table.settings)
        (question,) = questions(request)
        return answer(check(table, question))
