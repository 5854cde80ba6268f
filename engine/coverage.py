"""Which parts of policies the tests reach: rules, branches of conditions, derived roles, outputs, variables.

A :class:`Recorder` counts what an observed table evaluates, question by question and action by action;
:func:`measure` lays the counts over the policies as they are written. A part of a policy is an :class:`Item`;
an item has one or two :class:`Mark` that tests should leave on it:

===============  =========================================================================================
item             marks
===============  =========================================================================================
rule             ``activated``: its roles, actions and conditions were met
refusal          ``activated``: a role policy refused what it does not list
derived role     ``activated``: a principal took it on
condition        ``true`` and ``false``: each expression, and each ``all``, ``any`` and ``none``, came to both
output           ``emitted``: the expression gave a value
variable         ``read``: an expression that refers to it was evaluated
===============  =========================================================================================

Coverage is the share of marks that are there. What no rule can ever reach - a variable or a derived role that
nothing refers to - is listed, and does not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from engine import names
from engine import policy as p
from engine.cel import EvaluationError
from engine.check import check
from engine.conditions import clauses_of
from engine.globs import rule_matcher
from engine.library import BODY_NAMES
from engine.observed import STEPS, Observer, observed
from engine.rules import DerivedRole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.cel import Timestamp
    from engine.document import Document, Path
    from engine.model import CheckInput, Decision
    from engine.rules import Clause, Outcome, Parameters, Row, RuleTable

Kind = Literal["rule", "refusal", "derived role", "condition", "output", "variable"]

CONSIDERED = "considered"
ACTIVATED = "activated"
NOT_MET = "not met"
TRUE = "true"
FALSE = "false"
FAILED = "failed"
EMITTED = "emitted"
READ = "read"

Key = tuple[str, "Path", str]
"""A file, the path of an item in its document, and what happened there."""


class Mark(NamedTuple):
    """Something that tests should bring about, and how often they did."""

    name: str
    times: int


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a policy."""

    kind: Kind
    name: str
    """The name of a rule, role or variable; the text of an expression."""

    line: int
    column: int
    """Where it starts, counted from 1."""

    last_line: int
    path: Path
    marks: tuple[Mark, ...]
    """What should happen; empty for what nothing refers to."""

    gap: str = ""
    """What no test does, in words; empty when nothing is missing."""

    notes: tuple[str, ...] = ()
    """What else there is to say: actions that were never asked for, failures."""

    rule: str = ""
    """The rule or derived role that the item belongs to."""

    implied: bool = False
    """The gap follows from that of the rule: what is not looked at is not evaluated."""

    @property
    def covered(self) -> bool:
        """Every mark is there."""
        return all(mark.times for mark in self.marks)

    @property
    def is_used(self) -> bool:
        """Something refers to the item, so that it can be reached at all."""
        return bool(self.marks)


class Total(NamedTuple):
    """How many of the marks are there."""

    covered: int
    marks: int

    @property
    def percent(self) -> float:
        """100 where there is nothing to cover."""
        return 100.0 * self.covered / self.marks if self.marks else 100.0

    def __str__(self) -> str:
        """Two numbers and their share, rounded down: only what is complete is 100 %."""
        return f"{self.covered}/{self.marks} {int(self.percent * 10) / 10:g} %"


def total_of(items: Iterable[Item]) -> Total:
    """Count the marks of *items*."""
    marks = [mark for item in items for mark in item.marks]
    return Total(sum(1 for mark in marks if mark.times), len(marks))


@dataclass(frozen=True, slots=True)
class PolicyCoverage:
    """One policy file, with its items in the order of the text."""

    file: str
    key: str
    kind: str
    """The field of the policy that holds its kind: ``resourcePolicy``."""

    items: tuple[Item, ...]

    @property
    def total(self) -> Total:
        """Of the whole policy."""
        return total_of(self.items)

    def totals(self) -> dict[Kind, Total]:
        """By kind of item, for the kinds that the policy has."""
        kinds: dict[Kind, list[Item]] = defaultdict(list)
        for item in self.items:
            kinds[item.kind].append(item)
        return {kind: total_of(items) for kind, items in kinds.items()}


@dataclass(frozen=True, slots=True)
class Coverage:
    """What tests reach of a set of policies, files in order of their names."""

    policies: tuple[PolicyCoverage, ...]
    questions: int
    """How many questions were asked, each with one action."""

    @property
    def total(self) -> Total:
        """Of all policies."""
        return total_of(item for policy in self.policies for item in policy.items)

    @property
    def gaps(self) -> Iterator[tuple[PolicyCoverage, Item]]:
        """Everything that no test reaches, in order."""
        for policy in self.policies:
            yield from ((policy, item) for item in policy.items if item.gap)


