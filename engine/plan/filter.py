"""The filter of a plan: a tree of operators, variables and values, as Cerbos's API gives it.

An operand is one of three: a :class:`Value`, a :class:`Variable` (``request.resource.attr.owner``), or an
:class:`Expression`, an operator over operands. :func:`normalised` makes a filter as small as Cerbos makes
it, operand for operand (``internal/ruletable/planner/ast.go``), and :func:`debug` writes it as one line.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from engine.model import json_value

if TYPE_CHECKING:
    from engine.model import JsonValue

AND, OR, NOT = "and", "or", "not"
EQUAL, IN = "eq", "in"

LOGICAL = frozenset({AND, OR, NOT})

EXACT_INTEGERS = 2**53
"""Up to here an integer and the JSON number that stands for it are the same."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is known.

    In JSON every number is a double. Here a literal of an expression keeps its type: ``1`` is an ``int``,
    and adding it to an attribute, which is a double, fails as it does in a check.
    """

    value: Any

    def to_json(self) -> dict[str, Any]:
        """Return ``{"value": ...}``."""
        return {"value": _plain(self.value)}


@dataclass(frozen=True, slots=True)
class Variable:
    """A name: of an attribute of the resource, by its whole path, or of the variable of a lambda."""

    name: str

    def to_json(self) -> dict[str, Any]:
        """Return ``{"variable": name}``."""
        return {"variable": self.name}


@dataclass(frozen=True, slots=True)
class Expression:
    """An operator over operands."""

    operator: str
    operands: tuple[Operand, ...]

    def to_json(self) -> dict[str, Any]:
        """Return ``{"expression": {"operator": ..., "operands": [...]}}``."""
        operands = [operand.to_json() for operand in self.operands]
        return {"expression": {"operator": self.operator, "operands": operands}}


Operand = Value | Variable | Expression

TRUE, FALSE = Value(True), Value(False)


def from_json(document: Mapping[str, Any]) -> Operand:
    """Read an operand as it stands in the answer of Cerbos's API (``filter.condition``).

    Raises:
        ValueError: it is no operand.

    """
    match document:
        case {"value": value}:
            return Value(json_value(value))
        case {"variable": str(name)}:
            return Variable(name)
        case {"expression": {"operator": str(operator), **rest}}:
            operands: Any = rest.get("operands", [])
            return Expression(operator, tuple(from_json(operand) for operand in operands))
    raise ValueError("an operand has one of `value`, `variable` and `expression`")


def _plain(value: Any) -> JsonValue:
    """Return a value as JSON: whole numbers as integers, which JSON writes without a fraction."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < EXACT_INTEGERS else number
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    found: JsonValue = value
    return found


# --- text ---------------------------------------------------------------------------------------------------


def debug(operand: Operand) -> str:
    """Write an operand as ``(operator operand operand)``, with values as JSON."""
    if isinstance(operand, Variable):
        return operand.name
    if isinstance(operand, Value):
        return value_text(operand.value)
    return f"({operand.operator} {' '.join(map(debug, operand.operands))})"


def identity(operand: Operand) -> str:
    """Write an operand so that only equal ones have equal text: numbers of different types differ."""
    if isinstance(operand, Variable):
        return operand.name
    if isinstance(operand, Value):
        return _typed_text(operand.value)
    return f"({operand.operator} {' '.join(map(identity, operand.operands))})"


def _typed_text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_typed_text, value))}]"
    return f"{type(value).__name__}:{value_text(value)}"


