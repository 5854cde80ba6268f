"""Decisions as functions: what a table says about one kind, one action and one set of roles, in one piece.

The walk of :mod:`engine.check` asks a table rule by rule, is ready for every failure, and can be watched.
Most questions are like many before, and nothing fails in them. For those a function is generated from what
the walk would meet, with the conditions in line: each derived role and each condition is evaluated once, and
the decisions and the policies that were looked at are constants.

A function answers only where nothing fails. Where something does (an attribute is missing, a value is of
another type, a condition is no boolean) it raises an exception, and the walk answers instead: what a failure
means is decided there and nowhere else. So a function holds for all modes of evaluation.
"""

from __future__ import annotations

import ast
import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine import expressions
from engine.cel.environment import GLOBALS
from engine.cel.generator import Part, UnsupportedError
from engine.cel.inline import Inliner, Path
from engine.cel.nodes import BOOL, DYN, STRING, Call, Node, Span
from engine.cel.syntax import Syntax
from engine.check import UNDECIDED, Clock, targets_of
from engine.conditions import All, Any_, Leaf
from engine.model import CheckInput, Decision, Effect, Output, Resource
from engine.names import scope_value
from engine.outputs import to_json
from engine.rules import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from engine.cel import Timestamp
    from engine.conditions import Match
    from engine.model import ActionDecision, AuxData, JsonValue, Principal
    from engine.rules import Clause, DerivedRole, Parameters, Row, RuleTable
    from engine.targets import Step, Way

    Function = Callable[
        [Principal, Resource, Mapping[str, JsonValue], Mapping[str, JsonValue], AuxData, Timestamp | None],
        Decision,
    ]
    """Called with a principal, a resource, the attributes of both, other facts, and the time if it is set."""

logger = logging.getLogger(__name__)

USES = 1024
"""So often a question is asked before a function is made for it, which takes as long as some 400 checks."""

FUNCTIONS = 1024
"""So many functions are kept, some ten kilobytes each, before all are thrown away."""

COUNTED = 16_384
"""So many different questions are counted before the count starts over."""

FAILURES, LONGEST_REST = 64, 6
"""After so many failures a function rests: for twice as many questions, then for four times as many, ..."""

LONGEST = 1024
"""Questions with longer names than these together are not counted."""

MOST_ROWS = 32
"""Rules that a function looks at, at most."""

MOST_TEXT = 4096
"""Characters of expressions that a function evaluates, at most."""

PARAMETERS = ("P", "R", "P_attr", "R_attr", "aux", "time")

AT = Syntax(Span(1, 0, 1, 0))
"""Of what stands in no policy."""


class Unsuitable(Exception):  # noqa: N818 - not an error: the walk answers
    """There is no function for a question."""


def decision_function(table: RuleTable, question: CheckInput) -> Function | None:
    """Return a function for questions that differ from *question* in ids, attributes and facts only.

    It knows nothing of policies of principals: those of :attr:`RuleTable.principal_ids` must not ask it.

    ``None`` when only the walk can answer: several actions, schemas, expressions that read ``runtime`` or
    take a principal or resource as a whole, too many rules.
    """
    try:
        return _decision_function(table, question)
    except (Unsuitable, UnsupportedError, RecursionError, SyntaxError, MemoryError):
        return None


def _decision_function(table: RuleTable, question: CheckInput) -> Function:
    actions, asked = question.actions, targets_of(table, question)
    if (
        len(actions) != 1
        or table.reads_action
        or table.is_observed
        or question.principal.id in table.principal_ids
        or any(target.attributes for target, _ in asked)
    ):
        raise Unsuitable
    made = _Deciding(table, actions[0])
    if not asked:
        return made.function((), UNDECIDED)
    ((target, roles),) = asked
    made.decisions = target.decision
    return made.function(target.ways(actions[0], roles), target.default)