# -- recording ---------------------------------------------------------------------------------------------


class Recorder(Observer):
    """Counts what happens while questions are asked."""

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.actions: dict[tuple[str, Path], set[str]] = defaultdict(set)
        """The actions for which each rule was looked at."""

        self.questions = 0
        self._action = ""
        self._readers: dict[Clause, tuple[Clause, ...]] = {}

    def table(self, table: RuleTable) -> RuleTable:
        """Return a table that decides as *table* does and is counted."""
        for policy in table.policies.values():
            for row in policy.rows:
                said = [clause for clause in (row.rule_activated, row.condition_not_met) if clause]
                self._note_readers([*clauses_of(row.match), *said], row.parameters)
                if row.derived_role is not None:
                    role = row.derived_role
                    self._note_readers(clauses_of(role.match), role.parameters)
        return observed(table, self)

    def ask(self, table: RuleTable, question: CheckInput, *, now: Timestamp | None = None) -> Decision:
        """Ask a question with one action of a table made by :meth:`table`."""
        (self._action,) = question.actions
        self.questions += 1
        return check(table, question, now=now)

    def _note_readers(self, clauses: Iterable[Clause], parameters: Parameters) -> None:
        """Find out which variables each expression reaches."""
        variables = dict(parameters.variables)
        for clause in clauses:
            if clause not in self._readers and clause.variables:
                self._readers[clause] = tuple(_reached(clause, variables))

    def _count(self, document: Document, path: Path, what: str) -> None:
        self.counts[document.file, path, what] += 1

    # -- what the observed table tells ---------------------------------------------------------------------

    def looked_at(self, row: Row) -> None:
        """Count that a rule was considered."""
        self._count(row.document, row.path, CONSIDERED)
        self.actions[row.document.file, row.path].add(self._action)

    def decided(self, subject: Row | DerivedRole, outcome: Outcome) -> None:
        """Count whether a rule or a derived role was activated."""
        if isinstance(subject, DerivedRole):
            self._count(subject.document, subject.path, CONSIDERED)
        self._count(subject.document, subject.path, _DECIDED[outcome])

    def combined(self, document: Document, path: Path, outcome: Outcome) -> None:
        """Count what an ``all``, ``any`` or ``none`` came to."""
        self._count(document, path, _COMBINED[outcome])

    def evaluated(self, clause: Clause, activation: Any, result: Any) -> None:
        """Count what an expression came to, and the variables that it refers to."""
        _ = activation
        failed = isinstance(result, EvaluationError)
        what = FAILED if failed else TRUE if result is True else FALSE if result is False else EMITTED
        self._count(clause.document, clause.path, what)
        for variable in self._readers.get(clause, ()):
            self._count(variable.document, variable.path, READ)


_DECIDED = {True: ACTIVATED, False: NOT_MET, None: FAILED}
_COMBINED = {True: TRUE, False: FALSE, None: FAILED}


def _reached(clause: Clause, variables: Mapping[str, Clause]) -> Iterator[Clause]:
    """Yield the variables that an expression refers to, and those that these refer to."""
    waiting, seen = list(clause.variables), set()
    while waiting:
        name = waiting.pop()
        if name in variables and name not in seen:
            seen.add(name)
            yield variables[name]
            waiting += variables[name].variables


# -- measuring ---------------------------------------------------------------------------------------------


def measure(policies: Iterable[p.Policy], table: RuleTable, recorder: Recorder) -> Coverage:
    """Lay what was recorded over the policies; *table* is what they compile to."""
    used = _used(table)
    found = [
        _Measurement(policy, recorder, used).coverage
        for policy in sorted(policies, key=lambda policy: policy.file)
        if not policy.disabled
    ]
    return Coverage(tuple(one for one in found if one.items), recorder.questions)


def _used(table: RuleTable) -> frozenset[tuple[str, Path]]:
    """Return the variables and derived roles that rules refer to."""
    found: set[tuple[str, Path]] = set()
    for policy in table.policies.values():
        for row in policy.rows:
            seen = [row.parameters]
            if row.derived_role is not None:
                seen.append(row.derived_role.parameters)
                found.add((row.derived_role.document.file, row.derived_role.path))
            variables = (clause for parameters in seen for _, clause in parameters.variables)
            found.update((clause.document.file, clause.path) for clause in variables)
    return frozenset(found)


