"""cel-python as a second opinion: an independent parser and interpreter, taught what CEL has learnt since.

cel-python 0.5 follows an older CEL. Where the two languages differ by a rule that can be stated, its
operators are wrapped here (:data:`TAUGHT` lists the rules); where cel-python is wrong or vague, an evaluation
that gets there is not compared, and the reason is counted: :class:`NotComparable`. What remains - parsing,
precedence, selection, logic that absorbs errors, macros, arithmetic, text functions, dates - is cel-python's
own.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import operator
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import lark
from celpy import Environment as CelPythonEnvironment
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError, base_functions

from engine.cel import Duration, EvaluationError, RecordValue, Timestamp, UInt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TAUGHT: Final = (
    "values of different types are not equal, but numbers are compared whatever their types",
    "numbers of different types can be ordered, and cannot be added, subtracted, multiplied or divided",
    "a bool is not a number",
    "`&&` and `||` take bools and errors only",
    "an index of a list counts from 0 and may be any whole number; texts have no index",
    "`size` takes texts, bytes, lists and maps; `contains` takes texts",
    "`in` takes lists and maps",
)
"""Rules of today's CEL that cel-python 0.5 does not know by itself."""

NANOSECONDS: Final = 1000
"""Nanoseconds in a microsecond, which is the finest that Python's dates know."""

EXACT: Final = 2**53
"""Whole numbers up to here are doubles without loss."""


class NotComparable(BaseException):
    """What cel-python says about this evaluation is worth nothing; the text says why."""


class SecondError(Exception):
    """cel-python says that the expression fails."""


# -- values ------------------------------------------------------------------------------------------------


