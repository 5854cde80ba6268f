"""The conformance cases of cel-spec: each expression gives the value, the type or the failure it should."""

from __future__ import annotations

import base64
import json
import math
import re
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from engine.cel import (
    CompileError,
    Duration,
    Environment,
    EvaluationError,
    Expression,
    Timestamp,
    TypeValue,
    UInt,
)
from engine.cel.frontend import Checker
from engine.cel.library import Declaration
from tests.conformance.suite import corpus, gaps, parameters
from tests.conformance.untyped import UntypedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from engine.cel.nodes import Node
from engine.cel.overloads import EXTENSIONS

CORPUS = "cel-spec"

PRIMITIVES = {
    "BOOL": "bool",
    "BYTES": "bytes",
    "DOUBLE": "double",
    "INT64": "int",
    "STRING": "string",
    "UINT64": "uint",
}
WELL_KNOWN = {
    "ANY": "google.protobuf.Any",
    "DURATION": "google.protobuf.Duration",
    "TIMESTAMP": "google.protobuf.Timestamp",
}
BLOCK_FORM = re.compile(r"cel\.(?:block|index|iterVar|accuVar)\(")
LITERAL_MISTAKE = re.compile(r"invalid \S+ argument$")


def cases() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(corpus(CORPUS).glob("*.json")):
        for section in json.loads(path.read_text()).get("section", ()):
            for case in section.get("test", ()):
                yield f"{path.stem}/{section['name']}/{case['name']}", case


def type_text(kind: Mapping[str, Any]) -> str:
    """Write a ``cel.expr.Type`` as a CEL type text."""
    ((name, content),) = kind.items()
    return TYPES[name](content)


def generic_text(name: str, parameters: Iterable[Mapping[str, Any]]) -> str:
    inner = ", ".join(map(type_text, parameters))
    return f"{name}<{inner}>" if inner else name


TYPES: Mapping[str, Callable[[Any], str]] = {
    "abstract_type": lambda content: generic_text(content["name"], content.get("parameter_types", ())),
    "dyn": lambda _: "dyn",
    "list_type": lambda content: generic_text("list", [content["elem_type"]]),
    "map_type": lambda content: generic_text("map", [content["key_type"], content["value_type"]]),
    "message_type": str,
    "null": lambda _: "null_type",
    "primitive": lambda name: PRIMITIVES[name],
    "type": lambda content: generic_text("type", [content] if content else []),
    "type_param": lambda name: f"~{name}",
    "well_known": lambda name: WELL_KNOWN[name],
    "wrapper": lambda name: f"wrapper<{PRIMITIVES[name]}>",
}


def from_proto(value: Mapping[str, Any]) -> Any:
    """Read a ``cel.expr.Value`` in its JSON form."""
    ((kind, content),) = value.items()
    return READ[kind](content)


def from_message(content: Mapping[str, Any]) -> Any:
    name = content["@type"].rpartition("/")[2]
    value = content.get("value", "")
    if name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
        return (Timestamp if name.endswith("Timestamp") else Duration).parse(value)
    read = WRAPPERS.get(name)
    if read is None:
        raise NotImplementedError(f"messages of type {name}")
    return read(content)


WRAPPERS: Mapping[str, Any] = {
    "google.protobuf.Any": lambda content: from_message(content["value"]),
    "google.protobuf.BoolValue": lambda content: content.get("value", False),
    "google.protobuf.BytesValue": lambda content: base64.b64decode(content.get("value", "")),
    "google.protobuf.DoubleValue": lambda content: float(content.get("value", 0)),
    "google.protobuf.FloatValue": lambda content: float(content.get("value", 0)),
    "google.protobuf.Int32Value": lambda content: int(content.get("value", 0)),
    "google.protobuf.Int64Value": lambda content: int(content.get("value", 0)),
    "google.protobuf.ListValue": lambda content: as_json(content.get("value", [])),
    "google.protobuf.StringValue": lambda content: content.get("value", ""),
    "google.protobuf.Struct": lambda content: as_json(content.get("value", {})),
    "google.protobuf.UInt32Value": lambda content: UInt(content.get("value", 0)),
    "google.protobuf.UInt64Value": lambda content: UInt(content.get("value", 0)),
    "google.protobuf.Value": lambda content: as_json(content.get("value")),
}


def as_json(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, list, dict)):
        return value
    if isinstance(value, int):
        return float(value)
    return (
        [*map(as_json, value)]
        if isinstance(value, list)
        else {key: as_json(item) for key, item in value.items()}
    )


READ: Mapping[str, Any] = {
    "bool_value": bool,
    "bytes_value": base64.b64decode,
    "double_value": float,
    "enum_value": lambda content: int(content.get("value", 0)),
    "int64_value": int,
    "list_value": lambda content: [from_proto(item) for item in content.get("values", ())],
    "map_value": lambda content: {
        from_proto(entry["key"]): from_proto(entry["value"]) for entry in content.get("entries", ())
    },
    "null_value": lambda _: None,
    "object_value": from_message,
    "string_value": str,
    "type_value": TypeValue,
    "uint64_value": UInt,
}


