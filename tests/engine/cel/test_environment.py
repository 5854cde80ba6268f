"""What a compiled expression tells about itself, and how it reads its activation."""

from __future__ import annotations

import contextlib
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel import CompileError, Environment, EvaluationError, Issue, Record, RecordValue, Timestamp
from tests.engine.cel.policies import activation, environment

ENVIRONMENT = environment()


def evaluate(text: str, **changes: Any) -> Any:
    return ENVIRONMENT.compile(text).function(activation(**changes))


@pytest.mark.parametrize(
    ("text", "result_type"),
    [
        ("P.id", "string"),
        ("P.roles", "list(string)"),
        ("P.attr", "map(string, dyn)"),
        ("P.attr.region == 'EMEA'", "bool"),
        ("P.attr.region", "dyn"),
        ("P", "test.Principal"),
        ("now()", "google.protobuf.Timestamp"),
        ("P.attr.?region", "optional_type(dyn)"),
        ("{'a': 1u}", "map(string, uint)"),
        ("null", "null_type"),
        ("int", "type(int)"),
    ],
)
def test_result_type_is_that_of_the_checker(text: str, result_type: str) -> None:
    """An expression knows the type of its value."""
    assert ENVIRONMENT.compile(text).result_type == result_type


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("P.attr.region == V.limit", {("P", "attr", "region"), ("V", "limit")}),
        ("request.principal.id", {("request", "principal", "id")}),
        ("has(P.attr.region)", {("P", "attr", "region")}),
        ("P.attr['region']", {("P", "attr")}),
        ("P.roles.exists(r, r == x)", {("P", "roles"), ("x",)}),
        ("[1].map(x, x)", set()),
        ("[1].map(P, P) == [x]", {("x",)}),
        ("cel.bind(x, P.id, x + x)", {("P", "id")}),
        ("x.?a.orValue(headers.host)", {("x",), ("headers", "host")}),
        ("{x.a: x.b}", {("x", "a"), ("x", "b")}),
        ("1 + 1", set()),
    ],
)
def test_references_are_the_paths_from_free_variables(text: str, references: set[tuple[str, ...]]) -> None:
    """An expression knows what it reads; variables that it binds itself are not among them."""
    expression = ENVIRONMENT.compile(text)
    assert expression.references == references
    assert expression.identifiers == {path[0] for path in references}


def test_only_expressions_that_ask_for_the_time_use_it() -> None:
    """``now()`` is the activation's, in every place of an expression."""
    assert ENVIRONMENT.compile("x == 1 || now() > timestamp(0)").uses_now
    assert ENVIRONMENT.compile("timestamp(0).timeSince() > duration('1s')").uses_now
    assert not ENVIRONMENT.compile("timestamp(0) < timestamp(1)").uses_now
    assert evaluate("now()") == Timestamp.parse("2024-05-06T07:08:09Z")
    assert evaluate("now().timeSince() == duration('0s')") is True


def test_records_are_read_by_attribute() -> None:
    """A field of a record is an attribute of its object, under the name that the record gives it."""
    assert evaluate("P.policyVersion") == ""
    assert evaluate("request.principal.attr.region") == "EMEA"


def test_values_of_records_become_ordinary_ones() -> None:
    """What leaves a record is a list, a map, or a view of the record, whatever its object holds."""
    assert evaluate("P.roles") == ["user", "manager"]
    assert evaluate("P.roles == ['user', 'manager']") is True
    assert evaluate("P.roles + ['x']") == ["user", "manager", "x"]
    assert evaluate("ids") == ["a", "b"]
    frozen = MappingProxyType({"a": 1.0})
    read = evaluate("P.attr", P=SimpleNamespace(attr=frozen, id="", roles=(), policy_version=""))
    assert (type(read), read) == (dict, {"a": 1.0})
    assert evaluate("headers.host", headers=MappingProxyType({"host": "h"})) == "h"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[P][0].attr.region", "EMEA"),
        ("[P][0].roles", ["user", "manager"]),
        ("dyn(P).id", "ana"),
        ("dyn(request).principal.id", "ana"),
        ("V.someone.attr.region", "EMEA"),
        ("P == P && [P] == [request.principal]", True),
        ("dyn(P) == 1", False),
        ("has(P.policyVersion)", False),
        ("has(P.id) && has(P.attr)", True),
        ("has(request.principal)", True),
        ("has(dyn(P).id) && !has(dyn(P).policyVersion)", True),
        ("type(P) == test.Principal", True),
        ("(true ? P : request.principal).id", "ana"),
        ("[P].exists(p, p.id == 'ana')", True),
        ("cel.bind(p, P, p.id)", "ana"),
    ],
)
def test_a_record_is_a_value_too(text: str, value: object) -> None:
    """A record can be kept, compared and selected from where its static type is no longer known."""
    held = evaluate("P")
    assert isinstance(held, RecordValue)
    assert evaluate(text, V={"someone": held}) == value


