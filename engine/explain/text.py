"""An explanation as indented text, for people at a terminal.

Each line has a tone, what it says for the decision; in which colour that is shown is the terminal's business.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.model import Effect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.explain.explanation import (
        ActionExplanation,
        Condition,
        DerivedRoleExplanation,
        Explanation,
        RuleExplanation,
        ScopeExplanation,
        Walk,
    )
    from engine.model import ActionDecision, JsonValue, Output
    from engine.rules import Row

LONGEST_VALUE = 200
"""Characters of a value that are shown."""

Tone = Literal["plain", "allowed", "denied", "failed", "aside"]
"""``aside``: it changes nothing; ``failed``: an error."""


class Line(NamedTuple):
    """A line of the text, without characters that a terminal would obey."""

    text: str
    tone: Tone = "plain"


def text(explanation: Explanation) -> str:
    """Return the whole explanation."""
    return "\n".join(line.text for line in lines(explanation))


def lines(explanation: Explanation) -> Iterator[Line]:
    """Yield the whole explanation line by line."""
    yield from (Line(_printable(note)) for note in explanation.notes)
    for action in explanation.actions:
        yield from (line._replace(text=_printable(line.text)) for line in _action(action))


def _printable(line: str) -> str:
    """Escape what a terminal would obey; names and values are the client's."""
    if line.isprintable():
        return line
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line
    )


_TONES: Mapping[Effect | None, Tone] = {Effect.ALLOW: "allowed", Effect.DENY: "denied", None: "plain"}


def _action(action: ActionExplanation) -> Iterator[Line]:
    decision = action.decision
    yield Line(f"{action.action}: {_decided(decision)}", _TONES[decision.effect])
    yield Line(f"  {action.reason}")
    for walk in action.walks:
        yield from _indented(_walk(walk))


def _decided(decision: ActionDecision) -> str:
    rule = f", rule `{decision.rule}`" if decision.rule else ""
    scope = f", scope `{decision.scope}`" if decision.scope else ""
    return f"{_word(decision.effect)} by {decision.policy}{scope}{rule}"


def _word(effect: Effect | None) -> str:
    return "-" if effect is None else effect.name


def _walk(walk: Walk) -> Iterator[Line]:
    parents = f" (with its parents: {', '.join(walk.roles[1:])})" if len(walk.roles) > 1 else ""
    about = f"resource, role `{walk.role}`{parents}" if walk.role else "principal"
    yield Line(f"policies of the {about}")
    for scope in walk.scopes:
        yield from _indented(_scope(scope))


def _scope(scope: ScopeExplanation) -> Iterator[Line]:
    policies = ", ".join(scope.policies) or "no policy"
    yield Line(f"scope `{scope.scope}`: {policies}" if scope.scope else f"root scope: {policies}")
    for role in scope.derived_roles:
        yield from _indented(_derived_role(role))
    for rule in scope.rules:
        yield from _indented(_rule(rule))
    for other in scope.others:
        via = f" (derived role `{other.row.derived_role.name}`)" if other.row.derived_role else ""
        yield Line(f"  {_named(other.row)}{via}: {other.reason}  [{other.row.place}]", "aside")
    yield Line(f"  {scope.end}")


def _derived_role(role: DerivedRoleExplanation) -> Iterator[Line]:
    said = f"derived role `{role.derived_role.name}`: {role.outcome}  [{role.derived_role.place}]"
    yield Line(said, "failed" if role.outcome == "failed" else "plain")
    if role.condition is not None:
        yield from _indented(_condition(role.condition))


def _named(row: Row) -> str:
    if row.name:
        return f"rule `{row.name}`"
    is_written = row.authored_effect is not None or row.effect is None
    return "entry of the role policy" if is_written else "an action that the role policy does not list"


def _rule(rule: RuleExplanation) -> Iterator[Line]:
    row = rule.row
    via = f" through derived role `{row.derived_role.name}`" if row.derived_role else ""
    yield Line(f"{_named(row)} ({_word(row.effect)}{via}): {rule.outcome}  [{row.place}]", _rule_tone(rule))
    if rule.rewritten:
        yield Line(f"  written as {_word(row.authored_effect)}; it denies when its condition is not met")
    if rule.derived_role is not None and rule.derived_role.outcome != "active":
        yield from _indented(_derived_role(rule.derived_role))
    if rule.condition is not None:
        yield from _indented(_condition(rule.condition))
    if rule.output is not None:
        yield Line(f"  output: {_said(rule.output)}")


def _rule_tone(rule: RuleExplanation) -> Tone:
    if rule.outcome == "activated":
        return _TONES[rule.row.effect]
    return "failed" if "error" in rule.outcome else "aside"


def _condition(condition: Condition) -> Iterator[Line]:
    if condition.clause is None:
        yield Line(f"{condition.kind} of: {condition.outcome}")
        for part in condition.parts:
            yield from _indented(_condition(part))
        return
    said = f"{' '.join(condition.clause.text.split())}: {_result(condition)}"
    yield Line(said, "failed" if condition.error else "plain")
    for reference in condition.references:
        found = f"error: {reference.error}" if reference.error else _value(reference.value)
        yield Line(f"  {reference.name} = {found}", "aside")


def _result(condition: Condition) -> str:
    if condition.error:
        return f"{condition.outcome} (error: {condition.error})"
    if condition.outcome == "false" and condition.value is not False:
        return f"false (not a boolean: {_value(condition.value)})"
    return condition.outcome


def _said(output: Output) -> str:
    return f"error: {output.error}" if output.error else _value(output.value)


def _value(value: JsonValue) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= LONGEST_VALUE else f"{written[:LONGEST_VALUE]}..."


def _indented(inner: Iterable[Line]) -> Iterator[Line]:
    return (line._replace(text=f"  {line.text}") for line in inner)