def same(actual: Any, expected: Any) -> bool:
    """Whether two values are the same in type and content; NaN is the same as NaN."""
    if type(actual) is not type(expected):
        return False
    match actual:
        case list():
            return len(actual) == len(expected) and all(map(same, actual, expected))
        case dict():
            return actual.keys() == expected.keys() and all(
                same(actual[key], expected[key]) for key in actual
            )
        case float() if math.isnan(actual):
            return math.isnan(expected)
    return bool(actual == expected)


def declarations(case: Mapping[str, Any]) -> Iterator[Declaration]:
    for row in case.get("type_env", ()):
        for overload in row.get("function", {}).get("overloads", ()):
            parameters = tuple(map(type_text, overload["params"]))
            yield Declaration(
                row["name"], overload["overload_id"], parameters, type_text(overload["result_type"])
            )


@cache
def environment(
    variables: tuple[tuple[str, str], ...], container: str, typed: bool, blocks: bool
) -> Environment:
    if typed:
        return Environment(dict(variables), container=container, blocks=blocks)
    return UntypedEnvironment(dict(variables), container=container)


def variables(case: Mapping[str, Any]) -> dict[str, str]:
    return {
        row["name"]: type_text(row["ident"]["type"]) for row in case.get("type_env", ()) if "ident" in row
    }


def compiled(case: Mapping[str, Any]) -> Expression:
    typed = not case.get("disable_check", False)
    blocks = BLOCK_FORM.search(case["expr"]) is not None
    known = tuple(sorted(variables(case).items()))
    return environment(known, case.get("container", ""), typed, blocks).compile(case["expr"])


def checked(case: Mapping[str, Any]) -> Node:
    """Return the root of an expression that may call functions which are only declared."""
    extra = tuple(declarations(case))
    extensions = () if extra else EXTENSIONS  # one case declares a function that an extension has too
    return Checker(
        variables(case), declarations=extra, container=case.get("container", ""), extensions=extensions
    ).check(case["expr"])


def evaluate(case: Mapping[str, Any], expression: Expression) -> Any:
    bindings = {name: from_proto(bound["value"]) for name, bound in case.get("bindings", {}).items()}
    return expression.function(SimpleNamespace(**bindings))


def expected_failure(case: Mapping[str, Any]) -> Sequence[str]:
    return [error.get("message", "") for error in case["eval_error"]["errors"]]


def met() -> list[Any]:
    """Return the parameters of all cases but the listed ones, which are too many for the report."""
    return [
        parameter for parameter in parameters(CORPUS, cases()) if parameter.id not in gaps().get(CORPUS, {})
    ]


@pytest.mark.parametrize("case", met())
def test_cel_spec(case: Mapping[str, Any]) -> None:
    """An expression of cel-spec gives what cel-spec says."""
    assert_met(case)


@pytest.mark.skipif(not corpus(CORPUS).is_dir(), reason="no conformance data")
def test_listed_gaps_are_still_gaps(record_property: Callable[[str, object], None]) -> None:
    """A case that is listed as not met is not met: the list only shrinks."""
    listed = [(name, case) for name, case in cases() if name in gaps()[CORPUS]]
    record_property("listed", ("test_cel_spec.py::test_cel_spec", len(listed)))
    assert [name for name, case in listed if is_met(case)] == []


def is_met(case: Mapping[str, Any]) -> bool:
    try:
        assert_met(case)
    except (
        AssertionError,
        CompileError,
        EvaluationError,
        NotImplementedError,
        RuntimeError,
        pytest.fail.Exception,
    ):
        return False
    return True


def assert_met(case: Mapping[str, Any]) -> None:
    if "eval_error" in case:
        with pytest.raises((EvaluationError, CompileError)) as caught:
            evaluate(case, compiled(case))
        if isinstance(caught.value, CompileError):
            assert_same_mistake(caught.value, expected_failure(case))
        return
    if "typed_result" in case:
        deduced = type_text(case["typed_result"]["deduced_type"])
        assert str(checked(case).type).replace("(", "<").replace(")", ">") == deduced
    if not case.get("check_only"):
        given = case.get("value") or case.get("typed_result", {}).get("result", {"bool_value": True})
        actual, expected = evaluate(case, compiled(case)), from_proto(given)
        assert same(actual, expected), (actual, expected)


def assert_same_mistake(error: CompileError, expected: Sequence[str]) -> None:
    """Return a failure that is found when compiling is about a literal, or the one that was expected."""
    for issue in error.issues:
        about_names = "undeclared reference" in issue.message
        assert LITERAL_MISTAKE.search(issue.message) or about_names == any(
            "undeclared reference" in text or "unbound function" in text for text in expected
        ), issue