def test_a_record_lists_its_fields() -> None:
    """A record that is the result of an expression can be read field by field."""
    record = evaluate("request")
    assert list(record) == ["principal", "names"]
    assert len(record) == 2
    assert (record.name, record["names"], record["principal"]["id"]) == ("test.Request", ["n"], "ana")
    with pytest.raises(EvaluationError, match="no such field 'other'"):
        evaluate("dyn(P).other")


def test_a_namespace_words_its_own_failures() -> None:
    """A name that a namespace has not fails as its mapping says."""
    assert evaluate("V.limit") == 10.0
    assert evaluate("has(V.limit) && !has(V.other)") is True
    with pytest.raises(EvaluationError, match="undefined field 'other'"):
        evaluate("V.other")


def test_a_field_type_that_protobuf_cannot_carry_is_refused() -> None:
    """A record is refused whose field has a type that the checker could not be told."""
    with pytest.raises(ValueError, match=r"`a\.B\.c` cannot have the type `list<list<int>>`"):
        Environment({"b": "a.B"}, records=[Record("a.B", {"c": ("list<list<int>>", "c")})])
    with pytest.raises(ValueError, match=r"`a\.B\.c` cannot have the type `map<string, map<string, int>>`"):
        Environment({"b": "a.B"}, records=[Record("a.B", {"c": ("map<string, map<string, int>>", "c")})])


@pytest.mark.parametrize(
    ("field_type", "value", "text"),
    [
        ("bool", True, "b.c && type(b.c) == bool"),
        ("bytes", b"a", "b.c == b'a'"),
        ("double", 1.5, "b.c * 2.0 == 3.0"),
        ("dyn", {"a": 1.0}, "b.c.a == 1"),
        ("int", 1, "b.c + 1 == 2"),
        ("list<dyn>", [1.0], "b.c[0] == 1"),
        ("list<int>", (1, 2), "b.c == [1, 2]"),
        ("map<string,string>", {"a": "b"}, "b.c.a + 'c' == 'bc'"),
        ("map<string, list<dyn>>", {"a": [1.0]}, "b.c.a[0] == 1"),
        ("timestamp", Timestamp(0), "b.c == timestamp(0)"),
        ("uint", 1, "b.c < 2u"),
    ],
)
def test_a_record_can_have_fields_of_many_types(field_type: str, value: object, text: str) -> None:
    """The checker knows a field's type, and the value of its attribute is used as it is."""
    made = Environment({"b": "a.B"}, records=[Record("a.B", {"c": (field_type, "c")})])
    assert made.compile(text).function(SimpleNamespace(b=SimpleNamespace(c=value))) is True


def test_equal_texts_share_their_code() -> None:
    """Ten thousand policies with the same condition hold its code once, each under its own name."""
    first, second = (
        ENVIRONMENT.compile("P.id == 'x'", "a.yaml:1:2"),
        ENVIRONMENT.compile("P.id == 'x'", "b.yaml:3:4"),
    )
    assert first.function is second.function
    assert (first.name, second.name) == ("a.yaml:1:2", "b.yaml:3:4")


class Failing:
    """An activation that fails in every way that Python knows."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("a"),
        KeyError(),
        KeyError("k"),
        IndexError("i"),
        TypeError("t"),
        ValueError("v"),
        OSError("o"),
        OverflowError("f"),
        ZeroDivisionError("z"),
        RecursionError("r"),
        MemoryError(),
        UnicodeError("u"),
        StopIteration(),
    ],
)
def test_whatever_goes_wrong_is_an_evaluation_error(error: Exception) -> None:
    """No exception of Python leaves an expression."""
    with pytest.raises(EvaluationError):
        ENVIRONMENT.compile("x == 1 && V.a").function(Failing(error))
    assert ENVIRONMENT.compile("x == 1 || true").function(Failing(error)) is True


def test_signals_are_no_failures() -> None:
    """What is no ``Exception`` (an interrupt, a request to wait) is not absorbed by ``||``."""

    class Signal(BaseException):
        pass

    class Waiting:
        @property
        def x(self) -> Any:
            raise Signal

    with pytest.raises(Signal):
        ENVIRONMENT.compile("x == 1 || true").function(Waiting())


@settings(max_examples=150, deadline=None)
@given(st.text("xV.[]()?:\"' &|!=+1a\n", max_size=24))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    """No text makes the compiler fail other than by saying what is wrong with it."""
    issues: tuple[Issue, ...] = ()
    try:
        with contextlib.suppress(EvaluationError):
            ENVIRONMENT.compile(text).function(activation())
    except CompileError as error:
        issues = error.issues
    assert all(issue.line >= 1 and issue.column >= 1 and issue.message for issue in issues)
