"""Compares the two sides' answers and explains what differs by the quirks that are known."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from engine.check import check
from tests.differential.quirks import QUIRKS
from tests.differential.sides import Answer, Request, answer, questions

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


def differences(
    engine: Engine, request: Request, left: Sequence[Answer], right: Sequence[Answer]
) -> Iterator[Difference]:
    """Return what differs between our answers (*left*) and Cerbos's (*right*)."""
    for entry, mine, theirs in zip(request["resources"], left, right, strict=True):
        if mine != theirs and not theirs.failure.startswith(BROKEN):
            one = {**request, "resources": [entry]}
            yield Difference(one, mine, theirs, explanation(engine, one, theirs))


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
