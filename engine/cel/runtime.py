"""What generated code calls: operators, equality, ordering, indexing, conversions, and the seam for errors.

The generator settles at compile time what the checker's types settle, and emits plain Python for it. These
functions are for the rest: operands that are ``dyn``, checks of ranges, and everything that is rare. Each
looks at the Python classes of its operands and raises :class:`NoSuchOverload` where CEL has none for them.
"""

from __future__ import annotations

import linecache
import math
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from engine.cel.values import (
    INT_MAX,
    INT_MIN,
    NANOSECONDS,
    NONE,
    UINT_MAX,
    Duration,
    EvaluationError,
    MixedMap,
    NoSuchOverload,
    Optional,
    RecordValue,
    Timestamp,
    TypeValue,
    UInt,
)

MAX_TEXT = 10_000_000
"""Characters or bytes that a concatenation may make at most."""

MAX_ELEMENTS = 1_000_000
"""Elements that a concatenation of lists may make at most."""

MAX_ITERATIONS = 1_000_000
"""Steps that the inner loops of one evaluation may take together: a macro inside of a macro multiplies.

What is gone through in a loop counts too: the elements of a list that is searched or copied, the characters
of a text.
"""

STEPS_OF_A_PATTERN = 10_000
"""What a pattern that is no literal costs in a loop: one evaluation may meet a hundred of them."""

TEXT_OF_A_STEP = 32
"""Characters of a text that are gone through in about the time of one step of a loop."""

NUMBERS = frozenset({int, float, UInt})
TYPE_NAMES: Mapping[type, str] = {
    type(None): "null_type",
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    tuple: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    Optional: "optional_type",
    TypeValue: "type",
}


