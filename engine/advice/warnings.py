"""What looks like a mistake in policies that can be used: warnings, never faults.

A warning is said of what is certain to have no effect, or to fail whenever it is reached: an attribute that
the attached schema does not have, a comparison or an operation that its type rules out, a condition that is
no boolean, a rule that cannot decide anything, a pattern that matches nothing or that is none. Nothing here
changes a decision.

Expressions are looked into only where their text or a schema gives reason to, because that costs as much as
compiling them.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import policy as p
from engine.advice.shape import Found, Missing, shape
from engine.advice.uses import FAILS, Demand, Uses, uses
from engine.cel import EvaluationError
from engine.conditions import Leaf, clauses_of
from engine.document import did_you_mean
from engine.globs import is_glob, is_literal, is_valid
from engine.model import Effect
from engine.names import resource_rule_name
from engine.schema.sources import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from engine.advice.uses import Attribute
    from engine.cel.nodes import Span
    from engine.conditions import Match
    from engine.definitions import Scope
    from engine.document import Fault, Path
    from engine.rules import Clause, CompiledPolicy, DerivedRole
    from engine.schema import Schema, Schemas

UNKNOWN_ATTRIBUTE = "unknown attribute"
IMPOSSIBLE = "impossible operation"
NOT_BOOLEAN = "condition is not boolean"
NEVER_MATCHES = "rule never matches"
INVALID_PATTERN = "invalid pattern"
NO_PATTERN = "not a pattern"

KNOWN_TYPES = frozenset(("bool", "dyn"))
"""Types of conditions that may be booleans."""


@dataclass(frozen=True, slots=True)
class Attached:
    """The schema of one side's attributes, for messages: ``P`` or ``R``."""

    word: str
    ref: str
    schema: Schema


