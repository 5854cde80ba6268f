"""The same questions to two rule tables, and what differs in the answers.

Differences of one kind are one :class:`Change`: the same action on the same kind of resource, decided
differently by the same rules. Each shows the question that is the easiest to read, made smaller where it was
generated.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from engine.check import check
from engine.comparison.shrink import shrunk, size
from engine.model import Effect
from engine.verify.matrix import same_value
from engine.verify.run import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.comparison.cases import Case, Origin
    from engine.model import Decision, JsonValue
    from engine.rules import RuleTable


class Said(NamedTuple):
    """What one side says of an action: the effect, and the policy and the rule that it comes from."""

    effect: Effect
    policy: str
    rule: str

    def __str__(self) -> str:
        word = self.effect.name.lower()
        return f"{word} ({self.policy}{f', {self.rule}' if self.rule else ''})"


@dataclass(frozen=True, slots=True)
class _Key:
    """What makes two differences the same change."""

    kind: str
    action: str
    old: Said
    new: Said
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A decision that is another one now."""

    kind: str
    """The kind of resource."""

    action: str
    old: Said
    new: Said
    """Where only an output differs: the effect, without policy and rule, as several may lead to it."""

    source: str
    """The source of the output that differs; empty where the effect does."""

    counts: Mapping[Origin, int]
    """How many questions show it, by where they come from."""

    example: Case
    outputs: tuple[JsonValue, JsonValue] = (None, None)
    """What the source says in the example, before and after; several things are a list."""

    @property
    def allows_more(self) -> bool:
        """What was denied is allowed: what a reviewer has to look at first."""
        return self.old.effect is not self.new.effect and self.new.effect is Effect.ALLOW

    def __str__(self) -> str:
        what = f"{self.kind}: {self.action}: "
        if self.source:
            return f"{what}{self.new.effect.name.lower()}, but {self.source} says something else"
        return f"{what}{self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was asked, and what came of it."""

    asked: Mapping[Origin, int]
    """Questions by where they come from; a question about several actions counts once."""

    changes: tuple[Change, ...]
    """Grants first, then denials, then outputs; by kind and action."""


@dataclass(slots=True, eq=False)
class _Found:
    example: Case
    counts: Counter[Origin] = field(default_factory=Counter)


def compare(old: RuleTable, new: RuleTable, cases: Iterable[Case]) -> Comparison:
    """Ask both tables all of *cases*."""
    sides = _Sides(old, new)
    asked: Counter[Origin] = Counter()
    found: dict[_Key, _Found] = {}
    for case in cases:
        asked[case.origin] += 1
        for key in sides.differences(case):
            known = found.setdefault(key, _Found(case))
            known.counts[case.origin] += 1
            if _rank(case) < _rank(known.example):
                known.example = case
    changes = [_change(key, seen, sides) for key, seen in found.items()]
    return Comparison(asked, tuple(sorted(changes, key=_order)))


_BEST: Mapping[Origin, int] = {"log": 0, "test": 1, "generated": 2}


def _rank(case: Case) -> tuple[int, int]:
    """Put what happened before what is tested, that before what was made up, and the small first."""
    return _BEST[case.origin], size(case.input)


def _order(change: Change) -> tuple[bool, bool, str, str, str]:
    return bool(change.source), not change.allows_more, change.kind, change.action, str(change)


def _change(key: _Key, seen: _Found, sides: _Sides) -> Change:
    example = seen.example
    if example.origin == "generated":
        example = shrunk(example, lambda smaller: key in sides.differences(smaller))
    outputs = sides.outputs(example, key) if key.source else (None, None)
    return Change(key.kind, key.action, key.old, key.new, key.source, dict(seen.counts), example, outputs)


class _Sides:
    """The two tables, under the settings that tests ask for."""

    def __init__(self, old: RuleTable, new: RuleTable) -> None:
        self._old, self._new = Tables(old, strict=False), Tables(new, strict=False)

    def differences(self, case: Case) -> Iterator[_Key]:
        """Yield what the two say differently, action by action."""
        before, after = self._asked(case)
        for action in dict.fromkeys(case.input.actions):
            yield from _differences(case.input.resource.kind, action, before, after)

    def outputs(self, case: Case, key: _Key) -> tuple[JsonValue, JsonValue]:
        """Return what the source of *key* says on each side."""
        found = [_outputs(decision, key.action).get(key.source, []) for decision in self._asked(case)]
        old, new = ((said[0] if len(said) == 1 else said or None) for said in found)
        return old, new

    def _asked(self, case: Case) -> tuple[Decision, Decision]:
        return (
            check(self._old.table(case.options), case.input, now=case.now),
            check(self._new.table(case.options), case.input, now=case.now),
        )


def _differences(kind: str, action: str, before: Decision, after: Decision) -> Iterator[_Key]:
    old, new = _said(before, action), _said(after, action)
    if old.effect is not new.effect:
        yield _Key(kind, action, old, new)
        return
    same = Said(old.effect, "", "")
    said_before, said_after = _outputs(before, action), _outputs(after, action)
    for source in sorted(said_before.keys() | said_after.keys()):
        if not same_value(said_before.get(source), said_after.get(source)):
            yield _Key(kind, action, same, same, source)


def _said(decision: Decision, action: str) -> Said:
    effect, policy, _, rule = decision.actions[action]
    return Said(effect, policy, rule)


def _outputs(decision: Decision, action: str) -> dict[str, list[JsonValue]]:
    """Return what is said about an action by source, which may speak several times."""
    found: dict[str, list[JsonValue]] = {}
    for output in decision.outputs:
        if output.action == action:
            found.setdefault(output.src, []).append({"error": output.error} if output.error else output.value)
    return found
