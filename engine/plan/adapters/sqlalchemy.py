"""A plan as a condition of SQLAlchemy, for the ``WHERE`` of a query.

SQL's three truth values are CEL's: what is ``NULL`` in SQL is an error in CEL, ``AND`` and ``OR`` absorb it
when another operand decides, ``NOT`` does not, and a row is selected by true only. So a row is never selected
because something in it is ``NULL``, also not behind a ``NOT``.

What cannot be said exactly is an :class:`~engine.plan.adapters.errors.AdapterError`: an operator that SQL has
not, a name without a column, values of a type that the column has not. A caller may say it himself with
*operators*.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

try:
    import sqlalchemy as sa
except ModuleNotFoundError as error:
    error.msg = "SQLAlchemy is not there: install it with `pip install 'extauthz[sqlalchemy]'`"
    raise

from engine.cel import EvaluationError, Timestamp
from engine.document import did_you_mean
from engine.plan.adapters.errors import AdapterError
from engine.plan.filter import Expression, Operand, Value, Variable, debug, long_name
from engine.plan.model import ALWAYS_ALLOWED, ALWAYS_DENIED

if TYPE_CHECKING:
    from engine.plan.model import Plan

Column = sa.ColumnElement[Any]
Condition = sa.ColumnElement[bool]

Nulls = Literal["missing", "null"]


@dataclass(frozen=True, slots=True)
class Relation:
    """A list of a resource that is kept in rows of another table.

    *where* relates the rows to the resource's row. *element* is the column that holds an element, or, for
    elements that are objects, the columns of their fields by name.
    """

    where: Condition
    element: Column | Mapping[str, Column]


def to_sqlalchemy(
    plan: Plan,
    columns: Mapping[str, Column],
    *,
    relations: Mapping[str, Relation] | None = None,
    operators: Mapping[str, Callable[..., Column]] | None = None,
    nulls: Nulls = "missing",
) -> Condition:
    """Return the condition that selects the rows which the filter of *plan* lets pass.

    *columns* maps names of the filter to columns: ``R.attr.owner``, ``R.id``, or the same written out
    (``request.resource.attr.owner``); *relations* do it for lists, whose elements are never ``NULL``.
    *operators* maps operators of the filter to functions that say them: they get each operand as a column or
    a Python value, and come before our own.

    *nulls* says what a ``NULL`` stands for: ``missing``, an attribute that is not there, or ``null``, one
    that is ``null`` (then ``R.attr.x == null`` selects it). The first never selects more than the second.

    Text is compared by the collation of the column, which has to tell upper from lower case; times in
    columns without a time zone are taken for UTC.

    Raises:
        AdapterError: something cannot be said in SQL.

    """
    if plan.kind == ALWAYS_ALLOWED:
        return sa.true()
    if plan.kind == ALWAYS_DENIED or plan.condition is None:
        return sa.false()
    names = {long_name(name): _term(column) for name, column in columns.items()}
    lists = {long_name(name): relation for name, relation in (relations or {}).items()}
    return _Builder(names, lists, operators or {}, nulls).condition(plan.condition)


# --- terms --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """An operand in SQL: a column or an expression, or with *known* a Python *value*."""

    sql: Any
    kind: str
    """``bool``, ``number``, ``text``, ``time``, ``null``, ``list``, or ``any`` where nobody can tell."""

    known: bool = False
    value: Any = None
    computed: bool = False
    """What is ``NULL`` has failed; a ``NULL`` in a column may be a value."""


KINDS: Mapping[type, str] = {
    bool: "bool",
    datetime.datetime: "time",
    decimal.Decimal: "number",
    float: "number",
    int: "number",
    str: "text",
}


def _term(column: Column) -> Term:
    try:
        python_type = column.type.python_type
    except NotImplementedError:
        python_type = object
    return Term(column, KINDS.get(python_type, "any"))


def _known(value: Any) -> Term:
    if value is None:
        return Term(sa.null(), "null", known=True)
    if isinstance(value, (list, dict)):
        return Term(None, "list", known=True, value=list(value))
    kind = KINDS.get(float if isinstance(value, int) and not isinstance(value, bool) else type(value))
    if kind is None:
        raise AdapterError(f"a value of the type `{type(value).__name__}` cannot be said in SQL")
    return Term(
        sa.true() if value is True else sa.false() if value is False else sa.literal(value), kind, True, value
    )


def _in_one_zone(term: Term, other: Term) -> Term:
    """Return a known time in UTC with its zone where the column that it is compared with has zones."""
    if term.known and term.kind == "time" and getattr(other.sql.type, "timezone", False):
        moment = term.value.replace(tzinfo=datetime.UTC)
        return Term(sa.literal(moment, sa.DateTime(timezone=True)), "time", known=True, value=moment)
    return term


def _if_there(term: Term, condition: Condition) -> Condition:
    """Return *condition*, but ``NULL`` where *term* is."""
    return sa.case((term.sql.is_(None), sa.null()), else_=condition)


class _Builder:
    """Builds the condition; *names* grows by the variables of loops."""

    def __init__(
        self,
        names: Mapping[str, Term],
        relations: Mapping[str, Relation],
        operators: Mapping[str, Callable[..., Column]],
        nulls: Nulls,
    ) -> None:
        self._names = names
        self._relations = relations
        self._operators = operators
        self._nulls = nulls

    def condition(self, operand: Operand) -> Condition:
        """Return an operand that has to be true or false."""
        term = self.term(operand)
        if term.kind not in {"bool", "any"}:
            raise AdapterError(f"`{debug(operand)}` is a condition, but it is a {term.kind}, not a bool")
        found: Condition = term.sql
        return found

    def term(self, operand: Operand) -> Term:
        """Return any operand."""
        if isinstance(operand, Value):
            return _known(operand.value)
        if isinstance(operand, Variable):
            return self._named(operand.name)
        own = self._operators.get(operand.operator)
        if own is not None:
            return self._overridden(own, operand)
        build = OPERATORS.get(operand.operator)
        if build is None:
            raise AdapterError(
                f"the operator `{operand.operator}` cannot be said in SQL: "
                "give a function for it in `operators`"
            )
        found = build(self, operand)
        return found if isinstance(found, Term) else Term(found, "bool")

    def _named(self, name: str) -> Term:
        found = self._names.get(name)
        if found is None:
            hint = did_you_mean(name, sorted(self._names))
            raise AdapterError(f"there is no column for `{name}` in `columns`{'; ' if hint else ''}{hint}")
        return found

    def _overridden(self, own: Callable[..., Column], operand: Expression) -> Term:
        terms = [self.term(part) for part in operand.operands]
        found = own(*(term.value if term.known else term.sql for term in terms))
        return _term(found) if isinstance(found, sa.ColumnElement) else Term(found, "any")

    def two(self, operand: Expression) -> tuple[Term, Term]:
        """Return the operands of an operator that has two."""
        if len(operand.operands) != 2:
            raise AdapterError(f"`{operand.operator}` has {len(operand.operands)} operands, not two")
        left, right = operand.operands
        return self.term(left), self.term(right)

    # --- logic ----------------------------------------------------------------------------------------------

    def junction(self, operand: Expression) -> Condition:
        """Build ``and`` and ``or``."""
        join = sa.and_ if operand.operator == "and" else sa.or_
        return join(*(self.condition(part) for part in operand.operands))

    def negation(self, operand: Expression) -> Condition:
        """Build ``not``."""
        (part,) = operand.operands
        return sa.not_(self.condition(part))

    def choice(self, operand: Expression) -> Term:
        """Build ``if``."""
        condition = self.condition(operand.operands[0])
        then, otherwise = (self.term(part) for part in operand.operands[1:])
        kinds = {then.kind, otherwise.kind}
        if len(kinds) > 1:
            raise AdapterError(f"`{debug(operand)}` has values of different types")
        sql = sa.case((condition, then.sql), (sa.not_(condition), otherwise.sql), else_=sa.null())
        return Term(sql, then.kind, computed=True)

    def presence(self, operand: Expression) -> Condition:
        """Build ``has``."""
        term = self.term(operand.operands[0])
        return sa.true() if self._nulls == "null" else term.sql.is_not(None)

    # --- comparisons ----------------------------------------------------------------------------------------

    def equality(self, operand: Expression) -> Condition:
        """Build ``eq`` and ``ne``."""
        left, right = self.two(operand)
        if left.known and not right.known:
            left, right = right, left
        if right.kind == "list":
            raise AdapterError(f"`{debug(operand)}` compares a list, which SQL cannot")
        equal = self._equal(left, right, operand)
        return equal if operand.operator == "eq" else sa.not_(equal)

    def _equal(self, left: Term, right: Term, operand: Expression) -> Condition:
        if "null" in {left.kind, right.kind}:
            return self._equals_null(left, right)
        self._alike(left, right, operand)
        left, right = _in_one_zone(left, right), _in_one_zone(right, left)
        compared: Condition = left.sql == right.sql
        if self._nulls == "missing" or left.known:
            return compared
        same: Condition = left.sql.is_not_distinct_from(right.sql)
        for term in (left, right):
            same = _if_there(term, same) if term.computed else same
        return same

    def _equals_null(self, left: Term, right: Term) -> Condition:
        if left.kind == right.kind:
            return sa.true()
        column = right if left.kind == "null" else left
        if column.known:
            return sa.false()
        is_null: Condition = column.sql.is_(None)
        if self._nulls == "null" and not column.computed:
            return is_null
        return _if_there(column, sa.false())

    def _alike(self, left: Term, right: Term, operand: Expression) -> None:
        """Refuse to compare values of different types: databases convert, CEL does not."""
        if left.kind != right.kind and "any" not in {left.kind, right.kind}:
            raise AdapterError(f"`{debug(operand)}` compares a {left.kind} with a {right.kind}")

    def order(self, operand: Expression) -> Condition:
        """Build ``lt``, ``le``, ``gt``, ``ge``."""
        left, right = self.two(operand)
        self._alike(left, right, operand)
        if {left.kind, right.kind} & {"list", "null"}:
            raise AdapterError(f"`{debug(operand)}` has no order")
        left, right = _in_one_zone(left, right), _in_one_zone(right, left)
        found: Condition = ORDERS[operand.operator](left.sql, right.sql)
        return found

    def membership(self, operand: Expression) -> Condition:
        """Build ``in``: in known values, or in a relation."""
        sought, over = operand.operands
        if isinstance(over, Variable) and over.name in self._relations:
            return self._in_relation(self.term(sought), self._relations[over.name], operand)
        element, container = self.two(operand)
        if container.kind != "list":
            raise AdapterError(f"`{debug(operand)}` searches something else than known values or a relation")
        return self._in_values(element, container.value)

    def _in_values(self, element: Term, values: Sequence[Any]) -> Condition:
        alike = [value for value in values if _known(value).kind in _comparable(element)]
        if element.known:
            return sa.true() if element.value in alike else sa.false()
        found: Condition = element.sql.in_(alike) if alike else _if_there(element, sa.false())
        if self._nulls == "missing" or element.computed:
            return found
        is_null: Condition = element.sql.is_(None)
        if None in values:
            return sa.or_(is_null, found)
        return sa.and_(element.sql.is_not(None), found) if alike else sa.false()

    # --- numbers and text -----------------------------------------------------------------------------------

    def arithmetic(self, operand: Expression) -> Term:
        """Build ``add``, ``sub``, ``mult``, ``div`` of doubles, and ``add`` of text."""
        left, right = self.two(operand)
        if left.kind == right.kind == "text" and operand.operator == "add":
            return Term(left.sql + right.sql, "text", computed=True)
        for term in (left, right):
            if term.kind != "number":
                raise AdapterError(f"`{debug(operand)}` computes with a {term.kind}")
            if isinstance(term.value, int):
                raise AdapterError(
                    f"`{debug(operand)}` computes with a double and an int, for which CEL has no overload: "
                    f"a check never grants it; write `{term.value}.0` in the policy"
                )
        if operand.operator == "div" and not (right.known and right.value):
            raise AdapterError(f"`{debug(operand)}` divides by what may be zero")
        compute = ARITHMETIC[operand.operator]
        return Term(
            compute(sa.cast(left.sql, sa.Float), sa.cast(right.sql, sa.Float)), "number", computed=True
        )

    def text_test(self, operand: Expression) -> Condition:
        """Build ``startsWith``, ``endsWith``, ``contains``.

        ``LIKE`` lets the database use an index, but it is deaf to case in some: the second part is exact.
        """
        text, part = self.two(operand)
        if text.kind not in {"text", "any"} or not part.known or not isinstance(part.value, str):
            raise AdapterError(f"`{debug(operand)}` needs a column of text and a text that is known")
        if "\0" in part.value:
            raise AdapterError(f"`{debug(operand)}` has a NUL character, which databases take for an end")
        if not part.value:
            return _if_there(text, sa.true())
        before, exact, after = TEXT_TESTS[operand.operator]
        like: Condition = text.sql.like(f"{before}{_escaped(part.value)}{after}", escape="/")
        return sa.and_(like, exact(text.sql, part.value))

    def size(self, operand: Expression) -> Term:
        """Build ``size`` of text or of a relation."""
        (of,) = operand.operands
        if isinstance(of, Variable) and of.name in self._relations:
            relation = self._relations[of.name]
            count = sa.select(sa.func.count()).where(relation.where).scalar_subquery()
            return Term(count, "number")
        term = self.term(of)
        if term.kind != "text" or term.known:
            raise AdapterError(
                f"`{debug(operand)}` asks for the size of something else than text or a relation"
            )
        return Term(sa.func.length(term.sql), "number", computed=True)

    def time(self, operand: Expression) -> Term:
        """Build ``timestamp``: of a known time, or of a column that holds times."""
        (of,) = operand.operands
        term = self.term(of)
        if not term.known:
            if term.kind != "time":
                raise AdapterError(f"`{debug(operand)}` reads a time from a column of another type")
            return term
        try:
            moment = Timestamp.parse(term.value)
        except (EvaluationError, TypeError):
            raise AdapterError(f"`{debug(operand)}` is no time") from None
        if moment.nanoseconds % 1000:
            raise AdapterError(f"`{debug(operand)}` is more exact than a database is")
        naive = moment.to_datetime().replace(tzinfo=None)
        return Term(sa.literal(naive, sa.DateTime()), "time", known=True, value=naive)

    # --- loops ----------------------------------------------------------------------------------------------

    def loop(self, operand: Expression) -> Condition:
        """Build ``exists``, ``all`` and ``exists_one`` over a relation."""
        relation, body = self._body(operand)
        holds = _any_row(relation, body)
        fails = _any_row(relation, body.is_(None))
        if operand.operator == "exists":
            return sa.case((holds, sa.true()), (fails, sa.null()), else_=sa.false())
        if operand.operator == "all":
            return sa.case(
                (_any_row(relation, sa.not_(body)), sa.false()), (fails, sa.null()), else_=sa.true()
            )
        count = sa.select(sa.func.count()).where(relation.where, body).scalar_subquery()
        return sa.case((fails, sa.null()), else_=count == 1)

    def _body(self, operand: Expression) -> tuple[Relation, Condition]:
        match operand.operands:
            case (Variable(name), Expression("lambda", (body, Variable(variable)))):
                relation = self._relations.get(name)
                if relation is None:
                    raise AdapterError(f"there is no relation for the list `{name}`: add it to `relations`")
                inner = _Builder(
                    {**self._names, **_element_names(variable, relation)},
                    self._relations,
                    self._operators,
                    self._nulls,
                )
                return relation, inner.condition(body)
        raise AdapterError(f"`{debug(operand)}` goes over something else than a relation, with one variable")

    def intersection(self, operand: Expression) -> Condition:
        """Build ``hasIntersection`` of a relation and known values."""
        named = [
            part for part in operand.operands if isinstance(part, Variable) and part.name in self._relations
        ]
        known = [
            part for part in operand.operands if isinstance(part, Value) and isinstance(part.value, list)
        ]
        if len(named) != 1 or len(known) != 1:
            raise AdapterError(f"`{debug(operand)}` needs a relation and known values")
        relation = self._relations[named[0].name]
        element = _single(relation, operand)
        return _any_row(relation, self._in_values(element, known[0].value))

    def _in_relation(self, sought: Term, relation: Relation, operand: Expression) -> Condition:
        element = _single(relation, operand)
        if sought.kind == "list":
            raise AdapterError(f"`{debug(operand)}` searches a list in a list")
        if sought.kind != "null":
            self._alike(sought, element, operand)
        if sought.kind == "null":
            return _any_row(relation, element.sql.is_(None))
        if self._nulls == "null" and not sought.computed:
            return _any_row(relation, element.sql.is_not_distinct_from(sought.sql))
        found = _any_row(relation, element.sql == sought.sql)
        return found if sought.known else _if_there(sought, found)


def _comparable(element: Term) -> frozenset[str]:
    """Return the kinds of known values that an element may be equal to."""
    return frozenset(KINDS.values()) if element.kind == "any" else frozenset((element.kind,))


def _single(relation: Relation, operand: Expression) -> Term:
    if isinstance(relation.element, Mapping):
        raise AdapterError(f"`{debug(operand)}` compares elements that are objects")
    return _term(relation.element)


def _any_row(relation: Relation, condition: Condition) -> Condition:
    return sa.exists(sa.select(sa.literal(1)).where(relation.where, condition))


def _element_names(variable: str, relation: Relation) -> dict[str, Term]:
    if not isinstance(relation.element, Mapping):
        return {variable: _term(relation.element)}
    return {f"{variable}.{field}": _term(column) for field, column in relation.element.items()}


def _escaped(text: str) -> str:
    return text.replace("/", "//").replace("%", "/%").replace("_", "/_")


def _begins(column: Column, text: str) -> Condition:
    return sa.func.substr(column, 1, len(text)) == text


def _ends(column: Column, text: str) -> Condition:
    return sa.func.substr(column, sa.func.length(column) - len(text) + 1, len(text)) == text


def _holds(column: Column, text: str) -> Condition:
    return sa.func.length(sa.func.replace(column, text, "")) < sa.func.length(column)


TEXT_TESTS: Mapping[str, tuple[str, Callable[[Column, str], Condition], str]] = {
    "contains": ("%", _holds, "%"),
    "endsWith": ("%", _ends, ""),
    "startsWith": ("", _begins, "%"),
}
"""What stands before and after a text in a pattern, and the test that tells upper from lower case."""

ORDERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "ge": lambda left, right: left >= right,
    "gt": lambda left, right: left > right,
    "le": lambda left, right: left <= right,
    "lt": lambda left, right: left < right,
}
ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda left, right: left + right,
    "div": lambda left, right: left / right,
    "mult": lambda left, right: left * right,
    "sub": lambda left, right: left - right,
}

OPERATORS: Mapping[str, Callable[[_Builder, Expression], Term | Condition]] = {
    **dict.fromkeys(("and", "or"), _Builder.junction),
    **dict.fromkeys(("eq", "ne"), _Builder.equality),
    **dict.fromkeys(ORDERS, _Builder.order),
    **dict.fromkeys(ARITHMETIC, _Builder.arithmetic),
    **dict.fromkeys(TEXT_TESTS, _Builder.text_test),
    **dict.fromkeys(("exists", "all", "exists_one"), _Builder.loop),
    **dict.fromkeys(("hasIntersection", "has_intersection"), _Builder.intersection),
    "has": _Builder.presence,
    "if": _Builder.choice,
    "in": _Builder.membership,
    "not": _Builder.negation,
    "size": _Builder.size,
    "timestamp": _Builder.time,
}
