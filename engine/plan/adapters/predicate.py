"""A plan as a plain function: whether a resource passes the filter.

The function computes with CEL's values and operators. An attribute that is not there is an error, which
``and`` and ``or`` absorb when another operand decides, as in CEL; an error that is left over means no. So
whatever the rest of a filter says, a resource never passes because something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from engine.cel import EvaluationError, NoSuchOverload, environment, runtime
from engine.cel import library as cel_library
from engine.model import Resource, json_value
from engine.plan.adapters.errors import AdapterError
from engine.plan.convert import OPERATORS
from engine.plan.filter import Expression, Operand, Value, Variable
from engine.plan.model import ALWAYS_ALLOWED, ALWAYS_DENIED
from engine.plan.partial import OPERATORS as RUNTIME

if TYPE_CHECKING:
    from engine.plan.model import Plan

Scope = Mapping[str, Any]
"""Values by the names that variables begin with."""

Evaluator = Callable[[Scope], Any]

Predicate = Callable[[Resource | Mapping[str, Any]], bool]


def predicate(plan: Plan) -> Predicate:
    """Return the function that tells whether a resource passes the filter of *plan*.

    It takes a :class:`~engine.model.Resource`, or the attributes of one by name; then the filter must not ask
    for the id. Numbers of any type count as doubles, as everywhere in attributes.

    Raises:
        AdapterError: the filter has an operator that is no function of CEL.

    """
    if plan.kind == ALWAYS_ALLOWED:
        return lambda _: True
    if plan.kind == ALWAYS_DENIED or plan.condition is None:
        return lambda _: False
    holds = evaluator(plan.condition)

    def passes(resource: Resource | Mapping[str, Any]) -> bool:
        try:
            return holds({"request": {"resource": _fields(resource)}}) is True
        except EvaluationError:
            return False
        except RecursionError:
            return False

    return passes


def _fields(resource: Resource | Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource as a filter sees it: what is not known is not there."""
    if not isinstance(resource, Resource):
        return {"attr": json_value(resource)}
    return {
        "attr": json_value(resource.attr),
        "id": resource.id,
        "kind": resource.kind,
        "policyVersion": resource.policy_version,
        "policy_version": resource.policy_version,
        "scope": resource.scope,
    }


def evaluator(operand: Operand) -> Evaluator:
    """Return the function that evaluates an operand.

    It returns a CEL value or raises :class:`~engine.cel.values.EvaluationError`.

    Raises:
        AdapterError: there is an operator that is no function of CEL.

    """
    if isinstance(operand, Value):
        value = operand.value
        return lambda _: value
    if isinstance(operand, Variable):
        return _variable(operand.name)
    special = SPECIAL.get(operand.operator)
    return special(operand) if special is not None else _call(operand)


def _variable(name: str) -> Evaluator:
    first, *path = name.split(".")

    def evaluate(scope: Scope) -> Any:
        if first not in scope:
            raise EvaluationError(f"no such attribute(s): {name}")
        value = scope[first]
        for field in path:
            value = _guarded(runtime.select, value, field)
        return value

    return evaluate


