"""What two sets of policies speak of: kinds, actions, roles, attributes, and values that matter to them.

An attribute's values are those that stand beside it: the constants of the expressions that read it, first of
all, then those of the policy. Two attributes in one expression are often compared, so they get values in
common.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine import policy as p
from engine.cel.nodes import Const
from engine.model import json_value
from engine.plan.tree import children

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.cel.nodes import Node
    from engine.model import JsonValue
    from engine.rules import Clause, CompiledPolicy, RuleTable

Path = tuple[str, ...]
"""``("P", "attr", "region")``, ``("R", "attr", ...)`` or ``("jwt", name, ...)``."""

Values = dict[str, "JsonValue"]
"""Scalars by the way they are written: ``true`` and ``1.0`` are two values, and one key."""

SOMEBODY = ("alice", "bob")
"""Principals without policies of their own; also values, as attributes often hold who owns something."""

NO_ROLE = "nobody_in_particular"
MOMENTS = ("2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z")
"""Before and after the moment that a generated question asks at."""

_PLACES: dict[Path, Path] = {
    ("P", "attr"): ("P", "attr"),
    ("request", "principal", "attr"): ("P", "attr"),
    ("R", "attr"): ("R", "attr"),
    ("request", "resource", "attr"): ("R", "attr"),
    ("request", "auxData", "jwt"): ("jwt",),
    ("request", "aux_data", "jwt"): ("jwt",),
}


@dataclass(slots=True, eq=False)
class Subject:
    """A kind of resource in one version and scope, and what policies say about it."""

    kind: str
    version: str
    scope: str
    actions: dict[str, None] = field(default_factory=dict)
    roles: dict[str, None] = field(default_factory=dict)
    values: dict[Path, Values] = field(default_factory=dict)
    """By attribute: what its expressions compare it with."""

    others: Values = field(default_factory=dict)
    """Every constant of the policies."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of both sides, in a fixed order."""

    subjects: tuple[Subject, ...]
    principals: tuple[str, ...]


def vocabulary_of(*tables: RuleTable) -> Vocabulary:
    """Collect what the policies of *tables* speak of."""
    collector = _Collector()
    for table in tables:
        for key in sorted(table.policies):
            collector.take(table.policies[key])
    return collector.vocabulary()


class _Collector:
    def __init__(self) -> None:
        self._subjects: dict[Path, Subject] = {}
        self._principals: dict[str, None] = dict.fromkeys(SOMEBODY)
        self._general: list[Subject] = []
        """What principal and role policies say, which may be about any kind."""

    def take(self, policy: CompiledPolicy) -> None:
        body = policy.policy.body
        if isinstance(body, p.ResourcePolicy):
            subject = self._subject(body.resource, body.version, body.scope)
            for rule in body.rules:
                _add(subject.actions, map(example_of, rule.actions))
                _add(subject.roles, (role for role in rule.roles if role != "*"))
            for derived in policy.derived_roles:
                _add(subject.roles, sorted(derived.parents - {"*"}))
            self._read(policy, subject)
        else:
            self._take_general(policy, body)

    def _take_general(self, policy: CompiledPolicy, body: p.Body) -> None:
        general = Subject("", "", "")
        if isinstance(body, p.PrincipalPolicy):
            self._principals[body.principal] = None
            for rule in body.rules:
                actions = [example_of(action.action) for action in rule.actions]
                _add(self._subject(example_of(rule.resource), body.version, body.scope).actions, actions)
                _add(general.actions, actions)
        elif isinstance(body, p.RolePolicy):
            _add(general.roles, (body.role, *body.parent_roles))
            for entry in body.rules:
                actions = [example_of(action) for action in entry.allow_actions]
                _add(self._subject(example_of(entry.resource), body.version, body.scope).actions, actions)
                _add(general.actions, actions)
        self._read(policy, general)
        self._general.append(general)

    def _subject(self, kind: str, version: str, scope: str) -> Subject:
        return self._subjects.setdefault((kind, version, scope), Subject(kind, version, scope))

    def _read(self, policy: CompiledPolicy, subject: Subject) -> None:
        clauses = {clause.text: clause for row in policy.rows for clause in row.clauses}
        for clause in clauses.values():
            _read_clause(clause, subject)
        for row in policy.rows:
            _add_values(subject.others, _scalars(row.parameters.constants))

    def vocabulary(self) -> Vocabulary:
        for subject in self._subjects.values():
            for general in self._general:
                _merge(general, subject)
            subject.actions.setdefault("some_other_action", None)
            subject.roles.setdefault(NO_ROLE, None)
        ordered = tuple(self._subjects[key] for key in sorted(self._subjects))
        return Vocabulary(ordered, tuple(self._principals))


def _merge(general: Subject, subject: Subject) -> None:
    _add(subject.actions, general.actions)
    _add(subject.roles, general.roles)
    subject.others.update(general.others)
    for path, values in general.values.items():
        subject.values.setdefault(path, {}).update(values)


def _read_clause(clause: Clause, subject: Subject) -> None:
    expression = clause.expression
    constants = list(_constants(expression.nodes))
    if expression.uses_now or "timestamp(" in expression.text:
        constants += MOMENTS
    attributes = [path for path in map(_attribute, sorted(expression.references)) if path]
    for path in attributes:
        known = subject.values.setdefault(path, {})
        _add_values(known, constants)
        if len(attributes) > 1 or {"P", "R", "request"} & expression.identifiers:
            _add_values(known, SOMEBODY)
    _add_values(subject.others, constants)


def _attribute(reference: Path) -> Path:
    """Return the attribute that a reference is about; empty when it is about none."""
    for start, place in _PLACES.items():
        if reference[: len(start)] == start and len(reference) > len(start):
            return (*place, *reference[len(start) :])
    return ()


def _constants(node: Node) -> Iterator[JsonValue]:
    """Yield the constants in an expression that JSON has, numbers with their neighbours."""
    if isinstance(node, Const):
        yield from _scalars(node.value)
    for part in children(node):
        yield from _constants(part)


def _scalars(value: Any) -> Iterator[JsonValue]:
    if isinstance(value, bool | str):
        yield value
    elif isinstance(value, int | float):
        yield from (float(value), float(value) - 1, float(value) + 1)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _scalars(json_value(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _scalars(json_value(item))


def _add(known: dict[str, None], more: Iterable[str]) -> None:
    known.update(dict.fromkeys(more))


def _add_values(known: Values, more: Iterable[JsonValue]) -> None:
    known.update((repr(value), value) for value in more)


_GLOB = re.compile(r"\*+|\?|\[(?:!|\^)?([^\]])[^\]]*\]|\{([^,}]*)[^}]*\}")


def example_of(glob: str) -> str:
    """Return a text that a glob matches; for odd ones perhaps not, and then it is a text like any other."""
    return _GLOB.sub(lambda found: found[1] or found[2] or "x", glob)