def value_text(value: Any) -> str:
    """Write a value as compact JSON, numbers as Go's protojson writes them."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_text(value)
    if isinstance(value, Mapping):
        pairs = (f"{_string_text(key)}:{value_text(value[key])}" for key in sorted(value))
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return f"[{','.join(map(value_text, value))}]"
    return _string_text(_plain(value))


def _string_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


SMALLEST_WRITTEN_OUT, LARGEST_WRITTEN_OUT = 1e-6, 1e21


def _number_text(value: float) -> str:
    number = float(value)
    if not math.isfinite(number):
        return "<ERROR>"
    if number == 0.0:
        return "-0" if math.copysign(1.0, number) < 0 else "0"
    if SMALLEST_WRITTEN_OUT <= abs(number) < LARGEST_WRITTEN_OUT:
        text = f"{Decimal(repr(number)):f}"
        return text.removesuffix(".0")
    mantissa, _, exponent = repr(number).partition("e")
    sign, digits = exponent[0], exponent[1:].lstrip("0")
    return f"{mantissa.removesuffix('.0')}e{sign}{digits}"


# --- normalisation ------------------------------------------------------------------------------------------

LONG_NAMES: Mapping[str, str] = {
    "C": "constants",
    "G": "globals",
    "P": "request.principal",
    "R": "request.resource",
    "V": "variables",
}


def long_name(name: str) -> str:
    """Return the name of a variable in full: ``request.resource.id`` for ``R.id``."""
    first, dot, rest = name.partition(".")
    return f"{LONG_NAMES.get(first, first)}{dot}{rest}"


def normalised(operand: Operand, *, exact: bool = False) -> Operand:
    """Return the filter in its smallest form; a filter that does not depend on anything becomes a value.

    With *exact*, nothing is left out that might fail: an attribute that is missing is in no empty list, but
    asking so is an error.
    """
    return _normalised(operand, exact)[0]


def _normalised(operand: Operand, exact: bool) -> tuple[Operand, Operand]:
    """Return the normal form, and what *operand* itself is after its parts have been normalised.

    Repeated operands are told by the second: Cerbos normalises in place and compares what that leaves.
    """
    if isinstance(operand, Value):
        return operand, operand
    if isinstance(operand, Variable):
        named = Variable(long_name(operand.name))
        return named, named
    if operand.operator == IN and len(operand.operands) == 2 and not (exact and _is_in_nothing(operand)):
        operand = _membership(operand)
        if isinstance(operand, Value):
            return operand, operand
    if operand.operator in {AND, OR}:
        return _junction(operand, exact)
    parts = tuple(_normalised(part, exact)[0] for part in operand.operands)
    made = Expression(operand.operator, parts)
    if operand.operator == NOT and len(parts) == 1:
        truth = as_bool(parts[0])
        if truth is not None:
            return Value(not truth), made
    return made, made


def _junction(operand: Expression, exact: bool) -> tuple[Operand, Operand]:
    """Normalise ``and`` or ``or``: drop what does not matter and what is repeated."""
    neutral = operand.operator == AND
    kept: list[Operand] = []
    left: list[Operand] = []
    seen: set[str] = set()
    for position, part in enumerate(operand.operands):
        normal, itself = _normalised(part, exact)
        left.append(itself)
        truth = as_bool(normal)
        if truth is neutral:
            continue
        if truth is not None:
            untouched = operand.operands[position + 1 :]
            return normal, Expression(operand.operator, (*left, *untouched))
        key = identity(itself)
        if key not in seen:
            seen.add(key)
            kept.append(normal)
    if len(kept) < 2:
        return kept[0] if kept else Value(neutral), Expression(operand.operator, tuple(left))
    made = Expression(operand.operator, tuple(kept))
    return made, made


def _is_in_nothing(operand: Expression) -> bool:
    container = operand.operands[1]
    return isinstance(container, Value) and container.value in ([], {})


def _membership(operand: Expression) -> Expression | Value:
    """Normalise ``in`` a known container: nothing is in an empty one, and one element is compared with.

    A value that is no container is compared with, too.
    """
    element, container = operand.operands
    if not isinstance(container, Value):
        return operand
    value = container.value
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (str, bytes)):
        elements = list(value)
        if not elements:
            return FALSE
        return operand if len(elements) > 1 else Expression(EQUAL, (element, Value(elements[0])))
    return Expression(EQUAL, (element, container))


def as_bool(operand: Operand) -> bool | None:
    """Return the truth value that an operand is, ``None`` when it is none."""
    return operand.value if isinstance(operand, Value) and isinstance(operand.value, bool) else None