def attached(asked: p.Schemas | None, schemas: Schemas) -> Mapping[str, Attached]:
    """Return the schemas that the root policy of a chain of scopes asks for, those that can be used."""
    found = {}
    for root, word, one in (
        ("P", "principal", asked.principal_schema if asked else None),
        ("R", "resource", asked.resource_schema if asked else None),
    ):
        schema = schemas.get(one.ref) if one is not None else None
        if one is not None and schema is not None and not isinstance(schema, SchemaError):
            found[root] = Attached(word, one.ref, schema)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A policy, what it was compiled to, and the schemas that its chain of scopes asks for."""

    policy: p.Policy
    compiled: CompiledPolicy | None
    roles: Mapping[str, DerivedRole] | None
    scope: Scope
    schemas: Mapping[str, Attached]
    sound: bool = False
    """It was looked at before, and there is nothing to say."""

    def is_as(self, other: Subject) -> bool:
        """Tell whether there is nothing new to say."""
        mine = [self.compiled, self.roles, self.scope, *(one.schema for one in self.schemas.values())]
        theirs = [other.compiled, other.roles, other.scope, *(one.schema for one in other.schemas.values())]
        return len(mine) == len(theirs) and all(map(operator.is_, mine, theirs))


class _Said(NamedTuple):
    subject: Subject
    faults: tuple[Fault, ...]


class Adviser:
    """Looks at compiled policies; what was said of one is said again as long as it is the same."""

    def __init__(self) -> None:
        self._said: dict[p.Policy, _Said] = {}
        self._told: dict[p.Policy, tuple[Fault, ...]] = {}
        """The faults of those policies that have any."""
        self._uses: dict[str, Uses] = {}
        self._shapes: dict[tuple[Schema, Attribute], Missing | Found | None] = {}

    def warnings(self, subjects: Iterable[Subject]) -> tuple[Fault, ...]:
        """Return everything there is to say, by file and place."""
        said: dict[p.Policy, _Said] = {}
        for subject in subjects:
            before = self._said.get(subject.policy)
            known = before if before is not None and before.subject.is_as(subject) else None
            said[subject.policy] = known or self._say(subject)
        return self._conclude(said, {policy: each.faults for policy, each in said.items() if each.faults})

    def updated(self, gone: Iterable[p.Policy], subjects: Iterable[Subject]) -> tuple[Fault, ...]:
        """Return everything there is to say when only *subjects* are new and policies *gone* are away."""
        new = [self._say(subject) for subject in subjects]
        for policy in gone:
            self._said.pop(policy, None)
            self._told.pop(policy, None)
        for found in new:
            self._said[found.subject.policy] = found
            if found.faults:
                self._told[found.subject.policy] = found.faults
        return self._conclude(self._said, self._told)

    def is_silent(self, policy: p.Policy) -> bool:
        """Tell whether nothing was said of *policy*."""
        return policy in self._said and policy not in self._told

    def _say(self, subject: Subject) -> _Said:
        if subject.sound:
            return _Said(subject, ())
        return _Said(subject, tuple(dict.fromkeys(self._advice(subject))))

    def _conclude(
        self, said: dict[p.Policy, _Said], told: dict[p.Policy, tuple[Fault, ...]]
    ) -> tuple[Fault, ...]:
        self._said, self._told = said, told
        self._uses.clear()
        self._shapes.clear()
        return tuple(sorted(fault for faults in told.values() for fault in faults))

    def _advice(self, subject: Subject) -> Iterator[Fault]:
        yield from _patterns(subject.policy)
        yield from self._conditions(subject)
        if isinstance(subject.policy.body, p.ResourcePolicy):
            yield from _overruled(subject.policy, subject.policy.body)
        for clause in _own_clauses(subject):
            if _SUSPICIOUS.search(clause.text):
                yield from self._impossible(clause, {})
            if any(_root(path) in subject.schemas for path in clause.expression.references):
                yield from self._unknown(clause, subject.schemas)
                yield from self._impossible(clause, subject.schemas)

    # -- conditions ----------------------------------------------------------------------------------------

    def _conditions(self, subject: Subject) -> Iterator[Fault]:
        for path, match in _matches(subject):
            for clause in clauses_of(match):
                kind = clause.expression.result_type
                if kind not in KNOWN_TYPES:
                    message = (
                        f"`{clause.text}` is of type {kind}: a condition that is not boolean is never true"
                    )
                    yield _warning(clause, message, NOT_BOOLEAN)
            if constant(match) is False:
                here = (*path, "condition")
                told = "the condition is never true"
                yield subject.policy.document.fault(told, here, key=True, kind=NEVER_MATCHES)

    # -- attributes ----------------------------------------------------------------------------------------

    def _facts(self, clause: Clause) -> Uses:
        found: Uses | None = clause.expression.findings or self._uses.get(clause.text)
        if found is None:
            found = self._uses[clause.text] = uses(clause.expression.nodes)
        return found

    def _shape(self, schema: Schema, path: Attribute) -> Missing | Found | None:
        key = schema, path
        if key not in self._shapes:
            self._shapes[key] = shape(schema, path)
        return self._shapes[key]

    def _unknown(self, clause: Clause, schemas: Mapping[str, Attached]) -> Iterator[Fault]:
        facts = self._facts(clause)
        for attribute in dict.fromkeys(read.attribute for read in facts.reads):
            schema = schemas.get(attribute[0])
            found = None if schema is None else self._shape(schema.schema, attribute[2:])
            if schema is None or not isinstance(found, Missing):
                continue
            here = attribute[: 3 + found.step]
            if here in facts.guarded and not found.closed:
                continue
            more = ", which allows no others" if found.closed else ""
            message = f"`{_written(here)}` is not in the {schema.word} schema `{schema.ref}`{more}"
            yield _warning(clause, message, UNKNOWN_ATTRIBUTE, did_you_mean(here[-1], found.known))

    def _impossible(self, clause: Clause, schemas: Mapping[str, Attached]) -> Iterator[Fault]:
        for demand in _demands(self._facts(clause), clause):
            if not demand.kinds:
                if not schemas:  # said once, without schemas
                    yield _warning(clause, *_never_possible(clause, demand))
                continue
            schema = schemas.get(demand.attribute[0])
            found = None if schema is None else self._shape(schema.schema, demand.attribute[2:])
            if schema is not None and isinstance(found, Found):
                told = _ruled_out(demand, found)
                if told:
                    where = f"by the {schema.word} schema `{schema.ref}`"
                    message = f"`{_excerpt(clause, demand.span)}` {demand.outcome}: {where} "
                    yield _warning(clause, f"{message}`{_written(demand.attribute)}` is {told}", IMPOSSIBLE)


def _demands(facts: Uses, clause: Clause) -> Iterator[Demand]:
    yield from facts.demands
    is_condition = clause.path[-1:] == ("expr",) and "output" not in clause.path
    if facts.as_condition is not None and is_condition:
        yield facts.as_condition


_CHAIN = r"""\b(?:attr|auxData\.jwt|aux_data\.jwt)(?:\.\w+|\[["'][^"']*["']\])+"""
_START = r"(?:P|R|request\.\w+)\.(?:attr|jwt)\b"
_ORDER = r"(?:[<>]=?|[=!]=)"
_TIMES = r"(?:now|timestamp|duration|timeSince)\("
_SUSPICIOUS = re.compile(
    rf"{_CHAIN}\s*[-+*/%]|[-+*/%]\s*{_START}|{_CHAIN}\s*{_ORDER}\s*{_TIMES}|\)\s*{_ORDER}\s*{_START}"
)
"""Texts that may do something with an attribute that no attribute can take: calculate, or compare times."""


def _root(path: tuple[str, ...]) -> str:
    if path[:1] in (("P",), ("R",)) and path[1:2] == ("attr",):
        return path[0]
    named = {"principal": "P", "resource": "R"}
    return named.get(path[1], "") if path[:1] == ("request",) and path[2:3] == ("attr",) else ""


def _written(attribute: Attribute) -> str:
    return ".".join(attribute)


def _excerpt(clause: Clause, span: Span) -> str:
    """Return the part of the expression that *span* covers."""
    lines = clause.text.split("\n")[span.line - 1 : span.end_line]
    if not lines:
        return clause.text
    last = lines[-1].encode()[: span.end_column].decode(errors="ignore")
    text = "\n".join((*lines[:-1], last))
    return text.encode()[span.column :].decode(errors="ignore") or clause.text


def _never_possible(clause: Clause, demand: Demand) -> tuple[str, str, str]:
    """Word an operation that no attribute can take: message, kind, hint."""
    shown, place = _excerpt(clause, demand.span), _excerpt(clause, demand.place)
    kind = demand.other.type.name if demand.other is not None else ""
    if demand.function == "_%_":
        what = f"`{shown}` {FAILS}: a number in an attribute is a double, which has no `%`"
        return what, IMPOSSIBLE, f"write `int({place})` for `{place}`"
    if demand.other is not None and kind in ("int", "uint"):
        other = _excerpt(clause, demand.other.span)
        written = f"{other}.0" if other.isdigit() else f"double({other})"
        what = f"`{shown}` {FAILS}: a number in an attribute is a double"
        return what, IMPOSSIBLE, f"write `{written}`"
    if kind in _CONVERSIONS:
        word = _CONVERSIONS[kind]
        what = f"`{shown}` {demand.outcome}: an attribute is never a {word}"
        return what, IMPOSSIBLE, f"write `{word}({place})`"
    return f"`{shown}` {demand.outcome}: no attribute has a type for that", IMPOSSIBLE, ""


_CONVERSIONS = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration"}


def _ruled_out(demand: Demand, found: Found) -> str:
    """Say what an attribute is instead of what an operation asks for, empty when it may be that."""
    if found.kinds.isdisjoint(demand.kinds):
        return f"of type {' or '.join(sorted(found.kinds))}" if found.kinds else "of no type at all"
    if found.values is None or demand.values is None or demand.outcome == FAILS:
        return ""
    if any(_equal(value, other) for value in found.values for other in demand.values):
        return ""
    shown = ", ".join(repr(value) for value in found.values[:10])
    return f"one of {shown}"


def _equal(one: object, other: object) -> bool:
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _warning(clause: Clause, message: str, kind: str, hint: str = "") -> Fault:
    return clause.document.fault(message, clause.path, kind=kind, hint=hint)


# -- what a policy consists of -----------------------------------------------------------------------------


def _matches(subject: Subject) -> Iterator[tuple[Path, Match]]:
    """Yield the conditions as they were written, each with the path of its rule or derived role."""
    seen: set[Path] = set()
    for row in subject.compiled.rows if subject.compiled else ():
        if row.match is not None and row.path not in seen:
            seen.add(row.path)
            turned = row.effect is not row.authored_effect
            yield row.path, row.match.parts[0] if turned and not isinstance(row.match, Leaf) else row.match
    for role in (subject.roles or {}).values():
        if role.match is not None:
            yield role.path, role.match


def _own_clauses(subject: Subject) -> Iterator[Clause]:
    """Yield each expression that stands in the policy itself: conditions, outputs, local variables."""
    seen: set[int] = set()
    for row in subject.compiled.rows if subject.compiled else ():
        for clause in (*clauses_of(row.match), row.rule_activated, row.condition_not_met):
            if clause is not None and id(clause) not in seen:
                seen.add(id(clause))
                yield clause
    for role in (subject.roles or {}).values():
        yield from clauses_of(role.match)
    for definitions in subject.scope.variables.values():
        for found in definitions:
            if found.value is not None and found.document is subject.policy.document:
                yield found.value


def constant(match: Match) -> bool | None:
    """Return what a condition always is, ``None`` when that depends on the request."""
    if isinstance(match, Leaf):
        return _constant_value(match.clause)
    parts = [constant(part) for part in match.parts]
    return _COMBINED[type(match).__name__](parts)


def _all(parts: Sequence[bool | None]) -> bool | None:
    return False if False in parts else (None if None in parts else True)


def _any(parts: Sequence[bool | None]) -> bool | None:
    return True if True in parts else (None if None in parts else False)


def _none(parts: Sequence[bool | None]) -> bool | None:
    found = _any(parts)
    return None if found is None else not found


_COMBINED = {"All": _all, "Any_": _any, "None_": _none}


def _constant_value(clause: Clause) -> bool | None:
    expression = clause.expression
    if expression.identifiers or expression.uses_now:
        return None
    if len(clause.text) > _LONGEST_CONSTANT or expression.result_type not in KNOWN_TYPES:
        return None
    try:
        return expression.function(None) is True
    except EvaluationError:
        return None  # what an error means depends on how the check is evaluated


_LONGEST_CONSTANT = 200
"""Longer texts are not tried out when policies are loaded: a comprehension may run for long."""


# -- rules that never decide -------------------------------------------------------------------------------


def _overruled(policy: p.Policy, body: p.ResourcePolicy) -> Iterator[Fault]:
    """Yield the rules that allow what another rule of the policy denies to the same roles, always."""
    refusals = [
        (position, rule)
        for position, rule in enumerate(body.rules)
        if rule.effect is Effect.DENY and rule.condition is None and rule.roles
    ]
    for position, rule in enumerate(body.rules) if refusals else ():
        if rule.effect is Effect.ALLOW:
            for other, refusal in refusals:
                if _covers(refusal, rule):
                    name = resource_rule_name(refusal.name, other + 1)
                    message = (
                        f"the rule never allows anything: `{name}` denies the same actions to the same roles"
                    )
                    path = ("resourcePolicy", "rules", position)
                    yield policy.document.fault(message, path, kind=NEVER_MATCHES)
                    break


def _covers(refusal: p.ResourceRule, rule: p.ResourceRule) -> bool:
    """Tell whether *refusal* denies everything that *rule* might allow."""
    actions = "*" in refusal.actions or set(rule.actions) <= set(refusal.actions)
    same_roles = not rule.derived_roles and set(rule.roles) <= set(refusal.roles)
    return actions and ("*" in refusal.roles or same_roles)


# -- patterns ----------------------------------------------------------------------------------------------


def _patterns(policy: p.Policy) -> Iterator[Fault]:
    patterns = _PATTERNS.get(type(policy.body))
    for path, pattern, always_glob in patterns(policy.body) if patterns else ():
        if is_literal(pattern):
            continue
        if (always_glob or is_glob(pattern)) and not is_valid(pattern):
            message = f"`{pattern}` is no valid pattern: it matches nothing"
            yield policy.document.fault(message, path, kind=INVALID_PATTERN)
        elif not (always_glob or is_glob(pattern)):
            message = f"`{pattern}` has no `*`, so it is taken literally: it matches only itself"
            yield policy.document.fault(message, path, kind=NO_PATTERN)


Pattern = tuple["Path", str, bool]
"""Where a pattern stands, the pattern, and whether it is one even without a ``*``."""


def _listed(path: Path, patterns: Sequence[str], *, always_glob: bool = False) -> Iterator[Pattern]:
    yield from (((*path, index), pattern, always_glob) for index, pattern in enumerate(patterns))


def _resource_patterns(body: p.ResourcePolicy) -> Iterator[Pattern]:
    root: Path = ("resourcePolicy", "rules")
    for index, rule in enumerate(body.rules):
        yield from _listed((*root, index, "actions"), rule.actions)
        yield from _listed((*root, index, "roles"), rule.roles)
    asked = body.schemas or p.Schemas()
    for field_name, schema in (
        ("principalSchema", asked.principal_schema),
        ("resourceSchema", asked.resource_schema),
    ):
        if schema is not None and schema.ignore_when is not None:
            path: Path = ("resourcePolicy", "schemas", field_name, "ignoreWhen", "actions")
            yield from _listed(path, schema.ignore_when.actions, always_glob=True)


def _principal_patterns(body: p.PrincipalPolicy) -> Iterator[Pattern]:
    for index, rule in enumerate(body.rules):
        here: Path = ("principalPolicy", "rules", index)
        yield (*here, "resource"), rule.resource, False
        for number, action in enumerate(rule.actions):
            yield (*here, "actions", number, "action"), action.action, False


def _role_patterns(body: p.RolePolicy) -> Iterator[Pattern]:
    for index, rule in enumerate(body.rules):
        here: Path = ("rolePolicy", "rules", index)
        yield (*here, "resource"), rule.resource, False
        yield from _listed((*here, "allowActions"), rule.allow_actions, always_glob=True)


_PATTERNS: Mapping[type, Callable[[Any], Iterator[Pattern]]] = {
    p.ResourcePolicy: _resource_patterns,
    p.PrincipalPolicy: _principal_patterns,
    p.RolePolicy: _role_patterns,
}
