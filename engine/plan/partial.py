"""Evaluation with some values missing: what a tree comes to, and what is left of it.

:meth:`Evaluation.value` walks a tree as cel-go's interpreter does with partial variables: a value that is
not known spreads, but ``&&``, ``||``, ``?:`` and macros decide without it where they can. It notes what each
node came to, and :meth:`Evaluation.residual` then writes known values in the place of nodes (cel-go,
``interpreter/prune.go``), so that the filters of both engines have the same form.

The operators and functions are those that compiled expressions call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engine.cel import EvaluationError, NoSuchOverload, Optional, environment, macros, runtime
from engine.cel import library as cel_library
from engine.cel.nodes import (
    Call,
    Comprehension,
    Const,
    Ident,
    ListLiteral,
    MapLiteral,
    MessageLiteral,
    Node,
    Select,
)
from engine.cel.wellknown import make_message
from engine.plan.known import UNKNOWN, Known, Unknown
from engine.plan.model import PlanError
from engine.plan.prune import Pruner
from engine.plan.tree import AND, CONDITIONAL, DEFINED, INDEX, OR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_STEPS = 1_000_000
"""Nodes that the evaluations of one plan may visit together."""


class Failed:
    """An evaluation that ended in *error*, at *node*."""

    __slots__ = ("error", "node")

    def __init__(self, error: EvaluationError, node: Node) -> None:
        self.error = error
        self.node = node


class Budget:
    """Counts the steps of a plan."""

    __slots__ = ("_left",)

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self._left = steps

    def spend(self) -> None:
        """Count one step; raises :class:`PlanError` when there have been too many."""
        self._left -= 1
        if self._left < 0:
            raise PlanError(f"the conditions take more than {MAX_STEPS} steps to plan")


def is_known(value: object) -> bool:
    """Tell whether a node came to a value."""
    return value.__class__ is not Unknown and value.__class__ is not Failed


class Evaluation:
    """One walk over one tree; *variables* are the names that the loops around it bind.

    With *exact* nothing is left out of the residual that might fail.
    """

    def __init__(
        self,
        known: Known,
        budget: Budget,
        variables: Mapping[str, object] | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self._known = known
        self._budget = budget
        self._variables = dict(variables or {})
        self._seen: dict[int, object] = {}

    def residual(self, node: Node) -> Node:
        """Return what is left of a tree that :meth:`value` has walked."""
        return Pruner(self._seen, is_known, exact=self._exact).residual(node)

    def value(self, node: Node) -> object:
        """Return what *node* comes to: a CEL value, :data:`UNKNOWN`, or :class:`Failed`."""
        self._budget.spend()
        evaluate: Callable[[Evaluation, Any], object] = NODES[type(node)]
        found = self._seen[id(node)] = evaluate(self, node)
        return found

    # --- nodes ----------------------------------------------------------------------------------------------

    def const(self, node: Const) -> object:
        """Return the value of a literal."""
        return node.value

    def attribute(self, node: Node) -> object:
        """Evaluate a name with what is selected from it."""
        base, steps = _path(node)
        if isinstance(base, Ident):
            value, rest = self._named(base, steps)
        elif isinstance(base, Call) and base.function == CONDITIONAL and steps:
            value, rest = self._branch(base), steps
        else:
            value, rest = self.value(base), steps
        for step in rest:
            value = self._step(value, step)
            self._seen[id(step)] = value
            if value.__class__ is Failed:
                return value
        return value

    def _named(self, name: Ident, steps: Sequence[Node]) -> tuple[object, Sequence[Node]]:
        """Return the value that a name and the first of the *steps* stand for, and the other steps."""
        if not name.rooted and name.name in self._variables:
            return self._variables[name.name], steps
        try:
            found = self._known.find(name.name, [_constant_key(step) for step in steps])
        except EvaluationError as error:
            return Failed(error, name), ()
        if found.value is UNKNOWN:
            return self._keys(steps), ()
        used, rest = steps[: found.used], steps[found.used :]
        return (_asked(found.value, used[-1]) if used else found.value), rest

    def _keys(self, steps: Sequence[Node]) -> object:
        """Evaluate the keys of an unknown attribute: one that fails fails all of it."""
        for step in steps:
            if isinstance(step, Call):
                # Aside: that the keys are known is put in later, and is not Cerbos's.
                key = Evaluation(self._known, self._budget, self._variables).value(step.arguments[1])
                if key.__class__ is Failed:
                    return key
        return UNKNOWN

    def _step(self, operand: object, step: Node) -> object:
        """Select from a value."""
        if operand is UNKNOWN:
            return UNKNOWN
        if isinstance(step, Select):
            return self._guarded(step, _select, operand, step)
        assert isinstance(step, Call)  # noqa: S101 - a step is one or the other
        key = self.value(step.arguments[1])
        if key.__class__ is Failed:
            return key
        if key is UNKNOWN:
            return UNKNOWN
        return self._guarded(step, INDEXING[step.function], operand, key)

    def _branch(self, node: Call) -> object:
        """Evaluate ``?:`` where something is selected from what it comes to."""
        condition = self.value(node.arguments[0])
        if not isinstance(condition, bool):
            return condition if not is_known(condition) else Failed(NoSuchOverload(), node)
        return self.value(node.arguments[1 if condition else 2])

    def call(self, node: Call) -> object:
        """Evaluate a call."""
        special = CALLS.get(node.function)
        if special is not None:
            return special(self, node)
        arguments: list[object] = []
        for argument in node.arguments:
            value = self.value(argument)
            if value.__class__ is Failed:
                return UNKNOWN if _misses(arguments) and _is_tolerant(node) else value
            arguments.append(value)
        if _misses(arguments):
            return self._undecided(node, arguments)
        if node.function in cel_library.NEEDS_NOW:
            arguments.insert(0, self._known)  # it knows the time
        return self._guarded(node, function(node), *arguments)

    def _undecided(self, node: Call, arguments: Sequence[object]) -> object:
        """Return what a call comes to that misses an argument."""
        if node.function == "@in" and arguments[1] is not UNKNOWN and not _is_container(arguments[1]):
            # Whatever is sought: Cerbos makes a comparison of it, which would grant what a check denies.
            return Failed(NoSuchOverload(), node)
        return UNKNOWN

    def _guarded(self, node: Node, compute: Callable[..., Any], *arguments: Any) -> object:
        """Call a function of the runtime; whatever goes wrong is a failure of the expression."""
        try:
            return compute(*arguments)
        except EvaluationError as error:
            return Failed(error, node)
        except Exception as error:
            return Failed(runtime.translated(error), node)

    def _junction(self, node: Call, decisive: bool) -> object:
        """Evaluate ``&&`` or ``||``."""
        undecided: object = None
        for argument in node.arguments:
            value = self.value(argument)
            if value is decisive:
                return decisive
            if value is not (not decisive) and undecided is not UNKNOWN:
                undecided = self._weaker(undecided, value, node)
        return (not decisive) if undecided is None else undecided

    def _weaker(self, before: object, value: object, node: Node) -> object:
        """Return what keeps ``&&`` or ``||`` from deciding: an unknown value before a failure."""
        if value is UNKNOWN:
            return UNKNOWN
        if before is not None:
            return before
        return value if value.__class__ is Failed else Failed(NoSuchOverload(), node)

    def all_of(self, node: Call) -> object:
        """Evaluate ``&&``."""
        return self._junction(node, decisive=False)

    def any_of(self, node: Call) -> object:
        """Evaluate ``||``."""
        return self._junction(node, decisive=True)

    def conditional(self, node: Call) -> object:
        """Evaluate ``?:``."""
        return self._branch(node)

    def not_false(self, node: Call) -> object:
        """Evaluate ``@not_strictly_false``: what is no bool is as good as true."""
        value = self.value(node.arguments[0])
        return value if isinstance(value, bool) else True

    def defined(self, node: Call) -> object:
        """Evaluate ``has(V.x)``: a variable that fails is not there."""
        value = self.value(node.arguments[0])
        return UNKNOWN if value is UNKNOWN else value.__class__ is not Failed

    def otherwise(self, node: Call) -> object:
        """Evaluate ``or`` and ``orValue``, whose second operand counts only when the first holds nothing."""
        first = self.value(node.arguments[0])
        if not is_known(first):
            return first
        opened = self._guarded(node, runtime.opened, first)
        if not isinstance(opened, Optional):
            return opened
        if opened.has_value:
            return opened if node.function == "or" else opened.value
        second = self.value(node.arguments[1])
        return self._guarded(node, runtime.opened, second) if node.function == "or" else second

    def list_literal(self, node: ListLiteral) -> object:
        """Evaluate ``[a, b]``."""
        elements = self._all(node.elements)
        if not isinstance(elements, list):
            return elements
        return self._guarded(node, runtime.make_list, elements, node.optional)

    def map_literal(self, node: MapLiteral | MessageLiteral) -> object:
        """Evaluate ``{a: b}``."""
        parts = self._all([part for entry in node.entries for part in (entry.key, entry.value)])
        if not isinstance(parts, list):
            return parts
        optional = frozenset(place for place, entry in enumerate(node.entries) if entry.optional)
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        return self._guarded(node, runtime.make_map, pairs, optional)

    def message(self, node: MessageLiteral) -> object:
        """Evaluate a message of a well-known type."""
        fields = self.map_literal(node)
        return self._guarded(node, make_message, node.name, fields) if is_known(fields) else fields

    def _all(self, parts: Iterable[Node]) -> object:
        """Evaluate several nodes: a list of values, or what keeps it from being one."""
        values = []
        for part in parts:
            value = self.value(part)
            if value.__class__ is Failed:
                return value
            values.append(value)
        return UNKNOWN if _misses(values) else values

    # --- loops ----------------------------------------------------------------------------------------------

    def comprehension(self, loop: Comprehension) -> object:
        """Evaluate a macro."""
        over = self.value(loop.range)
        if not is_known(over):
            return over
        turns = self._guarded(loop, _turns, loop, over)
        if turns.__class__ is Failed:
            return turns
        assert isinstance(turns, list)  # noqa: S101 - what _turns returns
        outer, self._variables = self._variables, dict(self._variables)
        try:
            return MACROS[type(macro := macros.recognise(loop))](self, loop, macro, turns)
        finally:
            self._variables = outer

    def quantifier(self, loop: Comprehension, macro: macros.Quantifier, turns: list[Any]) -> object:
        """Evaluate ``exists`` or ``all``."""
        undecided: object = None
        for bound in turns:
            self._variables.update(bound)
            value = self.value(macro.predicate)
            if value is macro.stops_at:
                return value
            if value is not (not macro.stops_at) and undecided is not UNKNOWN:
                undecided = self._weaker(undecided, value, loop)
        return (not macro.stops_at) if undecided is None else undecided

    def collect(self, loop: Comprehension, macro: macros.Collect, turns: list[Any]) -> object:
        """Evaluate ``map``, ``filter``, ``transformList``."""
        made: list[object] = []

        def add() -> object:
            value = self.value(macro.item)
            if is_known(value):
                made.append(value)
            return value

        return self._gathered(loop, macro.predicate, turns, add, made)

    def insert(self, loop: Comprehension, macro: macros.Insert, turns: list[Any]) -> object:
        """Evaluate ``transformMap`` and ``transformMapEntry``."""
        made: dict[Any, Any] = {}
        add_to = runtime.insert if len(macro.items) == 2 else runtime.insert_all

        def add() -> object:
            items = self._all(macro.items)
            return self._guarded(loop, add_to, made, *items) if isinstance(items, list) else items

        return self._gathered(loop, macro.predicate, turns, add, made)

    def _gathered(
        self,
        loop: Comprehension,
        predicate: Node | None,
        turns: list[Any],
        add: Callable[[], object],
        made: object,
    ) -> object:
        """Add what each turn gives; a failure stays until a later predicate is not known."""
        state: object = None
        for bound in turns:
            self._variables.update(bound)
            passes = True if predicate is None else self.value(predicate)
            if passes is False:
                continue
            if passes is not True:
                state = passes if not is_known(passes) else Failed(NoSuchOverload(), loop)
                continue
            found = add()
            if found.__class__ is Failed and state.__class__ is not Failed:
                state = found
            elif found is UNKNOWN and state is None:
                state = UNKNOWN
        return made if state is None else state

    def fold(self, loop: Comprehension, _: object, turns: list[Any]) -> object:
        """Evaluate a loop step by step."""
        self._variables[loop.accumulator] = self.value(loop.start)
        for bound in turns:
            self._variables.update(bound)
            condition = self.value(loop.condition)
            if condition is False:
                break
            self._variables[loop.accumulator] = self.value(loop.step)
        for name in (loop.variable, loop.second_variable):
            self._variables.pop(name, None)
        return self.value(loop.result)


def _misses(values: Iterable[object]) -> bool:
    return any(value is UNKNOWN for value in values)


TOLERANT = frozenset(("except", "hasIntersection", "has_intersection", "intersect", "isSubset", "is_subset"))


def _is_tolerant(node: Call) -> bool:
    """Tell whether a function looks at its first operand before it minds that the second has failed.

    Cerbos declares the global forms of these functions so, not the members.
    """
    first, whole = node.arguments[0].span, node.span
    return node.function in TOLERANT and (first.line, first.column) != (whole.line, whole.column)


def _is_container(value: object) -> bool:
    return isinstance(value, (list, tuple)) or hasattr(value, "keys")


def _path(node: Node) -> tuple[Node, list[Node]]:
    """Take a chain of selections apart: what it begins with, and the selections in order."""
    steps: list[Node] = []
    while True:
        if isinstance(node, Select):
            steps.append(node)
            node = node.operand
        elif isinstance(node, Call) and node.function in INDEXING:
            steps.append(node)
            node = node.arguments[0]
        else:
            return node, steps[::-1]


def _constant_key(step: Node) -> str | None:
    """Return the name that a step selects, ``None`` when it is computed or no string."""
    if isinstance(step, Select):
        return step.field
    key = step.arguments[1] if isinstance(step, Call) else None
    return key.value if isinstance(key, Const) and isinstance(key.value, str) else None


def _asked(value: object, step: Node) -> object:
    """Return what the last of the steps asks of a value that was found as a whole."""
    if isinstance(step, Select):
        return True if step.test_only else value
    return Optional.of(value) if isinstance(step, Call) and step.function != INDEX else value


def _select(operand: Any, step: Select) -> object:
    if step.test_only:
        return runtime.present(operand, step.field)
    if isinstance(operand, Optional):
        return runtime.select_optional(operand, step.field)
    return runtime.select(operand, step.field)


def _index(operand: Any, key: Any) -> object:
    return (runtime.index_optional if isinstance(operand, Optional) else runtime.index)(operand, key)


INDEXING: Mapping[str, Callable[[Any, Any], object]] = {
    INDEX: _index,
    "_[?_]": runtime.index_optional,
    "_?._": runtime.select_optional,
}


def _turns(loop: Comprehension, over: Any) -> list[dict[str, object]]:
    """Return the names that each turn of a loop binds."""
    if loop.second_variable:
        names = loop.variable, loop.second_variable
        return [dict(zip(names, pair, strict=True)) for pair in runtime.pairs(over)]
    return [{loop.variable: element} for element in runtime.iterable(over)]


def function(node: Call) -> Callable[..., Any]:
    """Return the function of Python behind a CEL function or operator."""
    name = OPERATORS.get(node.function) or environment.FUNCTION_NAMES.get(node.function)
    if name is None:
        raise PlanError(f"`{node.function}` cannot be planned")
    found: Callable[..., Any] = environment.GLOBALS[name]
    return found


OPERATORS: Final[Mapping[str, str]] = {
    "!_": "invert",
    "-_": "negate",
    "@in": "contains",
    "_!=_": "differs",
    "_%_": "modulo",
    "_*_": "multiply",
    "_+_": "add",
    "_-_": "subtract",
    "_/_": "divide",
    "_<=_": "less_equals",
    "_<_": "less",
    "_==_": "equals",
    "_>=_": "greater_equals",
    "_>_": "greater",
    "_[_]": "index",
    "dyn": "identity",
    "size": "size",
}
"""Names of the runtime's functions."""