class Listing:
    """The text of an expression under the file name that its code has, for ``linecache``."""

    __slots__ = ("__weakref__", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text

    def show(self) -> None:
        """Let tracebacks show the text, until the expression is thrown away."""
        lines = [f"{line}\n" for line in self.text.split("\n")]
        linecache.cache[self.file] = (len(self.text), None, lines, self.file)
        weakref.finalize(self, linecache.cache.pop, self.file, None)


# --- failures -----------------------------------------------------------------------------------------------


def no_such_overload() -> bool:
    """Fail where an expression is needed; the return type is for the places where a bool is expected."""
    raise NoSuchOverload


def overflow(kind: str = "integer") -> Any:
    """Fail because a number left its range."""
    raise EvaluationError(f"{kind} overflow")


def exhausted() -> None:
    """Fail because the loops of macros took too many steps."""
    raise EvaluationError(f"more than {MAX_ITERATIONS} steps in nested macros")


def steps(value: Any) -> int:
    """Return what it costs to go through *value*, in steps of a loop."""
    kind = value.__class__
    if kind is str or kind is bytes:
        return len(value) // TEXT_OF_A_STEP
    return len(value) if kind in _LISTS or isinstance(value, Mapping) else 0


def list_steps(value: Any) -> int:
    """Return what it costs to look for something in *value*: nothing, unless it is a list."""
    return len(value) if value.__class__ in _LISTS else 0


def pattern_steps(_pattern: object) -> int:
    """Return what it costs to compile a pattern: up to some ten milliseconds, whatever its length."""
    return STEPS_OF_A_PATTERN


def no_such_key(key: object) -> EvaluationError:
    """Return the failure for a *key* that a map has not."""
    return EvaluationError(f"no such key: {_shown(key)}")


def _shown(key: object) -> str:
    return str(key).lower() if key.__class__ is bool else f"{key:d}" if isinstance(key, int) else str(key)


def _missing(error: Exception) -> EvaluationError:
    return no_such_key(error.args[0] if error.args else "")


FOREIGN: Mapping[type[Exception], Callable[[Exception], EvaluationError]] = {
    AttributeError: lambda _: NoSuchOverload(),
    KeyError: _missing,
    MemoryError: lambda _: EvaluationError("out of memory"),
    RecursionError: lambda _: EvaluationError("value is nested too deeply"),
    TypeError: lambda _: NoSuchOverload(),
}
"""What an exception of Python means in an expression; any other is reported as it is."""


def failure(error: Exception, source: Listing) -> EvaluationError:
    """Translate whatever went wrong inside an expression; the traceback, and so the place, stays.

    Generated code subscripts and calls without asking first: a ``KeyError`` is a missing key. The text of the
    expression becomes readable for tracebacks.
    """
    if source.file not in linecache.cache:
        source.show()
    return translated(error)


def translated(error: Exception) -> EvaluationError:
    """Return what an exception of Python means in an expression, with its traceback."""
    if isinstance(error, EvaluationError):
        return error
    translate = FOREIGN.get(error.__class__)
    if translate is None:
        return EvaluationError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    return translate(error).with_traceback(error.__traceback__)


def fail(error: Exception) -> Any:
    """Raise the *error* of a binding, now that its name is used."""
    try:
        raise error
    finally:
        del error  # it holds its traceback, which holds this frame


# --- equality, order, membership ----------------------------------------------------------------------------

_MISSING = object()
_PYTHON_EQUAL = frozenset({str, bytes, type(None), Timestamp, Duration, TypeValue})


def equals(left: Any, right: Any) -> bool:
    """CEL equality: numbers compare across their types, everything else only within its type."""
    kind = left.__class__
    if kind in _PYTHON_EQUAL:
        return bool(left == right)
    if kind in NUMBERS:
        other = right.__class__
        return other in NUMBERS and equal_numbers(left, right)
    if kind is bool:
        return left is right
    return _equal_containers(left, right)


def equal_numbers(left: float, right: float) -> bool:
    """Equality of numbers: beside a double, an int or uint counts as the nearest double."""
    if (left.__class__ is float) is (right.__class__ is float):
        return left == right
    return float(left) == float(right)


def differs(left: Any, right: Any) -> bool:
    """``left != right``."""
    return not equals(left, right)


def _equal_containers(left: Any, right: Any) -> bool:
    if isinstance(left, Mapping):
        return isinstance(right, Mapping) and _equal_maps(left, right)
    if isinstance(left, (list, tuple)):
        return isinstance(right, (list, tuple)) and len(left) == len(right) and all(map(equals, left, right))
    if left.__class__ is Optional and right.__class__ is Optional:
        both = left.has_value and right.has_value
        return equals(left.value, right.value) if both else left.has_value == right.has_value
    return bool(left == right)


def _equal_maps(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> bool:
    if len(left) != len(right):
        return False
    for key, value in left.items():
        other = find(right, key)
        if other is _MISSING or not equals(value, other):
            return False
    return True


def find(mapping: Mapping[Any, Any], key: Any) -> Any:
    """Return the value of *key*, or a marker that no map holds.

    Python takes ``True`` and ``1`` for the same key, CEL does not.
    """
    if key.__class__ is str:
        return mapping.get(key, _MISSING)
    if key not in mapping:
        return _MISSING
    is_bool = key.__class__ is bool
    if key in _CONFUSED and not any(
        (known.__class__ is bool) is is_bool for known in mapping if known == key
    ):
        return _MISSING
    return mapping[key]


_CONFUSED = frozenset({0, 1})
"""Numbers that a bool is equal to in Python."""


_COMPARABLE = frozenset({bool, str, bytes, Timestamp, Duration})


def _comparable(left: Any, right: Any) -> tuple[Any, Any]:
    """Return the operands of an ordering as Python can compare them; raises when CEL cannot."""
    kind, other = left.__class__, right.__class__
    if kind is other and (kind in NUMBERS or kind in _COMPARABLE):
        return left, right
    if kind in NUMBERS and other in NUMBERS:
        return (float(left), float(right)) if float in {kind, other} else (left, right)
    raise NoSuchOverload


def less(left: Any, right: Any) -> bool:
    """``left < right``."""
    first, second = _comparable(left, right)
    return bool(first < second)


def less_equals(left: Any, right: Any) -> bool:
    """``left <= right``."""
    first, second = _comparable(left, right)
    return bool(first <= second)


def greater(left: Any, right: Any) -> bool:
    """``left > right``."""
    first, second = _comparable(left, right)
    return bool(first > second)


def greater_equals(left: Any, right: Any) -> bool:
    """``left >= right``."""
    first, second = _comparable(left, right)
    return bool(first >= second)


def contains(value: Any, container: Any) -> bool:
    """``value in container``: an element of a list, a key of a map."""
    if isinstance(container, (list, tuple)):
        if value.__class__ in _PYTHON_EQUAL:
            return value in container
        return any(equals(value, element) for element in container)
    if isinstance(container, Mapping):
        return value.__class__ in _KEYS and find(container, value) is not _MISSING
    raise NoSuchOverload


# --- arithmetic ---------------------------------------------------------------------------------------------


def integer(value: int) -> int:
    """*value*, checked to be a CEL int."""
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvaluationError("integer overflow")


def unsigned(value: int) -> UInt:
    """*value* as a CEL uint, checked."""
    if 0 <= value <= UINT_MAX:
        return UInt(value)
    raise EvaluationError("unsigned integer overflow")


def join(left: Any, right: Any) -> Any:
    """Two strings, or two bytes, one after the other."""
    if len(left) + len(right) > MAX_TEXT:
        raise EvaluationError(f"a text of more than {MAX_TEXT} characters")
    return left + right


def concatenate(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    """Two lists, one after the other."""
    if len(left) + len(right) > MAX_ELEMENTS:
        raise EvaluationError(f"a list of more than {MAX_ELEMENTS} elements")
    return [*left, *right]


def divide_int(left: int, right: int) -> int:
    """Integer division, cut towards zero."""
    if right == 0:
        raise EvaluationError("division by zero")
    quotient = abs(left) // abs(right)
    return integer(quotient if (left < 0) == (right < 0) else -quotient)


def divide_uint(left: int, right: int) -> UInt:
    """Division of uints."""
    if right == 0:
        raise EvaluationError("division by zero")
    return UInt(left // right)


def divide_double(left: float, right: float) -> float:
    """Division as IEEE 754 has it: by zero it is infinite, or not a number."""
    if right != 0.0:
        return left / right
    if left == 0.0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def modulo_int(left: int, right: int) -> int:
    """Return the remainder of :func:`divide_int`, with the sign of *left*."""
    if right == 0:
        raise EvaluationError("modulus by zero")
    if left == INT_MIN and right == -1:
        raise EvaluationError("integer overflow")
    remainder = abs(left) % abs(right)
    return -remainder if left < 0 else remainder


def modulo_uint(left: int, right: int) -> UInt:
    """Return the remainder of uints."""
    if right == 0:
        raise EvaluationError("modulus by zero")
    return UInt(left % right)


def add_times(left: Timestamp | Duration, right: Timestamp | Duration) -> Any:
    """Return a timestamp and a duration, in any order, or two durations."""
    nanoseconds = left.nanoseconds + right.nanoseconds
    for operand in (left, right):
        if isinstance(operand, Timestamp):
            return Timestamp(nanoseconds, operand.offset)
    return Duration(nanoseconds)


def subtract_duration(left: Timestamp | Duration, right: Duration) -> Any:
    """Return a timestamp or duration, *right* earlier or less."""
    nanoseconds = left.nanoseconds - right.nanoseconds
    return Timestamp(nanoseconds, left.offset) if isinstance(left, Timestamp) else Duration(nanoseconds)


def between(left: Timestamp, right: Timestamp) -> Duration:
    """How long *left* is after *right*."""
    return Duration(left.nanoseconds - right.nanoseconds)


Operator = Callable[[Any, Any], Any]
_Operators = Mapping[tuple[type, type], Operator]

ADD: _Operators = {
    (int, int): lambda left, right: integer(left + right),
    (UInt, UInt): lambda left, right: unsigned(int(left) + int(right)),
    (float, float): lambda left, right: left + right,
    (str, str): join,
    (bytes, bytes): join,
    (list, list): concatenate,
    (list, tuple): concatenate,
    (tuple, list): concatenate,
    (tuple, tuple): concatenate,
    (Timestamp, Duration): add_times,
    (Duration, Timestamp): add_times,
    (Duration, Duration): add_times,
}
SUBTRACT: _Operators = {
    (int, int): lambda left, right: integer(left - right),
    (UInt, UInt): lambda left, right: unsigned(int(left) - int(right)),
    (float, float): lambda left, right: left - right,
    (Timestamp, Timestamp): between,
    (Timestamp, Duration): subtract_duration,
    (Duration, Duration): subtract_duration,
}
MULTIPLY: _Operators = {
    (int, int): lambda left, right: integer(left * right),
    (UInt, UInt): lambda left, right: unsigned(int(left) * int(right)),
    (float, float): lambda left, right: left * right,
}
DIVIDE: _Operators = {(int, int): divide_int, (UInt, UInt): divide_uint, (float, float): divide_double}
MODULO: _Operators = {(int, int): modulo_int, (UInt, UInt): modulo_uint}


def _dispatcher(operators: _Operators, meaning: str) -> Operator:
    def operate(left: Any, right: Any) -> Any:
        operator = operators.get((left.__class__, right.__class__))
        if operator is None:
            raise NoSuchOverload
        return operator(left, right)

    operate.__doc__ = meaning
    return operate


add = _dispatcher(ADD, "``left + right``.")
subtract = _dispatcher(SUBTRACT, "``left - right``.")
multiply = _dispatcher(MULTIPLY, "``left * right``.")
divide = _dispatcher(DIVIDE, "``left / right``.")
modulo = _dispatcher(MODULO, "``left % right``.")


def negate(value: Any) -> Any:
    """``-value``."""
    if value.__class__ is int:
        return integer(-value)
    if value.__class__ is float:
        return -value
    if value.__class__ is Duration:  # no overload says so, but cel-go's durations can
        return Duration(-value.nanoseconds)
    raise NoSuchOverload


def invert(value: Any) -> bool:
    """``!value``."""
    if value is True:
        return False
    if value is False:
        return True
    raise NoSuchOverload


# --- access -------------------------------------------------------------------------------------------------


def size(value: Any) -> int:
    """Code points of a string, bytes, elements of a list, entries of a map."""
    kind = value.__class__
    if kind in _SIZED or isinstance(value, Mapping) or getattr(kind, "sized", False):
        return len(value)
    raise NoSuchOverload


_SIZED = frozenset({str, bytes, list, tuple, dict})


def select(operand: Any, field: str) -> Any:
    """``operand.field`` where the operand is ``dyn``."""
    if isinstance(operand, _SELECTABLE):
        return operand[field]
    if operand.__class__ in _LISTS:
        raise _no_list_index(field)
    if operand.__class__ is Optional:
        return select_optional(operand, field)
    raise no_such_key(field)


_SELECTABLE = (Mapping, RecordValue)
_LISTS = frozenset({list, tuple})


def index(container: Any, key: Any) -> Any:
    """``container[key]``."""
    kind = container.__class__
    if kind in _LISTS:
        return index_list(container, key)
    if isinstance(container, Mapping):
        return index_map(container, key)
    if kind is Optional:
        return index_optional(container, key)
    if kind is RecordValue:
        raise NoSuchOverload
    return container[key] if getattr(kind, "sized", False) else _index_nothing(key)


def _index_nothing(key: Any) -> Any:
    """Fail as cel-go does where something that has no elements is indexed."""
    raise no_such_key(key) if key.__class__ in _KEYS else _no_qualifier(key)


def index_map(mapping: Mapping[Any, Any], key: Any) -> Any:
    """Return the value of *key*; raises ``no such key``."""
    if key.__class__ not in _KEYS:
        raise _no_qualifier(key)
    value = find(mapping, key)
    if value is not _MISSING:
        return value
    if key.__class__ is str:
        return mapping[key]  # a namespace words the failure itself
    raise no_such_key(key)


_KEYS = frozenset({bool, int, UInt, float, str})


def index_list(values: Sequence[Any], position: Any) -> Any:
    """Return the element at *position*, a number without a fraction; raises ``index out of bounds``."""
    if position.__class__ is not int:
        position = _list_index(position)
    if 0 <= position < len(values):
        return values[position]
    raise EvaluationError(f"index out of bounds: {position}")


def _list_index(position: Any) -> int:
    kind = position.__class__
    if kind not in NUMBERS:
        raise _no_list_index(position) if kind in _KEYS else _no_qualifier(position)
    if kind is float and not position.is_integer():
        raise EvaluationError(f"unsupported index value {text_of_double(position)} in list")
    return int(position)


def _no_list_index(key: Any) -> EvaluationError:
    return EvaluationError(f"unsupported index type '{type_name(key)}' in list")


def _no_qualifier(key: Any) -> EvaluationError:
    return EvaluationError(f"invalid qualifier type: {go_type(key)}")


def present(operand: Any, field: str) -> bool:
    """``has(operand.field)``: false for what cannot have fields at all, except for a list."""
    if isinstance(operand, Mapping):
        return field in operand
    if operand.__class__ is RecordValue:
        return bool(operand.has(field))
    if operand.__class__ is Optional:
        return bool(operand.has_value) and present(operand.value, field)
    if operand.__class__ in _LISTS:
        raise _no_list_index(field)
    return False


def select_optional(operand: Any, field: str) -> Optional:
    """``operand.?field``: none when there is no such field."""
    if operand.__class__ is Optional:
        return select_optional(operand.value, field) if operand.has_value else NONE
    return Optional.of(operand[field]) if present(operand, field) else NONE


def index_optional(container: Any, key: Any) -> Optional:
    """``container[?key]``: none when there is no such element."""
    kind = container.__class__
    if kind is Optional:
        return index_optional(container.value, key) if container.has_value else NONE
    if isinstance(container, Mapping):
        if key.__class__ not in _KEYS:
            raise _no_qualifier(key)
        value = find(container, key)
        return NONE if value is _MISSING else Optional.of(value)
    if kind not in _LISTS:
        return NONE
    position = _list_index(key)
    return Optional.of(container[position]) if 0 <= position < len(container) else NONE


def record(name: str, fields: Mapping[str, Callable[[object], Any]], value: object) -> RecordValue:
    """Return a record as an ordinary value; variables of the policy may hold one already."""
    return value if isinstance(value, RecordValue) else RecordValue(name, fields, value)


# --- literals and loops -------------------------------------------------------------------------------------


def make_list(elements: Sequence[Any], optional: frozenset[int]) -> list[Any]:
    """Return a list whose elements at the *optional* places are there only if they hold a value."""
    made: list[Any] = []
    for place, element in enumerate(elements):
        if place not in optional:
            made.append(element)
        elif opened(element).has_value:
            made.append(element.value)
    return made


def make_map(entries: Sequence[tuple[Any, Any]], optional: frozenset[int]) -> Mapping[Any, Any]:
    """Return a map whose entries at the *optional* places are there only if they hold a value."""
    if optional:
        entries = [
            (key, opened(value).value if place in optional else value)
            for place, (key, value) in enumerate(entries)
            if place not in optional or opened(value).has_value
        ]
    kinds = {key.__class__ for key, _ in entries}
    if bool in kinds and not kinds.isdisjoint(NUMBERS):
        return _make_mixed_map(entries)
    made: dict[Any, Any] = {}
    for key, value in entries:
        if key.__class__ not in _LITERAL_KEYS:
            raise EvaluationError("unsupported key type")
        if key in made:
            raise EvaluationError("Failed with repeated key")
        made[key] = value
    return made


def _make_mixed_map(entries: Sequence[tuple[Any, Any]]) -> MixedMap:
    make_map([entry for entry in entries if entry[0].__class__ is bool], frozenset())
    make_map([entry for entry in entries if entry[0].__class__ is not bool], frozenset())
    return MixedMap(entries)


def opened(value: Any) -> Optional:
    """*value*, which must be an optional."""
    if not isinstance(value, Optional):
        raise NoSuchOverload
    return value


_LITERAL_KEYS = frozenset({bool, int, UInt, str})


def insert(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """Add an entry to the map that a macro makes; raises for a wrong key and for one that is there."""
    if key.__class__ not in _LITERAL_KEYS:
        raise EvaluationError("unsupported key type")
    if key in mapping:
        raise EvaluationError(f"insert failed: key {_shown(key)} already exists")
    mapping[key] = value


def insert_all(mapping: dict[Any, Any], entries: Any) -> None:
    """Add all *entries* of another map to a map that is being made."""
    if not isinstance(entries, Mapping):
        raise NoSuchOverload
    for key, value in entries.items():
        insert(mapping, key, value)


def iterable(value: Any) -> Any:
    """Return what a macro can loop over: the elements of a list, the keys of a map."""
    if value.__class__ in _LISTS or isinstance(value, Mapping):
        return value
    raise EvaluationError(f"got '{go_type(value)}', expected iterable type")


def pairs(value: Any) -> Iterable[tuple[Any, Any]]:
    """Index and element of a list, key and value of a map."""
    return value.items() if isinstance(value, Mapping) else enumerate(iterable(value))


# --- conversions --------------------------------------------------------------------------------------------

MAX_PLAIN_MAGNITUDE = 6
"""From 1e+06 on Go writes an exponent."""

INTEGER_TEXT = re.compile(r"[+-]?[0-9]{1,20}")
UNSIGNED_TEXT = re.compile(r"[0-9]{1,20}")
DOUBLE_TEXT = re.compile(r"[!-~]{1,1000}")
HEXADECIMAL_TEXT = re.compile(r"[+-]?0[xX].*[pP]")
BOOL_TEXTS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def type_name(value: Any) -> str:
    """Return the name of the type of *value*."""
    kind = value.__class__
    known = TYPE_NAMES.get(kind)
    if known is not None:
        return known
    if kind is RecordValue:
        return str(value.name)
    return "map" if isinstance(value, Mapping) else str(getattr(kind, "type_name", kind.__name__))


GO_TYPES: Mapping[type, str] = {
    type(None): "types.Null",
    bool: "types.Bool",
    int: "types.Int",
    UInt: "types.Uint",
    float: "types.Double",
    str: "types.String",
    bytes: "types.Bytes",
    Timestamp: "types.Timestamp",
    Duration: "types.Duration",
    Optional: "*types.Optional",
    TypeValue: "*types.Type",
}


def go_type(value: Any) -> str:
    """Return the name that cel-go has for the type of *value* where its messages give Go's types."""
    return GO_TYPES.get(value.__class__) or type_name(value)


def type_of(value: Any) -> TypeValue:
    """``type(value)``."""
    return TypeValue(type_name(value))


def identity(value: Any) -> Any:
    """``dyn(value)``: the value; only the checker forgets its type."""
    return value


def _converter(name: str, conversions: Mapping[type, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        found = conversions.get(value.__class__)
        if found is None:
            raise NoSuchOverload(f"{name}({type_name(value)})")
        return found(value)

    convert.__doc__ = f"``{name}(value)``."
    return convert


def _no_conversion(target: str) -> EvaluationError:
    return EvaluationError(f"type conversion error from 'string' to '{target}'")


def _int_of_double(value: float) -> int:
    # The ends of the range are not exact in a double: cel-go refuses both.
    if -(2.0**63) < value < 2.0**63:
        return int(value)
    raise EvaluationError("integer overflow")


def _uint_of_double(value: float) -> UInt:
    if 0.0 <= value < 2.0**64:
        return UInt(value)
    raise EvaluationError("unsigned integer overflow")


def _int_of_text(text: str) -> int:
    if INTEGER_TEXT.fullmatch(text) is None or not INT_MIN <= int(text) <= INT_MAX:
        raise _no_conversion("int")
    return int(text)


def _uint_of_text(text: str) -> UInt:
    if UNSIGNED_TEXT.fullmatch(text) is None or int(text) > UINT_MAX:
        raise _no_conversion("uint")
    return UInt(text)


def _double_of_text(text: str) -> float:
    """Read what Go's ``ParseFloat`` reads; Python's reader agrees on ASCII text without blanks."""
    try:
        value = float.fromhex(text) if HEXADECIMAL_TEXT.match(text) else float(text)
    except (ValueError, OverflowError):
        raise _no_conversion("double") from None
    if DOUBLE_TEXT.fullmatch(text) is None or (math.isinf(value) and text[-1].isdecimal()):
        raise _no_conversion("double")
    return value


def _bool_of_text(text: str) -> bool:
    if text not in BOOL_TEXTS:
        raise _no_conversion("bool")
    return BOOL_TEXTS[text]


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from None


def text_of_double(value: float) -> str:
    """Return the shortest text that reads back as *value*, in Go's ``%g`` form: ``1e+06``, ``+Inf``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    exponent = int(exponent)  # it is a letter for infinity and NaN only
    magnitude = len(digits) + exponent - 1
    if -4 <= magnitude < MAX_PLAIN_MAGNITUDE:
        return f"{value:.{max(0, -exponent)}f}"
    text = "".join(map(str, digits))
    fraction = f".{text[1:]}" if len(text) > 1 else ""
    return f"{'-' * sign}{text[0]}{fraction}e{magnitude:+03}"


INT_FROM: Mapping[type, Callable[[Any], int]] = {
    int: identity,
    UInt: lambda value: integer(int(value)),
    float: _int_of_double,
    str: _int_of_text,
    Timestamp: lambda value: value.nanoseconds // NANOSECONDS,
    Duration: lambda value: value.nanoseconds,
}
UINT_FROM: Mapping[type, Callable[[Any], UInt]] = {
    UInt: identity,
    int: unsigned,
    float: _uint_of_double,
    str: _uint_of_text,
}
DOUBLE_FROM: Mapping[type, Callable[[Any], float]] = {
    float: identity,
    int: float,
    UInt: float,
    str: _double_of_text,
}
STRING_FROM: Mapping[type, Callable[[Any], str]] = {
    str: identity,
    bool: lambda value: "true" if value else "false",
    int: str,
    UInt: lambda value: str(int(value)),
    float: text_of_double,
    bytes: _text_of_bytes,
    Timestamp: str,
    Duration: str,
}
BYTES_FROM: Mapping[type, Callable[[Any], bytes]] = {bytes: identity, str: str.encode}
BOOL_FROM: Mapping[type, Callable[[Any], bool]] = {bool: identity, str: _bool_of_text}
TIMESTAMP_FROM: Mapping[type, Callable[[Any], Timestamp]] = {
    Timestamp: identity,
    str: Timestamp.parse,
    int: lambda value: Timestamp(value * NANOSECONDS),
}
DURATION_FROM: Mapping[type, Callable[[Any], Duration]] = {Duration: identity, str: Duration.parse}

to_bool = _converter("bool", BOOL_FROM)
to_bytes = _converter("bytes", BYTES_FROM)
to_double = _converter("double", DOUBLE_FROM)
to_duration = _converter("duration", DURATION_FROM)
to_int = _converter("int", INT_FROM)
to_timestamp = _converter("timestamp", TIMESTAMP_FROM)
to_uint = _converter("uint", UINT_FROM)


def to_string(value: Any) -> str:
    """``string(value)``."""
    convert = STRING_FROM.get(value.__class__)
    if convert is not None:
        return convert(value)
    if getattr(value.__class__, "to_string", None) is None:
        raise NoSuchOverload(f"string({type_name(value)})")
    return str(value.to_string())