def _guarded(compute: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; whatever goes wrong is an error of evaluation."""
    try:
        return compute(*arguments)
    except (EvaluationError, RecursionError):
        raise
    except Exception as error:
        raise runtime.translated(error) from error


# --- functions ----------------------------------------------------------------------------------------------

CEL_NAMES = {name: function for function, name in OPERATORS.items()}


def _call(operand: Expression) -> Evaluator:
    function = CEL_NAMES.get(operand.operator, operand.operator)
    name = RUNTIME.get(function) or environment.FUNCTION_NAMES.get(function)
    if name is None or function in cel_library.NEEDS_NOW:
        raise AdapterError(f"the filter has the operator `{operand.operator}`, which is no function of CEL")
    compute: Callable[..., Any] = environment.GLOBALS[name]
    operands = [evaluator(part) for part in operand.operands]
    return lambda scope: _guarded(compute, *[part(scope) for part in operands])


def _junction(operand: Expression) -> Evaluator:
    operands = [evaluator(part) for part in operand.operands]
    decisive = operand.operator == "or"
    return lambda scope: _decided(((part, scope) for part in operands), decisive=decisive)


def _decided(parts: Iterable[tuple[Evaluator, Scope]], *, decisive: bool) -> bool:
    """Join truth values as CEL's ``||`` (*decisive* is true) or ``&&``: an error yields to what decides.

    Raises:
        EvaluationError: the first one, when nothing decides.

    """
    failure: EvaluationError | None = None
    for part, scope in parts:
        try:
            value: object = part(scope)
        except EvaluationError as error:
            failure = failure or error
            continue
        if value is decisive:
            return decisive
        if value is not (not decisive):
            failure = failure or NoSuchOverload()
    if failure is not None:
        raise failure
    return not decisive


def _negation(operand: Expression) -> Evaluator:
    (inner,) = (evaluator(part) for part in operand.operands)

    def evaluate(scope: Scope) -> bool:
        value = inner(scope)
        if value is True or value is False:
            return not value
        raise NoSuchOverload

    return evaluate


def _choice(operand: Expression) -> Evaluator:
    condition, then, otherwise = (evaluator(part) for part in operand.operands)

    def evaluate(scope: Scope) -> Any:
        value = condition(scope)
        if not isinstance(value, bool):
            raise NoSuchOverload
        return then(scope) if value else otherwise(scope)

    return evaluate


def _list(operand: Expression) -> Evaluator:
    elements = [evaluator(part) for part in operand.operands]
    return lambda scope: [element(scope) for element in elements]


def _struct(operand: Expression) -> Evaluator:
    pairs = [_pair(part) for part in operand.operands]

    def evaluate(scope: Scope) -> Any:
        entries = [(key(scope), value(scope)) for key, value in pairs]
        return _guarded(runtime.make_map, entries, frozenset())

    return evaluate


def _pair(operand: Operand) -> tuple[Evaluator, Evaluator]:
    match operand:
        case Expression("set-field", (key, value)):
            return evaluator(key), evaluator(value)
    raise AdapterError("the filter has a `struct` of something else than `set-field`")


def _field(operand: Expression) -> Evaluator:
    match operand.operands:
        case (of, Variable(name)):
            inner = evaluator(of)
            return lambda scope: _guarded(runtime.select, inner(scope), name)
    raise AdapterError("the filter has a `get-field` without the name of a field")


def _presence(operand: Expression) -> Evaluator:
    match operand.operands:
        case (Variable(name),):
            path, _, field = name.rpartition(".")
            inner = _variable(path)
        case (Expression("get-field", (of, Variable(field))),):
            inner = evaluator(of)
        case _:
            raise AdapterError("the filter has a `has` of something else than a field")
    return lambda scope: _guarded(runtime.present, inner(scope), field)


# --- loops --------------------------------------------------------------------------------------------------


class Loop:
    """A macro of a filter: what it goes over, the bodies of its lambda, the names that it binds."""

    __slots__ = ("bodies", "names", "over")

    def __init__(self, operand: Expression) -> None:
        self.over, self.bodies, self.names = _taken_apart(operand)

    def turns(self, scope: Scope) -> list[Scope]:
        """Return the scope of each turn.

        Raises:
            EvaluationError: there is nothing to go over.

        """
        over = self.over(scope)
        if len(self.names) == 1:
            elements = _guarded(runtime.iterable, over)
            return [{**scope, self.names[0]: element} for element in elements]
        return [
            {**scope, **dict(zip(self.names, pair, strict=True))} for pair in _guarded(runtime.pairs, over)
        ]


def _taken_apart(operand: Expression) -> tuple[Evaluator, list[Evaluator], list[str]]:
    match operand.operands:
        case (over, Expression("lambda", parts)) if len(parts) > 1:
            bodies = 2 if _has_two_bodies(operand.operator, parts) else 1
            names = [part.name for part in parts[bodies:] if isinstance(part, Variable)]
            if bodies + len(names) == len(parts) and 0 < len(names) <= 2:
                return evaluator(over), [evaluator(part) for part in parts[:bodies]], names
    raise AdapterError(f"the filter has a `{operand.operator}` without a lambda")


def _has_two_bodies(operator: str, parts: tuple[Operand, ...]) -> bool:
    """Tell whether a lambda begins with a condition: the operators that may have one have no other sign."""
    if operator in {"transformMap", "transformMapEntry"}:
        return len(parts) == 4
    return operator == "transformList" and (len(parts) == 4 or not isinstance(parts[1], Variable))


def _quantifier(operand: Expression) -> Evaluator:
    loop, decisive = Loop(operand), operand.operator == "exists"
    return lambda scope: _decided(((loop.bodies[0], turn) for turn in loop.turns(scope)), decisive=decisive)


def _passing(loop: Loop, scope: Scope) -> list[Scope]:
    """Return the turns for which the first body holds."""
    found = []
    for turn in loop.turns(scope):
        value = loop.bodies[0](turn)
        if not isinstance(value, bool):
            raise NoSuchOverload
        if value:
            found.append(turn)
    return found


def _count(operand: Expression) -> Evaluator:
    loop = Loop(operand)
    return lambda scope: len(_passing(loop, scope)) == 1


def _filter(operand: Expression) -> Evaluator:
    loop = Loop(operand)
    return lambda scope: [turn[loop.names[-1]] for turn in _passing(loop, scope)]


def _map(operand: Expression) -> Evaluator:
    loop = Loop(operand)

    def evaluate(scope: Scope) -> list[Any]:
        turns = loop.turns(scope) if len(loop.bodies) == 1 else _passing(loop, scope)
        return [loop.bodies[-1](turn) for turn in turns]

    return evaluate


def _map_of(operand: Expression) -> Evaluator:
    loop = Loop(operand)
    whole = operand.operator == "transformMapEntry"

    def evaluate(scope: Scope) -> Any:
        made: dict[Any, Any] = {}
        turns = loop.turns(scope) if len(loop.bodies) == 1 else _passing(loop, scope)
        for turn in turns:
            value = loop.bodies[-1](turn)
            if whole:
                _guarded(runtime.insert_all, made, value)
            else:
                _guarded(runtime.insert, made, turn[loop.names[0]], value)
        return made

    return evaluate


def _sort(operand: Expression) -> Evaluator:
    loop = Loop(operand)
    by_keys = cel_library.FUNCTIONS["@sortByAssociatedKeys"]

    def evaluate(scope: Scope) -> Any:
        turns = loop.turns(scope)
        elements = [turn[loop.names[0]] for turn in turns]
        return _guarded(by_keys, elements, [loop.bodies[0](turn) for turn in turns])

    return evaluate


SPECIAL: Mapping[str, Callable[[Expression], Evaluator]] = {
    "all": _quantifier,
    "and": _junction,
    "exists": _quantifier,
    "exists_one": _count,
    "filter": _filter,
    "get-field": _field,
    "has": _presence,
    "if": _choice,
    "list": _list,
    "map": _map,
    "not": _negation,
    "or": _junction,
    "sortBy": _sort,
    "struct": _struct,
    "transformList": _map,
    "transformMap": _map_of,
    "transformMapEntry": _map_of,
}
"""Operators that do not evaluate all of their operands, or have operands of their own kind."""