class _Measurement:
    """Lays the counts over one policy."""

    def __init__(self, policy: p.Policy, recorder: Recorder, used: frozenset[tuple[str, Path]]) -> None:
        self.policy = policy
        self._recorder = recorder
        self._used = used
        self._root: Path = (BODY_NAMES[type(policy.body)],)

    @property
    def coverage(self) -> PolicyCoverage:
        """The items of the policy."""
        body: Any = self.policy.body
        items = [*_LISTED[type(body)](self, body), *self._variables(body)]
        self.policy.document.forget_nodes()
        items.sort(key=lambda item: (item.line, item.column, -item.last_line))
        return PolicyCoverage(self.policy.file, self.policy.key, str(self._root[0]), tuple(items))

    def count(self, path: Path, *what: str) -> int:
        """Return how often something happened at *path*."""
        return sum(self._recorder.counts[self.policy.file, path, one] for one in what)

    def item(self, kind: Kind, name: str, path: Path, marks: tuple[Mark, ...], **rest: Any) -> Item:
        """Make an item at its place in the text."""
        place = self.policy.document.place(path)
        last = self.policy.document.last_line(path)
        return Item(kind, name, place.line, place.column, last, path, marks, **rest)

    # -- rules ---------------------------------------------------------------------------------------------

    def rule(self, name: str, path: Path, rule: Any, actions: tuple[str, ...]) -> Iterator[Item]:
        """Yield a rule, its condition and its outputs."""
        considered, activated = self.count(path, CONSIDERED), self.count(path, ACTIVATED)
        judged = activated + self.count(path, NOT_MET, FAILED)
        gap = "" if activated else _rule_gap(considered, judged)
        notes = self._never_asked(path, actions) if considered else ()
        yield self.item("rule", name, path, (Mark(ACTIVATED, activated),), gap=gap, notes=notes)
        yield from self.condition(rule.condition, path, name, reached=judged > 0)
        yield from self._outputs(rule.output, path, name, reached=judged > 0)

    def refusal(self) -> Item:
        """Return the item for what a role policy does not list."""
        activated = self.count(self._root, ACTIVATED)
        gap = "" if activated else "no test asks for anything that the policy does not list"
        key: Path = (*self._root, "role")
        mark = Mark(ACTIVATED, activated)
        return replace(self.item("refusal", "what is not listed", key, (mark,), gap=gap), path=self._root)

    def _never_asked(self, path: Path, actions: tuple[str, ...]) -> tuple[str, ...]:
        asked = self._recorder.actions.get((self.policy.file, path), set())
        missed = [pattern for pattern in actions if not any(map(rule_matcher(pattern), asked))]
        return (f"no test asks for {_listed(missed)}",) if missed else ()

    def condition(
        self, condition: p.Condition | None, path: Path, rule: str, *, reached: bool, used: bool = True
    ) -> Iterator[Item]:
        """Yield the parts of a condition."""
        if condition is not None and condition.match is not None:
            for match, here in _parts(condition.match, (*path, "condition", "match")):
                yield self._part(match, here, rule, reached=reached, used=used)

    def _part(self, match: p.Match, path: Path, rule: str, *, reached: bool, used: bool) -> Item:
        name = match.text if isinstance(match, p.Expr) else STEPS[type(match).__name__]
        marks = (Mark(TRUE, self.count(path, TRUE)), Mark(FALSE, self.count(path, FALSE)))
        failed, other = self.count(path, FAILED), self.count(path, EMITTED)
        notes = [_times("it failed", failed), _times("its value was no boolean", other)]
        return self.item(
            "condition",
            name,
            path,
            marks if used else (),
            gap=_condition_gap(marks, failed + other) if used else "",
            notes=tuple(note for note in notes if note),
            rule=rule,
            implied=not reached,
        )

    def _outputs(
        self, output: p.OutputRule | None, path: Path, rule: str, *, reached: bool
    ) -> Iterator[Item]:
        if output is None:
            return
        when = output.when
        for text, step, moment in (
            (when.rule_activated, ("when", "ruleActivated"), "the rule is activated"),
            ("" if when.rule_activated else output.expr, ("expr",), "the rule is activated"),
            (when.condition_not_met, ("when", "conditionNotMet"), "the condition is not met"),
        ):
            if text:
                here = (*path, "output", *step)
                emitted = self.count(here, TRUE, FALSE, EMITTED)
                failed = self.count(here, FAILED)
                gap = "" if emitted else "failed each time" if failed else f"no test in which {moment}"
                notes = (_times("it failed", failed),) if failed and emitted else ()
                mark = Mark(EMITTED, emitted)
                yield self.item(
                    "output", text, here, (mark,), gap=gap, notes=notes, rule=rule, implied=not reached
                )

    # -- definitions ---------------------------------------------------------------------------------------

    def derived_role(self, role: p.RoleDefinition, path: Path) -> Iterator[Item]:
        """Yield a derived role and its condition."""
        used = (self.policy.file, path) in self._used
        considered, activated = self.count(path, CONSIDERED), self.count(path, ACTIVATED)
        gap = "" if activated else _role_gap(considered)
        yield self.item(
            "derived role",
            role.name,
            path,
            (Mark(ACTIVATED, activated),) if used else (),
            gap=gap if used else "",
            notes=() if used else ("no rule refers to it",),
        )
        yield from self.condition(role.condition, path, role.name, reached=considered > 0, used=used)

    def _variables(self, body: Any) -> Iterator[Item]:
        if isinstance(body, p.ExportVariables):
            yield from self._definitions(body.definitions, (*self._root, "definitions"))
        elif not isinstance(body, p.ExportConstants):
            yield from self._definitions(body.variables.local, (*self._root, "variables", "local"))
            yield from self._definitions(self.policy.variables, ("variables",))

    def _definitions(self, texts: Mapping[str, str], path: Path) -> Iterator[Item]:
        for name in texts:
            here = (*path, name)
            used = (self.policy.file, here) in self._used
            read, failed = self.count(here, READ), self.count(here, FAILED)
            notes = [_times("it failed", failed), "" if used else "no rule refers to it"]
            yield self.item(
                "variable",
                name,
                here,
                (Mark(READ, read),) if used else (),
                gap="no test evaluates an expression that refers to it" if used and not read else "",
                notes=tuple(note for note in notes if note),
            )