def to_cel_python(value: Any) -> Any:
    """Convert a value of an activation; raises :class:`NotComparable` where cel-python has none for it."""
    convert = _TO.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, (list, tuple)):
        return celtypes.ListType([to_cel_python(item) for item in value])
    if isinstance(value, (dict, RecordValue)):
        return celtypes.MapType({to_cel_python(key): to_cel_python(value[key]) for key in value})
    raise NotComparable(f"cel-python has no values of the type {type(value).__name__.lower()}")


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _microseconds(nanoseconds: int) -> datetime.timedelta:
    if nanoseconds % NANOSECONDS:
        raise NotComparable("cel-python counts microseconds, not nanoseconds")
    return datetime.timedelta(microseconds=nanoseconds // NANOSECONDS)


_TO: Mapping[type, Callable[[Any], Any]] = {
    type(None): lambda _: None,
    bool: celtypes.BoolType,
    int: celtypes.IntType,
    UInt: celtypes.UintType,
    float: celtypes.DoubleType,
    str: celtypes.StringType,
    bytes: celtypes.BytesType,
    Timestamp: lambda value: celtypes.TimestampType(_EPOCH + _microseconds(value.nanoseconds)),
    Duration: lambda value: celtypes.DurationType(_microseconds(value.nanoseconds)),
}


def from_cel_python(value: Any) -> Any:
    """Convert a result of cel-python to a value of ours."""
    kind = kind_of(value)
    if kind not in _FROM:
        raise NotComparable(f"cel-python answers with a {type(value).__name__}")
    return _FROM[kind](value)


def _from_timestamp(value: datetime.datetime) -> Timestamp:
    return Timestamp((value - _EPOCH) // datetime.timedelta(microseconds=1) * NANOSECONDS)


def _from_duration(value: datetime.timedelta) -> Duration:
    return Duration(value // datetime.timedelta(microseconds=1) * NANOSECONDS)


_FROM: Mapping[str, Callable[[Any], Any]] = {
    "null": lambda _: None,
    "bool": bool,
    "int": int,
    "uint": UInt,
    "double": float,
    "string": str,
    "bytes": bytes,
    "timestamp": _from_timestamp,
    "duration": _from_duration,
    "list": lambda value: [from_cel_python(item) for item in value],
    "map": lambda value: {from_cel_python(key): from_cel_python(item) for key, item in value.items()},
}

_KINDS: Final = (
    (celtypes.BoolType, "bool"),
    (bool, "bool"),
    (celtypes.UintType, "uint"),
    (int, "int"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (datetime.datetime, "timestamp"),
    (datetime.timedelta, "duration"),
    (list, "list"),
    (dict, "map"),
)


def kind_of(value: Any) -> str:
    """Return the CEL type of a value of cel-python; its operators also give values of Python's own types."""
    if value is None:
        return "null"
    return next((kind for cls, kind in _KINDS if isinstance(value, cls)), type(value).__name__)


# -- operators ---------------------------------------------------------------------------------------------

NUMBERS: Final = frozenset(("int", "uint", "double"))
_Function = "Callable[..., Any]"


def _failing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an operand that is an error be the result; cel-python also hands errors on inside of literals."""

    def call(*operands: Any) -> Any:
        failed = next((error for error in map(_error_in, operands) if error is not None), None)
        return function(*operands) if failed is None else failed

    return call


def _error_in(value: Any) -> CELEvalError | None:
    if isinstance(value, CELEvalError):
        return value
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return next((error for error in map(_error_in, inner) if error is not None), None)
    return None


def _equal(left: Any, right: Any) -> bool:
    kinds = kind_of(left), kind_of(right)
    if kinds[0] != kinds[1]:
        return NUMBERS.issuperset(kinds) and bool(_number(left) == _number(right))
    if kinds[0] == "list":
        return len(left) == len(right) and all(map(_equal, left, right))
    if kinds[0] == "map":
        _only_texts(left, right)
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _only_texts(*maps: Any) -> None:
    if any(kind_of(key) != "string" for one in maps for key in one):
        raise NotComparable("cel-python tells keys of maps apart by other rules, unless they are texts")


def _number(value: Any) -> float | int:
    """Return a number as Python compares it: exactly, whatever the types of the two are."""
    if abs(value) > EXACT:
        raise NotComparable("numbers beyond 2^53 are compared by other rules when their types differ")
    return float(value) if kind_of(value) == "double" else int(value)


def _compared(function: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    def compare(left: Any, right: Any) -> Any:
        kinds = kind_of(left), kind_of(right)
        if kinds[0] != kinds[1] and NUMBERS.issuperset(kinds):
            return celtypes.BoolType(function(_number(left), _number(right)))
        if kinds[0] != kinds[1] or kinds[0] == "null":
            raise TypeError("no such overload")
        return celtypes.BoolType(function(left, right))

    return _failing(compare)


_TIMES = {("timestamp", "duration"), ("duration", "timestamp"), ("duration", "duration")}
_ADDED = {(kind, kind) for kind in (*NUMBERS, "string", "bytes", "list")} | _TIMES
_SUBTRACTED = {(kind, kind) for kind in (*NUMBERS, "duration", "timestamp")} | {("timestamp", "duration")}
_MULTIPLIED = {(kind, kind) for kind in NUMBERS}
_WHOLE = {("int", "int"), ("uint", "uint")}


def _calculated(
    function: Callable[[Any, Any], Any], allowed: set[tuple[str, str]], *, divides: bool = False
) -> Callable[..., Any]:
    def calculate(left: Any, right: Any) -> Any:
        kinds = kind_of(left), kind_of(right)
        if kinds not in allowed:
            raise TypeError("no such overload")
        if divides and kinds[1] == "double" and right == 0.0:
            raise NotComparable("cel-python divides by 0.0 without looking at the sign")
        return to_cel_python(from_cel_python(function(left, right)))

    return _failing(calculate)


def _negated(value: Any) -> Any:
    if kind_of(value) not in ("int", "double"):
        raise TypeError("no such overload")
    return -value


def _logical(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def combine(left: Any, right: Any) -> Any:
        found = function(left, right)
        if isinstance(found, (celtypes.BoolType, CELEvalError)):
            return found
        raise TypeError("no such overload")

    return combine


def _indexed(container: Any, index: Any) -> Any:
    kind = kind_of(container)
    if kind == "map":
        if kind_of(index) == "double" or any(kind_of(key) != kind_of(index) for key in container):
            raise NotComparable("cel-python looks up keys of other types by other rules")
        return container[index]
    if kind != "list" or kind_of(index) not in NUMBERS:
        raise TypeError("no such overload")
    position = _number(index)
    if not 0 <= position < len(container) or position != math.floor(position):
        raise IndexError(f"index out of bounds: {position}")
    return container[int(position)]


def _contained(item: Any, container: Any) -> Any:
    kind = kind_of(container)
    if kind == "map":
        _only_texts(container)
    elif kind != "list":
        raise TypeError("no such overload")
    return celtypes.BoolType(any(_equal(item, other) for other in container))


# -- functions ---------------------------------------------------------------------------------------------


def _for(kinds: tuple[str, ...], name: str) -> Callable[..., Any]:
    """Return cel-python's own function, for operands of *kinds* only."""
    function: Callable[..., Any] = base_functions[name]

    def call(*operands: Any) -> Any:
        if kind_of(operands[0]) not in kinds:
            raise TypeError("no such overload")
        return function(*operands)

    return _failing(call)


def _converted(name: str, accepts: Callable[[Any], bool], why: str) -> Callable[..., Any]:
    """Return cel-python's own conversion, for operands that it converts by CEL's rules."""
    function: Callable[..., Any] = base_functions[name]

    def convert(*operands: Any) -> Any:
        if len(operands) != 1 or not accepts(operands[0]):
            raise NotComparable(why)
        return function(*operands)

    return _failing(convert)


def _is(*kinds: str) -> Callable[[Any], bool]:
    return lambda value: kind_of(value) in kinds


def _is_text(pattern: str, *kinds: str) -> Callable[[Any], bool]:
    matches = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: kind_of(value) in kinds or (kind_of(value) == "string" and bool(matches(value)))


_DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"
_SHORT_DURATION = r"-?(\d{1,9}h)?(\d{1,9}m)?(\d{1,9}s)?"

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "_==_": _failing(lambda left, right: celtypes.BoolType(_equal(left, right))),
    "_!=_": _failing(lambda left, right: celtypes.BoolType(not _equal(left, right))),
    "_<_": _compared(operator.lt),
    "_<=_": _compared(operator.le),
    "_>_": _compared(operator.gt),
    "_>=_": _compared(operator.ge),
    "_+_": _calculated(operator.add, _ADDED),
    "_-_": _calculated(operator.sub, _SUBTRACTED),
    "_*_": _calculated(operator.mul, _MULTIPLIED),
    "_/_": _calculated(operator.truediv, _MULTIPLIED, divides=True),
    "_%_": _calculated(operator.mod, _WHOLE),
    "-_": _failing(_negated),
    "_&&_": _logical(base_functions["_&&_"]),
    "_||_": _logical(base_functions["_||_"]),
    "_[_]": _failing(_indexed),
    "_in_": _failing(_contained),
    "size": _for(("string", "bytes", "list", "map"), "size"),
    "contains": _for(("string",), "contains"),
    "startsWith": _for(("string",), "startsWith"),
    "endsWith": _for(("string",), "endsWith"),
    "matches": _for(("string",), "matches"),
    "bool": _converted("bool", _is_text("true|false", "bool"), "cel-python reads other words as bools"),
    "bytes": _converted("bytes", _is("string", "bytes"), "cel-python makes bytes of anything"),
    "double": _converted(
        "double",
        _is_text(r"-?\d+(\.\d+)?", "int", "uint", "double"),
        "cel-python reads other texts as doubles",
    ),
    "int": _converted(
        "int", _is_text(r"-?\d+", "int", "uint"), "cel-python rounds or reads ints by other rules"
    ),
    "uint": _converted(
        "uint", _is_text(r"\d+", "int", "uint"), "cel-python rounds or reads uints by other rules"
    ),
    "string": _converted(
        "string", _is("string", "int", "uint"), "cel-python writes other values in Python's way"
    ),
    "timestamp": _converted(
        "timestamp", _is_text(_DATE, "timestamp"), "cel-python reads more texts as timestamps, and no numbers"
    ),
    "duration": _converted(
        "duration", _is_text(_SHORT_DURATION, "duration"), "cel-python reads durations by floating point"
    ),
}
"""cel-python's operators and functions as they are used here; the rest it has unchanged."""

DATES: Final = frozenset(
    ("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getMonth", "getHours",
     "getMinutes", "getSeconds")
)  # fmt: skip
MACROS: Final = {"all": 2, "exists": 2, "exists_one": 2, "filter": 2, "map": 2}
"""Macros, and how many arguments cel-python's have."""

KNOWN: Final = frozenset(
    (*filter(str.isalpha, FUNCTIONS), *MACROS, *DATES, "has", "dyn", "list_lit", "map_lit")
)
"""The functions and macros that both know."""

LOOSE: Final = {
    "has": "cel-python's `has` takes a failure before the last field for absence",
    "filter": "cel-python's `filter` takes any value for a predicate",
    "exists_one": "cel-python's `exists_one` takes any value for a predicate",
    "all": "cel-python's `all` may answer with a value that is no bool",
    "exists": "cel-python's `exists` may answer with a value that is no bool",
    "list_lit": "cel-python keeps failures inside of a list until they are looked at",
    "map_lit": "cel-python keeps failures inside of a map until they are looked at",
}
"""What may give a value in cel-python where the expression fails."""


# -- programs ----------------------------------------------------------------------------------------------


class Program:
    """An expression in cel-python; *calls* are the functions, macros and literals that it uses."""

    def __init__(self, text: str) -> None:
        self.environment = CelPythonEnvironment()
        try:
            self._tree = self.environment.compile(text)
        except (CELParseError, lark.exceptions.LarkError):
            raise NotComparable("cel-python does not parse it") from None
        if any(_MISREAD.search(token) for token in _literals(self._tree)):
            raise NotComparable("cel-python misreads an escape or a line break in a text")
        self.calls = frozenset(_calls(self._tree))
        unknown = sorted(self.calls - KNOWN)
        if unknown:
            raise NotComparable(f"cel-python does not know `{unknown[0]}`")
        self._program = self.environment.program(self._tree, dict(FUNCTIONS))

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """Return the value, as one of ours.

        Raises:
            SecondError: the expression fails.
            NotComparable: what cel-python says is worth nothing.

        """
        given = {name: to_cel_python(value) for name, value in variables.items()}
        try:
            return from_cel_python(_without_errors(self._program.evaluate(given)))
        except CELEvalError as error:
            message = str(error.args[0]) if error.args else "error"
            if message.startswith("undeclared reference"):
                raise NotComparable("cel-python does not know a name") from None
            raise SecondError(message) from None
        except EvaluationError as error:  # beyond what a timestamp or a duration holds
            raise SecondError(str(error)) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise NotComparable(f"cel-python breaks off: {type(error).__name__}") from None


def _without_errors(value: Any) -> Any:
    error = _error_in(value)
    if error is not None:
        raise error
    return value


_MISREAD = re.compile(r"\\[?`X]|\n")


def _literals(tree: Any) -> Iterator[str]:
    for token in tree.scan_values(lambda value: isinstance(value, lark.Token)):
        if token.type in ("STRING_LIT", "MLSTRING_LIT", "BYTES_LIT"):
            yield str(token)


def _calls(tree: Any) -> Iterator[str]:
    """Yield the names of functions and macros; those with an unusual number of arguments get it appended."""
    for node in tree.iter_subtrees():
        if node.data in ("list_lit", "map_lit", "member_object", "dot_ident", "dot_ident_arg"):
            yield str(node.data)
        if node.data in ("ident_arg", "member_dot_arg"):
            place = 0 if node.data == "ident_arg" else 1
            name = str(node.children[place])
            arguments = node.children[place + 1].children if len(node.children) > place + 1 else []
            yield name if len(arguments) == MACROS.get(name, len(arguments)) else f"{name}/{len(arguments)}"


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Keep what cel-python does to the process - the recursion limit, log lines - inside."""
    limit, logger = sys.getrecursionlimit(), logging.getLogger("celpy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.setrecursionlimit(limit)
