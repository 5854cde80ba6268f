"""The adapter for SQLAlchemy: a real SQLite selects what the predicate lets pass."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Resource
from engine.plan import ALWAYS_ALLOWED, ALWAYS_DENIED, CONDITIONAL, Expression, Operand, Plan, Value, Variable
from engine.plan.adapters import AdapterError, predicate
from engine.plan.adapters.sqlalchemy import Nulls, Relation, to_sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Rows = list[dict[str, Any]]

METADATA = sa.MetaData()
DOCS = sa.Table(
    "docs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("owner", sa.String),
    sa.Column("team", sa.String),
    sa.Column("amount", sa.Float),
    sa.Column("count", sa.Integer),
    sa.Column("public", sa.Boolean),
    sa.Column("made", sa.DateTime),
)
TAGS = sa.Table("tags", METADATA, sa.Column("doc", sa.String), sa.Column("name", sa.String))
ITEMS = sa.Table(
    "items", METADATA, sa.Column("doc", sa.String), sa.Column("kind", sa.String), sa.Column("n", sa.Float)
)
COLUMNS: Mapping[str, sa.ColumnElement[Any]] = {
    "R.id": DOCS.c.id,
    "R.attr.owner": DOCS.c.owner,
    "R.attr.team": DOCS.c.team,
    "request.resource.attr.amount": DOCS.c.amount,
    "R.attr.count": DOCS.c.count,
    "R.attr.public": DOCS.c.public,
    "R.attr.made": DOCS.c.made,
}
RELATIONS = {
    "R.attr.tags": Relation(TAGS.c.doc == DOCS.c.id, TAGS.c.name),
    "R.attr.items": Relation(ITEMS.c.doc == DOCS.c.id, {"kind": ITEMS.c.kind, "n": ITEMS.c.n}),
}

TEXTS = ("a", "A", "ab", "aB", "b", "%", "_", "a_b", "a%b", "/", "ünï", "")
NUMBERS = (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0)


def attribute(name: str) -> Variable:
    return Variable(f"request.resource.attr.{name}")


def call(operator: str, *operands: Operand) -> Expression:
    return Expression(operator, operands)


# --- filters ------------------------------------------------------------------------------------------------

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from(NUMBERS)
text_columns = st.sampled_from((attribute("owner"), attribute("team"), Variable("request.resource.id")))
number_columns = st.sampled_from((attribute("amount"), attribute("count")))
text_values = texts.map(Value)
number_values = numbers.map(Value)
comparison = st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge"))
arithmetic = st.builds(
    call, st.sampled_from(("add", "sub", "mult")), number_columns, st.one_of(number_columns, number_values)
)
numeric = st.one_of(
    number_columns, arithmetic, st.builds(call, st.just("div"), number_columns, st.just(Value(2.0)))
)
text_tests = st.builds(
    call, st.sampled_from(("startsWith", "endsWith", "contains")), text_columns, text_values
)
lists = st.lists(st.one_of(texts, numbers, st.none(), st.booleans()), max_size=4).map(Value)


def of_elements(body: st.SearchStrategy[Expression], name: str) -> st.SearchStrategy[Expression]:
    quantifier = st.sampled_from(("exists", "all", "exists_one"))
    return st.builds(
        lambda operator, inner: call(operator, attribute(name), call("lambda", inner, Variable("e"))),
        quantifier,
        body,
    )


of_tags = st.one_of(
    st.builds(
        call,
        st.sampled_from(("eq", "ne", "lt")),
        st.just(Variable("e")),
        st.one_of(text_values, text_columns),
    ),
    st.builds(call, st.just("startsWith"), st.just(Variable("e")), text_values),
    st.builds(call, st.just("in"), st.just(Variable("e")), lists),
)
of_items = st.one_of(
    st.builds(call, comparison, st.just(Variable("e.n")), st.one_of(number_values, number_columns)),
    st.builds(call, st.just("eq"), st.just(Variable("e.kind")), st.one_of(text_values, text_columns)),
)
made = st.sampled_from(("2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00", "2025-06-01T12:30:00.5Z"))
leaves = st.one_of(
    st.just(attribute("public")),
    st.builds(call, comparison, text_columns, st.one_of(text_columns, text_values)),
    st.builds(call, comparison, text_values, text_columns),
    st.builds(call, comparison, numeric, st.one_of(numeric, number_values)),
    st.builds(call, st.sampled_from(("eq", "ne")), st.just(attribute("public")), st.booleans().map(Value)),
    st.builds(call, st.sampled_from(("eq", "ne")), text_columns, st.just(Value(None))),
    st.builds(call, st.just("in"), st.one_of(text_columns, number_columns), lists),
    st.builds(call, st.just("in"), st.one_of(text_values, text_columns), st.just(attribute("tags"))),
    text_tests,
    st.builds(lambda part: call("eq", call("add", attribute("owner"), Value("b")), part), text_values),
    st.builds(lambda n: call("gt", call("size", attribute("tags")), Value(n)), st.integers(0, 3)),
    st.builds(lambda n: call("le", call("size", attribute("owner")), Value(n)), st.integers(0, 3)),
    st.builds(lambda values: call("hasIntersection", attribute("tags"), values), lists),
    st.builds(lambda name: call("has", name), st.one_of(text_columns, number_columns)),
    of_elements(of_tags, "tags"),
    of_elements(of_items, "items"),
)
filters: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda operator, parts: Expression(operator, tuple(parts)),
            st.sampled_from(("and", "or")),
            st.lists(inner, min_size=2, max_size=3),
        ),
        st.builds(call, st.just("not"), inner),
        st.builds(call, st.just("if"), inner, inner, inner),
    ),
    max_leaves=8,
)

# --- rows ---------------------------------------------------------------------------------------------------


def rows(*, elements_have_nulls: bool) -> st.SearchStrategy[Rows]:
    some = st.none() if elements_have_nulls else st.nothing()
    row = st.fixed_dictionaries(
        {
            "owner": st.one_of(st.none(), texts),
            "team": st.one_of(st.none(), texts),
            "amount": st.one_of(st.none(), numbers),
            "count": st.one_of(st.none(), st.integers(-1, 3)),
            "public": st.one_of(st.none(), st.booleans()),
            "tags": st.lists(st.one_of(some, texts), max_size=3),
            "items": st.lists(
                st.fixed_dictionaries({"kind": st.one_of(some, texts), "n": st.one_of(some, numbers)}),
                max_size=3,
            ),
        }
    )
    return st.lists(row, min_size=1, max_size=6)


def selected(condition: sa.ColumnElement[bool], given_rows: Rows) -> set[str]:
    """Return the ids of the rows that a SQLite selects."""
    database = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    try:
        with database.begin() as connection:
            METADATA.create_all(connection)
            for table, values in _inserted(given_rows):
                connection.execute(sa.insert(table), values)
            return set(connection.execute(sa.select(DOCS.c.id).where(condition)).scalars())
    finally:
        database.dispose()


def _inserted(given_rows: Rows) -> Iterator[tuple[sa.Table, dict[str, Any]]]:
    for number, row in enumerate(given_rows):
        plain = {name: value for name, value in row.items() if name not in {"tags", "items"}}
        yield DOCS, {"id": str(number), **plain}
        for tag in row.get("tags", ()):
            yield TAGS, {"doc": str(number), "name": tag}
        for item in row.get("items", ()):
            yield ITEMS, {"doc": str(number), **item}


def passing(plan: Plan, given_rows: Rows, nulls: Nulls) -> set[str]:
    """Return the ids of the rows that the predicate lets pass."""
    passes = predicate(plan)
    found = set()
    for number, row in enumerate(given_rows):
        attributes = {name: value for name, value in row.items() if value is not None or nulls == "null"}
        if passes(Resource("doc", str(number), attributes)):
            found.add(str(number))
    return found


def converted(filter_: Operand, nulls: Nulls = "missing") -> sa.ColumnElement[bool]:
    return to_sqlalchemy(Plan(CONDITIONAL, filter_), COLUMNS, relations=RELATIONS, nulls=nulls)


@given(filters, rows(elements_have_nulls=False))
@settings(max_examples=80, deadline=None)
def test_rows_with_missing_attributes(filter_: Operand, given_rows: Rows) -> None:
    """Where NULL is a missing attribute the database selects exactly what the predicate lets pass."""
    plan = Plan(CONDITIONAL, filter_)
    assert selected(converted(filter_), given_rows) == passing(plan, given_rows, "missing")


@given(filters, rows(elements_have_nulls=True))
@settings(max_examples=80, deadline=None)
def test_rows_with_null_attributes(filter_: Operand, given_rows: Rows) -> None:
    """Where NULL is the value null, too."""
    plan = Plan(CONDITIONAL, filter_)
    assert selected(converted(filter_, "null"), given_rows) == passing(plan, given_rows, "null")


@given(filters, rows(elements_have_nulls=False))
@settings(max_examples=40, deadline=None)
def test_the_default_selects_no_more(filter_: Operand, given_rows: Rows) -> None:
    """Who does not say what NULL means gets no row that either meaning would not give him."""
    found = selected(converted(filter_), given_rows)
    if not _asks_for_presence(filter_):
        assert found <= passing(Plan(CONDITIONAL, filter_), given_rows, "null")


def _asks_for_presence(operand: Operand) -> bool:
    return isinstance(operand, Expression) and (
        operand.operator == "has" or any(map(_asks_for_presence, operand.operands))
    )


def test_unconditional_plans() -> None:
    """Always allowed selects every row, always denied none."""
    some_rows: Rows = [{"owner": None}, {"owner": "a"}]
    assert selected(to_sqlalchemy(Plan(ALWAYS_ALLOWED), COLUMNS), some_rows) == {"0", "1"}
    assert selected(to_sqlalchemy(Plan(ALWAYS_DENIED), COLUMNS), some_rows) == set()


@pytest.mark.parametrize("written", ["2024-01-01T12:00:00Z", "2024-01-01T14:00:00+02:00"])
def test_times(written: str) -> None:
    """A time is compared in UTC, whatever zone the policy writes it in."""
    filter_ = call("lt", call("timestamp", attribute("made")), call("timestamp", Value(written)))
    some_rows: Rows = [{"made": datetime.datetime(2024, 1, 1, hour)} for hour in (11, 12, 13)]
    assert selected(converted(filter_), some_rows) == {"0"}


REFUSED = [
    (attribute("unknown"), "there is no column for `request.resource.attr.unknown` in `columns`"),
    (call("eq", attribute("ownr"), Value("a")), "did you mean `request.resource.attr.owner`?"),
    (call("matches", attribute("owner"), Value("^a")), "the operator `matches` cannot be said in SQL"),
    (call("eq", attribute("owner"), Value(1.0)), "compares a text with a number"),
    (call("lt", attribute("owner"), Value(None)), "compares a text with a null"),
    (call("eq", call("add", attribute("amount"), Value(1)), Value(2.0)), "write `1.0` in the policy"),
    (
        call("gt", call("div", attribute("amount"), attribute("count")), Value(1.0)),
        "divides by what may be zero",
    ),
    (attribute("owner"), "is a condition, but it is a text, not a bool"),
    (call("not", call("size", attribute("tags"))), "is a condition, but it is a number, not a bool"),
    (call("in", attribute("owner"), attribute("team")), "searches something else than known values"),
    (call("startsWith", attribute("amount"), Value("a")), "needs a column of text"),
    (call("startsWith", attribute("owner"), attribute("team")), "a text that is known"),
    (call("contains", attribute("owner"), Value("a\0")), "NUL character"),
    (
        call("exists", attribute("gone"), call("lambda", Value(True), Variable("e"))),
        "there is no relation for",
    ),
    (call("eq", attribute("owner"), Value(["a"])), "compares a list"),
    (call("eq", call("timestamp", attribute("owner")), call("timestamp", Value("x"))), "of another type"),
]


@pytest.mark.parametrize(("filter_", "message"), REFUSED)
def test_what_cannot_be_said(filter_: Operand, message: str) -> None:
    """What SQL cannot say exactly is an error that tells what to do, never a wider condition."""
    with pytest.raises(AdapterError) as raised:
        converted(filter_)
    assert message in str(raised.value)


def test_a_callers_operator_comes_first() -> None:
    """An operator that the caller says himself is said his way."""
    filter_ = call("not", call("matches", attribute("owner"), Value("^a")))
    condition = to_sqlalchemy(
        Plan(CONDITIONAL, filter_),
        COLUMNS,
        operators={"matches": lambda column, pattern: column.like(f"{pattern.removeprefix('^')}%")},
    )
    some_rows: Rows = [{"owner": "ab"}, {"owner": "b"}, {"owner": None}]
    assert selected(condition, some_rows) == {"1"}
