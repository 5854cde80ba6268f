"""The same question to several answerers: our compiled form, Google's evaluator, cel-python."""

from __future__ import annotations

import datetime
import math
import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel  # type: ignore[import-untyped]  # the wheel has no py.typed
from celpy import Environment as CelPython
from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.cel import CompileError, Duration, Environment, EvaluationError, Timestamp, TypeValue, UInt
from engine.cel.overloads import EXTENSIONS, configuration
from tests.engine.cel.expressions import TYPED, VARIABLES, activations, expressions

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = Environment(VARIABLES)
GOOGLES = cel.NewEnv(
    config=configuration((), EXTENSIONS),
    variables={name: cel.Type(text) for name, text in VARIABLES.items()},
)

KINDS = (
    (
        "access",  # what is no map or list is searched in vain in cel-go, and not at all in C++
        re.compile(
            r"no such key|Key not found|non-message type|Invalid container type"
            r"|unsupported index (?:type|value)"
            r"|Index error: expected|Invalid map key type|invalid qualifier type"
        ),
    ),
    ("index", re.compile(r"index out of bounds|Index error: index=")),
    (
        "overload",
        re.compile(r"no such overload|No matching overload|unsupported key type|expected iterable type"),
    ),
    ("zero", re.compile(r"division by zero|modulus by zero|divide by zero")),
    ("range", re.compile(r"overflow|out of range|out of \w+ range|repeated key")),
    ("text", re.compile(r"cannot convert|conversion error|invalid|malformed")),
)


def kind_of(message: str) -> str:
    return next((kind for kind, pattern in KINDS if pattern.search(message)), message)


def ours(text: str, data: Mapping[str, Any]) -> tuple[str, Any]:
    try:
        return "value", plain(ENVIRONMENT.compile(text).function(SimpleNamespace(**data)))
    except EvaluationError as error:
        return "error", kind_of(str(error))


def plain(value: Any) -> Any:
    """Write a value of ours so that it can be compared: type and content."""
    match value:
        case bool() | None | str() | bytes():
            return value
        case UInt():
            return ("uint", int(value))
        case int():
            return ("int", value)
        case float():
            return ("double", "nan" if math.isnan(value) else value)
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case Timestamp():
            return ("timestamp", value.nanoseconds // 1000)
        case Duration():
            return ("duration", int(value.nanoseconds / 1000))
        case TypeValue():
            return ("type", value.name)
    raise TypeError(type(value))


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)


def googles(text: str, data: Mapping[str, Any]) -> tuple[str, Any]:
    try:
        value = GOOGLES.compile(text).eval(data=dict(data))
    except RuntimeError as error:
        # Its evaluator lacks the function behind `transformMap`, its checker an order of mixed numbers.
        assume("cel.@mapInsert" not in str(error) and "found no matching overload" not in str(error))
        raise
    if value.type().name() == "ERROR":
        return "error", kind_of(value.value())
    return "value", from_google(value)


def from_google(value: Any) -> Any:
    """Write a value of Google's evaluator as :func:`plain` does."""
    kind, content = value.type().name().split("<")[0].lower(), value.value()
    match kind:
        case "bool" | "null":
            return content
        case "string":
            return "NaN" if content in {"nan", "-nan"} else content  # Go, and so Cerbos, spells it so
        case "bytes":
            return bytes(content)
        case "double":
            return ("double", "nan" if math.isnan(content) else content)
        case "list":
            return [from_google(item) for item in content]
        case "map":
            return {key: from_google(item) for key, item in content.items()}
        case "timestamp":
            return ("timestamp", (content - EPOCH) // MICROSECOND)
        case "duration":
            return ("duration", content // MICROSECOND)
    return (kind, content)


@given(text=expressions("bool") | expressions("dyn"), data=activations)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_compiled_and_googles_evaluator_agree(text: str, data: dict[str, Any]) -> None:
    """Our compiled form and Google's evaluator give the same value or fail for the same reason."""
    try:
        ENVIRONMENT.compile(text)
    except CompileError:
        assume(False)
    left, right = ours(text, data), googles(text, data)
    if ("error", "overload") in (left, right) and ("&&" in text or "||" in text):
        # Of an operand that is no bool and one that fails, cel-go reports the first, C++ the second.
        left, right = (left[0], None), (right[0], None)
    assert left == right


def cel_pythons(text: str, data: Mapping[str, Any]) -> tuple[str, Any]:
    """Ask cel-python; it tells kinds of errors apart less well, so an error is just that."""
    limit = sys.getrecursionlimit()
    try:
        environment = CelPython()
        program = environment.program(environment.compile(text))
        value = program.evaluate({name: json_to_cel(item) for name, item in data.items()})
        return "value", from_cel_python(value)
    except CELEvalError:
        return "error", None
    finally:
        sys.setrecursionlimit(limit)  # cel-python raises it, for everyone


def from_cel_python(value: Any) -> Any:
    if isinstance(value, celtypes.BoolType):
        return bool(value)
    if isinstance(value, float):
        return ("double", "nan" if math.isnan(value) else float(value))
    if isinstance(value, int):
        return ("int", int(value))
    return [from_cel_python(item) for item in value] if isinstance(value, list) else str(value)


@given(
    text=st.sampled_from(("bool", "int", "string", "double")).flatmap(lambda kind: expressions(kind, TYPED)),
    data=activations,
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_compiled_and_cel_python_agree(text: str, data: dict[str, Any]) -> None:
    """Our compiled form and cel-python, which shares no code with it, give the same value or both fail."""
    given_values = {name: data[name] for name in ("b", "d", "i", "m", "s", "t")}
    kind, value = ours(text, given_values)
    assert (kind, value if kind == "value" else None) == cel_pythons(text, given_values)