class _Deciding:
    """One function while it is made."""

    def __init__(self, table: RuleTable, action: str) -> None:
        self._table = table
        self._action = action
        self._cel = Inliner(expressions.vocabulary(), self._known)
        self._before: dict[str, ast.stmt] = {}
        """What the function begins with, by the variable that is set."""

        self._names: dict[int, str] = {}
        self._values: list[object] = []
        self._variables: dict[Hashable, str] = {}
        self._certain: set[str] = set()
        """What has been evaluated, whichever way was taken to the current place."""

        self._perhaps: set[str] = set()
        """What has been evaluated only if a certain way was taken."""

        self._parameters: Parameters = NOTHING
        self._visits: Counter[Row] = Counter()
        self._stages: frozenset[Any] = frozenset()
        self._denying = False
        self._last = False
        self._trails: set[tuple[str, ...]] = set()
        self._text = 0

    decisions: Callable[[Row], ActionDecision]
    """The decision that a row leads to."""

    def function(self, ways: tuple[Way, ...], default: ActionDecision) -> Function:
        """Make the function that takes *ways* one after the other."""
        self._visits.update(row for way in ways for step in way for row in step.rows)
        self._stages = frozenset(step.stage for way in ways for step in way if step.derived_roles)
        if self._visits.total() > MOST_ROWS:
            raise Unsuitable
        trail: tuple[str, ...] = ()
        for number, way in enumerate(ways, start=1):
            trail = self._way(way, trail, is_last=number == len(ways))
            if self._cel.is_over:
                return self._finished()
        found = self._constant(default)
        if self._denying:
            found = AT.either(AT.name("denied"), found)
        self._cel.add(self._answer(found, trail))
        return self._finished()

    def _finished(self) -> Function:
        before = [*self._before.values()]
        before += [AT.assign(name, AT.constant(None)) for name in sorted(self._perhaps)]
        if self._cel.uses_now:
            before.append(AT.assign("activation", AT.call(self._constant(Clock), AT.name("time"))))
        function: Function = self._cel.finished(Span(1, 0, 1, 0), PARAMETERS, before, GLOBALS)
        return function

    # -- what the function knows ---------------------------------------------------------------------------

    def _constant(self, value: object) -> ast.expr:
        """Return what stands for an object; each is bound once."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = self._cel.constant(value)
            self._values.append(value)  # keeps the id from being given to another object
        return AT.name(name)

    def _known(self, path: Path, node: Node) -> Part | None:
        """Return the variable or constant that holds the value of a path."""
        path = _LONG_NAMES.get(path[:2], path[:2]) + path[2:] if path[0] == "request" else path
        if len(path) != 2:
            return None
        space, name = path
        if space in expressions.CONSTANTS or space in expressions.GLOBALS:
            values = self._table.globals if space in expressions.GLOBALS else self._parameters.constants
            return self._written(node, values[name]) if name in values else None
        if space in expressions.VARIABLES:
            return Part(AT.name(self._variable(name, self._parameters)), DYN, total=True)
        field = _FIELDS.get((space, name))
        if field is None:
            return None
        local = f"{space}_{field}"
        if local not in PARAMETERS and local not in self._before:
            value = AT.attribute(AT.name(space), field)
            if field == "scope":  # expressions see it as it is compared
                value = AT.call(self._constant(scope_value), value)
            self._before[local] = AT.assign(local, value)
        return Part(AT.name(local), node.type, total=True, raw=self._cel.is_raw(node.type))

    def _written(self, node: Node, value: JsonValue) -> Part:
        """Return a constant of the policies or of the configuration."""
        at = Syntax(node.span)
        if isinstance(value, str):
            return Part(at.constant(value), STRING, total=True)
        return Part(self._constant(value), DYN, total=True)

    def _variable(self, stem: str, *about: Hashable) -> str:
        """Return the variable of the function that holds something about something, always the same."""
        key = (stem, *about)
        if key not in self._variables:
            self._variables[key] = self._cel.fresh(stem)
        return self._variables[key]

    # -- what is evaluated once ----------------------------------------------------------------------------

    def _once(self, name: str, evaluate: Callable[[], None]) -> None:
        """Let *evaluate* add what sets the variable *name*, where that has not been done before."""
        if name in self._certain:
            return
        if name in self._perhaps:
            with self._branch() as statements:
                evaluate()
            unset = AT.compare(AT.name(name), ast.Is(), AT.constant(None))
            self._cel.add(AT.when(unset, statements))
        else:
            evaluate()
        self._certain.add(name)

    @contextmanager
    def _branch(self) -> Iterator[list[ast.stmt]]:
        """Collect statements that run only if a certain way is taken."""
        before = set(self._certain)
        with self._cel.captured() as statements:
            yield statements
        self._perhaps |= self._certain - before
        self._certain = before

    # -- the walk ------------------------------------------------------------------------------------------

    def _way(self, way: Way, trail: tuple[str, ...], *, is_last: bool) -> tuple[str, ...]:
        """Add the way of one role; return the policies that have been looked at where it does not end all."""
        self._last, self._trails = is_last, set()
        self._step(way, 0, trail)
        if len(self._trails) > 1:
            raise Unsuitable  # which policies have been looked at depends on how the way went
        return next(iter(self._trails), trail)

    def _step(self, way: Way, index: int, trail: tuple[str, ...]) -> None:
        """Add the step at *index* of a way and what follows it in the way."""
        if index == len(way):
            self._trails.add(trail)
            return
        step = way[index]
        self._enter(step)
        if not step.rows:
            self._step(way, index + 1, trail)
            return
        if any(_allows(row, step) for row in step.rows[:-1]):
            self._cel.add(AT.assign("allowed", AT.constant(None)))
        self._row(way, index, 0, trail)

    def _row(self, way: Way, index: int, number: int, trail: tuple[str, ...]) -> None:
        """Add the row at *number* of a step and what follows it in the way."""
        step = way[index]
        if number == len(step.rows):
            self._step(way, index + 1, self._passed(step, trail))
            return
        row = step.rows[number]
        test = self._test(row)
        with self._branch() as then:
            self._applied(row, step, number, trail)
        if test is None:
            self._cel.add(*then)
            if row.effect is not Effect.DENY and not self._cel.is_over:
                self._row(way, index, number + 1, trail)
        elif row.effect is Effect.DENY:
            with self._branch() as otherwise:
                self._row(way, index, number + 1, trail)
            self._cel.add(AT.when(test, then, otherwise))
        else:
            self._cel.add(AT.when(test, then) if then else AT.evaluate(test))
            self._row(way, index, number + 1, trail)

    def _passed(self, step: Step, trail: tuple[str, ...]) -> tuple[str, ...]:
        """Add what comes after the rows of a step, of which none has denied."""
        after = followed(trail, step.policies)
        if any(_allows(row, step) for row in step.rows[:-1]):
            allowed = AT.name("allowed")
            self._cel.add(AT.when(allowed, [self._answer(allowed, after)]))
        return after

    def _applied(self, row: Row, step: Step, number: int, trail: tuple[str, ...]) -> None:
        """Add what happens if a row applies."""
        if row.rule_activated is not None:
            self._say(row, row.rule_activated)
        if row.effect is Effect.DENY:
            self._deny(row, followed(trail, step.looked_at(row)))
        elif _allows(row, step):
            self._allow(row, step, number, followed(trail, step.policies))

    def _deny(self, row: Row, trail: tuple[str, ...]) -> None:
        """Add that a row ends the way of a role; another role may still be allowed."""
        found = self._constant(self.decisions(row))
        if self._denying:
            found = AT.either(AT.name("denied"), found)
        if self._last:
            self._cel.add(self._answer(found, trail))
            return
        self._denying = True
        self._perhaps.add("denied")
        self._trails.add(trail)
        self._cel.add(AT.assign("denied", found))

    def _allow(self, row: Row, step: Step, number: int, trail: tuple[str, ...]) -> None:
        """Add that a row allows, unless one that follows it in the scope denies."""
        found = self._constant(self.decisions(row))
        if any(_allows(before, step) for before in step.rows[:number]):
            found = AT.either(AT.name("allowed"), found)
        is_last = number == len(step.rows) - 1
        self._cel.add(self._answer(found, trail) if is_last else AT.assign("allowed", found))

    def _answer(self, found: ast.expr, trail: tuple[str, ...]) -> ast.stmt:
        """Return the end of the function: the decision *found*, and all that was said and seen."""
        active: ast.expr = AT.name("active") if self._stages else AT.constant(())
        if len(self._stages) > 1:
            active = AT.call(self._constant(_sorted), active)
        speaks = any(row.speaks for row in self._visits)
        parts = [
            AT.dict([AT.constant(self._action)], [found]),
            AT.name("outputs") if speaks else AT.constant(()),
            active,
            AT.constant(()),
            AT.constant(()),
            AT.constant(trail),
        ]
        if speaks:
            self._before["outputs"] = AT.assign("outputs", AT.constant(()))
        return AT.give(AT.call(self._constant(_new), self._constant(Decision), AT.tuple(parts)))

    # -- rows and roles ------------------------------------------------------------------------------------

    def _enter(self, step: Step) -> None:
        """Add that the derived roles of a scope are worked out."""
        if step.derived_roles:
            self._before["active"] = AT.assign("active", AT.constant(()))
            entered = self._variable("entered", step.stage)
            self._once(entered, lambda: self._activate(step.derived_roles, entered))

    def _activate(self, roles: Iterable[DerivedRole], entered: str) -> None:
        for role in roles:
            held = self._held(role)
            name = AT.constant((role.name,))
            added = AT.assign("active", AT.binary(AT.name("active"), ast.Add(), name))
            self._cel.add(added if held is None else AT.when(held, [added]))
        self._cel.add(AT.assign(entered, AT.constant(True)))

    def _held(self, role: DerivedRole) -> ast.expr | None:
        """Return whether the principal holds a role, ``None`` if nothing is asked for it."""
        match = role.match
        if match is None:
            return None
        name = self._variable("role", role)

        def evaluate() -> None:
            self._define(role.parameters)
            self._cel.add(AT.assign(name, self._truth(match, role.parameters)))

        self._once(name, evaluate)
        return AT.name(name)

    def _test(self, row: Row) -> ast.expr | None:
        """Return whether a row applies, ``None`` if it always does."""
        self._define(row.parameters)
        held = None if row.derived_role is None else self._held(row.derived_role)
        match = row.match
        if match is None:
            return held
        applies = self._cel.fresh("applies")
        with self._cel.captured() if held is None else self._branch() as statements:
            test = self._condition(row, match)
            if row.condition_not_met is not None or (held is not None and statements):
                self._cel.add(AT.assign(applies, test))
                test = AT.name(applies)
            if row.condition_not_met is not None:
                with self._branch() as not_met:
                    self._say(row, row.condition_not_met)
                self._cel.add(AT.when(AT.opposite(test), not_met))
        if held is None:
            self._cel.add(*statements)
            return test
        if not statements:
            return AT.both(held, test)
        self._cel.add(AT.assign(applies, held), AT.when(held, statements))
        return AT.name(applies)

    def _condition(self, row: Row, match: Match) -> ast.expr:
        """Return whether the condition of a row holds; it is evaluated once, however many roles ask."""
        if self._visits[row] == 1:
            return self._truth(match, row.parameters)
        name = self._variable("met", row)
        self._once(name, lambda: self._cel.add(AT.assign(name, self._truth(match, row.parameters))))
        return AT.name(name)

    def _define(self, parameters: Parameters) -> None:
        """Add that the variables of a policy are evaluated, all of them: one that fails is to be noted."""
        if parameters.variables:
            defined = self._variable("defined", parameters)
            self._once(defined, lambda: self._evaluate(parameters, defined))

    def _evaluate(self, parameters: Parameters, defined: str) -> None:
        with self._seeing(parameters):
            for name, clause in parameters.variables:
                value = self._cel.value(self._nodes(clause))
                self._cel.add(AT.assign(self._variable(name, parameters), value.tree))
        self._cel.add(AT.assign(defined, AT.constant(True)))

    def _say(self, row: Row, clause: Clause) -> None:
        """Add an output."""
        with self._seeing(row.parameters):
            part = self._cel.value(self._nodes(clause))
        value = part.tree if part.type == STRING else AT.call(self._constant(to_json), part.tree)
        parts = [AT.constant(row.source), AT.constant(self._action), value, AT.constant("")]
        output = AT.call(self._constant(_new), self._constant(Output), AT.tuple(parts))
        self._cel.add(AT.assign("outputs", AT.binary(AT.name("outputs"), ast.Add(), AT.tuple([output]))))

    # -- expressions ---------------------------------------------------------------------------------------

    @contextmanager
    def _seeing(self, parameters: Parameters) -> Iterator[None]:
        """Let expressions mean the constants and variables of one policy."""
        outer, self._parameters = self._parameters, parameters
        try:
            yield
        finally:
            self._parameters = outer

    def _truth(self, match: Match, parameters: Parameters) -> ast.expr:
        with self._seeing(parameters):
            return self._cel.truth(self._node(match)).tree

    def _node(self, match: Match) -> Node:
        """Return a condition as one expression."""
        if isinstance(match, Leaf):
            return self._nodes(match.clause)
        parts = tuple(map(self._node, match.parts))
        if not parts:
            raise Unsuitable
        operator = "_&&_" if isinstance(match, All) else "_||_"
        joined = Call(parts[0].span, BOOL, operator, parts) if len(parts) > 1 else parts[0]
        return joined if isinstance(match, (All, Any_)) else Call(joined.span, BOOL, "!_", (joined,))

    def _nodes(self, clause: Clause) -> Node:
        self._text += len(clause.text)
        if self._text > MOST_TEXT:
            raise Unsuitable
        return clause.expression.nodes


_new = tuple.__new__

_LONG_NAMES: Mapping[Path, Path] = {
    ("request", "principal"): ("P",),
    ("request", "resource"): ("R",),
    ("request", "auxData"): ("aux",),
    ("request", "aux_data"): ("aux",),
}

_FIELDS: Mapping[Path, str] = {
    (space, field): attribute
    for space, record in (("P", "cerbos.Principal"), ("R", "cerbos.Resource"), ("aux", "cerbos.AuxData"))
    for field, (_, attribute) in expressions.FIELDS[record].items()
}
"""The attributes behind the fields of a question."""


def followed(trail: tuple[str, ...], policies: tuple[str, ...]) -> tuple[str, ...]:
    """Return the policies that have been looked at, with some more."""
    return tuple(sorted({*trail, *policies}))


def _sorted(active: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(active)))


def _allows(row: Row, step: Step) -> bool:
    """Tell whether a row may end a way; where consent is needed, it only passes the question up."""
    return row.effect is Effect.ALLOW and not step.consent


def together(decisions: Iterable[Decision | None]) -> Decision | None:
    """Return the decision about all actions from those about each, ``None`` if one or all are missing.

    None of them has errors: those of functions have none.
    """
    actions: dict[str, ActionDecision] = {}
    outputs: list[Output] = []
    roles: set[str] = set()
    policies: set[str] = set()
    decision = None
    for decision in decisions:
        if decision is None:
            return None
        actions.update(decision.actions)
        outputs += decision.outputs
        roles.update(decision.effective_derived_roles)
        policies.update(decision.effective_policies)
    return Decision(actions, tuple(outputs), tuple(sorted(roles)), effective_policies=tuple(sorted(policies)))


Key = tuple[str, str, str, tuple[str, ...], str]
"""Kind, version and scope of a resource as they are given, the roles of a principal, an action."""


class Deciders:
    """The functions of one table, each made when its question has been asked often."""

    __slots__ = ("_failures", "_left", "_resting", "excepted", "functions", "table")

    def __init__(self, table: RuleTable) -> None:
        self.table = table
        self.excepted = table.principal_ids
        """The principals that no function knows, because they have policies of their own."""

        self.functions: dict[Key, Function] = {}
        self._resting: dict[Key, Function] = {}
        self._left: dict[Key, int] = {}
        """How often a question is asked before its function answers; below zero: there is none."""

        self._failures: Counter[Key] = Counter()

    def count(self, key: Key, principal: Principal) -> None:
        """Note that no function has answered a question, and perhaps make one."""
        left = self._left.get(key)
        if left is None:
            left = USES
            if sum(map(len, (*key[:3], *key[3], key[4]))) > LONGEST:
                return
            if len(self._left) >= COUNTED:
                self._left = {}
        if left > 0:
            self._left[key] = left - 1
        if left == 1:
            self._begin(key, principal)

    def failed(self, key: Key) -> None:
        """Note that a function has left a question to the walk; if it often does, it rests for a while."""
        self._failures[key] += 1
        rests, over = divmod(self._failures[key], FAILURES)
        function = None if over else self.functions.pop(key, None)
        if function is not None:
            self._resting[key] = function
            self._left[key] = FAILURES << min(rests, LONGEST_REST)

    def _begin(self, key: Key, principal: Principal) -> None:
        function = self._resting.pop(key, None) or self._made(key, principal)
        if function is None:
            self._left[key] = -1
            return
        if len(self.functions) + len(self._resting) >= FUNCTIONS:
            self._forget()
        self.functions[key] = function

    def _made(self, key: Key, principal: Principal) -> Function | None:
        kind, version, scope, _, action = key
        resource = Resource(kind, "", policy_version=version, scope=scope)
        try:
            return decision_function(self.table, CheckInput(principal, resource, (action,)))
        except Exception:  # a bug of ours must cost no more than time
            logger.exception("no function for %s", key)
            return None

    def _forget(self) -> None:
        self.functions, self._resting, self._left = {}, {}, {}
        self._failures.clear()