def _parts(match: p.Match, path: Path) -> Iterator[tuple[p.Match, Path]]:
    """Yield the parts of a condition with their paths; an expression's path is that of its text."""
    if isinstance(match, p.Expr):
        yield match, (*path, "expr")
        return
    yield match, path
    here = (*path, STEPS[type(match).__name__], "of")
    for index, part in enumerate(match.of):
        yield from _parts(part, (*here, index))


# -- words -------------------------------------------------------------------------------------------------


def _rule_gap(considered: int, judged: int) -> str:
    if not considered:
        return "no test asks for it"
    if not judged:
        return f"looked at {_often(considered)}, but no principal held its derived role"
    return f"looked at {_often(considered)}, but its condition never held"


def _role_gap(considered: int) -> str:
    if considered:
        return f"looked at {_often(considered)}, but its condition never held"
    return "no test asks by a principal that could take it on"


def _condition_gap(marks: tuple[Mark, ...], others: int) -> str:
    missing = [mark.name for mark in marks if not mark.times]
    if len(missing) == len(marks):
        return f"evaluated {_often(others)}, but neither true nor false" if others else "never evaluated"
    return f"never {missing[0]}" if missing else ""


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _times(what: str, count: int) -> str:
    return f"{what} {_often(count)}" if count else ""


def _listed(words: list[str]) -> str:
    quoted = [f"`{word}`" for word in words]
    return " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


# -- kinds of policies -------------------------------------------------------------------------------------


def _resource_policy(found: _Measurement, body: p.ResourcePolicy) -> Iterator[Item]:
    for index, rule in enumerate(body.rules):
        name = names.resource_rule_name(rule.name, index + 1)
        yield from found.rule(name, ("resourcePolicy", "rules", index), rule, rule.actions)


def _principal_policy(found: _Measurement, body: p.PrincipalPolicy) -> Iterator[Item]:
    for position, rule in enumerate(body.rules):
        for index, action in enumerate(rule.actions):
            name = names.principal_rule_name(action.name, rule.resource, index + 1)
            path = ("principalPolicy", "rules", position, "actions", index)
            yield from found.rule(name, path, action, (action.action,))


def _role_policy(found: _Measurement, body: p.RolePolicy) -> Iterator[Item]:
    for index, rule in enumerate(body.rules):
        name = rule.name or f"entry {index + 1}"
        yield from found.rule(name, ("rolePolicy", "rules", index), rule, rule.allow_actions)
    yield found.refusal()


def _derived_roles(found: _Measurement, body: p.DerivedRoles) -> Iterator[Item]:
    for index, role in enumerate(body.definitions):
        yield from found.derived_role(role, ("derivedRoles", "definitions", index))


def _exported(_found: _Measurement, _body: p.Body) -> Iterator[Item]:
    """Yield nothing: a set of variables has only these, a set of constants nothing that happens."""
    yield from ()


_LISTED: Mapping[type, Callable[[_Measurement, Any], Iterator[Item]]] = {
    p.ResourcePolicy: _resource_policy,
    p.PrincipalPolicy: _principal_policy,
    p.RolePolicy: _role_policy,
    p.DerivedRoles: _derived_roles,
    p.ExportVariables: _exported,
    p.ExportConstants: _exported,
}