NODES: Mapping[type[Node], Callable[[Evaluation, Any], object]] = {
    Call: lambda evaluation, node: (
        evaluation.attribute(node) if node.function in INDEXING else evaluation.call(node)
    ),
    Comprehension: Evaluation.comprehension,
    Const: Evaluation.const,
    Ident: Evaluation.attribute,
    ListLiteral: Evaluation.list_literal,
    MapLiteral: Evaluation.map_literal,
    MessageLiteral: Evaluation.message,
    Select: Evaluation.attribute,
}

CALLS: Mapping[str, Callable[[Evaluation, Call], object]] = {
    "@not_strictly_false": Evaluation.not_false,
    AND: Evaluation.all_of,
    DEFINED: Evaluation.defined,
    CONDITIONAL: Evaluation.conditional,
    OR: Evaluation.any_of,
    "or": Evaluation.otherwise,
    "orValue": Evaluation.otherwise,
}
"""Functions that can do without one of their operands."""

MACROS: Mapping[type, Callable[..., object]] = {
    macros.Bind: Evaluation.fold,
    macros.Collect: Evaluation.collect,
    macros.Count: Evaluation.fold,
    macros.Insert: Evaluation.insert,
    macros.Quantifier: Evaluation.quantifier,
    type(None): Evaluation.fold,
}
