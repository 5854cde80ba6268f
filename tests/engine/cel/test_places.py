"""Where in its text an expression fails."""

from __future__ import annotations

import contextlib
import gc
import linecache
import re
import traceback
import weakref

import pytest

from engine.cel import EvaluationError, Expression
from engine.cel.nodes import Call, Comprehension, Ident, ListLiteral, MapLiteral, Node, Select
from engine.cel.source import Source
from tests.engine.cel.policies import activation, environment

ENVIRONMENT = environment()


def failure(expression: Expression) -> EvaluationError:
    with pytest.raises(EvaluationError) as caught:
        expression.function(activation())
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "column", "underlined"),
    [
        ("P.id == 'ana' && P.attr.missing == 1", 1, 18, "P.attr.missing"),
        ("P.attr.region == 'EMEA' && 1 / (P.roles.size() - 2) > 0", 1, 28, "1 / (P.roles.size() - 2)"),
        ("P.attr.nested.deep.nothing.more", 1, 1, "P.attr.nested.deep.nothing"),
        ("P.attr['nested']['other']", 1, 1, "P.attr['nested']['other']"),
        ("['é', '😀'].exists(e, e == P.attr.missing)", 1, 27, "P.attr.missing"),
        ("P.attr.tags.map(t, t.oops)", 1, 20, "t.oops"),
        ("true\n  && P.attr.tags[7] == 'x'", 2, 6, "P.attr.tags[7]"),
        ("// a comment\n(P.attr.level +\n 1) > 2", 2, 2, "P.attr.level +"),
        ("P.attr.level ? 1 : 2", 1, 1, "P.attr.level"),
        ("timestamp(P.id) < now()", 1, 1, "timestamp(P.id)"),
        ("P.id.charAt(99) == 'a'", 1, 1, "P.id.charAt(99)"),
        ("math.abs(P.attr.region)", 1, 1, "math.abs(P.attr.region)"),
        ("!P.attr.level", 1, 2, "P.attr.level"),
        ("-P.attr.region", 1, 1, "-P.attr.region"),
        ("{'a': 1, P.id: 2, 'ana': 3}", 1, 1, "{'a': 1, P.id: 2, 'ana': 3}"),
        ("x.a || P.attr.missing", 1, 1, "x.a"),
        ("cel.bind(y, P.attr.missing, y == 1)", 1, 13, "P.attr.missing"),
        ("V.nothing > 1", 1, 1, "V.nothing"),
        ("P.attr.`missing`", 1, 1, "P.attr.`missing`"),
    ],
)
def test_the_failing_part_is_underlined(text: str, line: int, column: int, underlined: str) -> None:
    """An error at run time says in which line and column of the text it arose, and marks that part."""
    expression = ENVIRONMENT.compile(text)
    place = expression.locate(failure(expression))
    shown, marks = place.excerpt.split("\n")
    assert (place.line, place.column) == (line, column)
    assert shown == text.split("\n")[line - 1]
    assert shown[marks.index("^") : len(marks)] == underlined


def test_a_long_line_is_cut_around_the_failing_part() -> None:
    """An excerpt of a very long line shows the part that matters."""
    expression = ENVIRONMENT.compile(f"{'true && ' * 50}P.attr.missing{' && true' * 50}")
    place = expression.locate(failure(expression))
    shown, marks = place.excerpt.split("\n")
    assert len(shown) == 120
    assert shown[marks.index("^") : len(marks)] == "P.attr.missing"
    assert place.column == 401


def test_a_traceback_shows_the_expression() -> None:
    """An ordinary traceback has a line of the expression's text, and marks the failing part in it."""
    expression = ENVIRONMENT.compile("P.id == 'ana' &&\n  P.attr.oops > 3")
    lines = "".join(traceback.format_exception(failure(expression)))
    assert re.search(r'File "<cel \d+>", line 2, in expression\n +P\.attr\.oops > 3\n +\^{11}\n', lines)


def test_an_error_of_another_expression_has_no_place() -> None:
    """An error that did not come from the expression is placed at its beginning."""
    place = ENVIRONMENT.compile("1 + 1").locate(EvaluationError("elsewhere"))
    assert (place.line, place.column) == (1, 1)


def test_compiled_expressions_can_be_thrown_away() -> None:
    """Of a hundred expressions that are no longer used, failed or not, nothing is left."""
    made = [ENVIRONMENT.compile(f"P.attr.gone{number} == 1") for number in range(100)]
    for expression in made:
        failure(expression)
    files = {expression._program.listing.file for expression in made}
    functions = [weakref.ref(expression.function) for expression in made]
    assert files <= set(linecache.cache)
    del made, expression
    gc.collect()
    assert [function for function in functions if function() is not None] == []
    assert not files & set(linecache.cache)


@pytest.mark.parametrize(
    "text",
    [
        "P.attr.missing == 1 || true",
        "P.attr.missing == 1 && false",
        "[1, 2].exists(i, P.attr.missing == i || i == 2)",
        "[1, 2].all(i, P.attr.missing == i && i == 3)",
        "cel.bind(y, P.attr.missing, true)",
        "P.attr.missing == 1",
        "cel.bind(y, P.attr.missing, y == 1)",
        "P.attr.missing == 1 && [1].all(i, P.attr.other == i)",
    ],
)
def test_a_failure_leaves_no_cycle(text: str) -> None:
    """Failures, absorbed or raised, hold no frame and so no request data after the evaluation."""

    class Held:
        pass

    expression, given = ENVIRONMENT.compile(text), Held()
    vars(given).update(vars(activation()))
    gone = weakref.ref(given)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(EvaluationError):
            expression.function(given)
        del given
        assert gone() is None
    finally:
        gc.enable()


def nodes_of(node: Node) -> list[Node]:
    inner: list[Node] = []
    match node:
        case Select(operand=operand):
            inner = [operand]
        case Call(arguments=parts) | ListLiteral(elements=parts):
            inner = [*parts]
        case MapLiteral(entries=entries):
            inner = [part for entry in entries for part in (entry.key, entry.value)]
        case Comprehension():
            inner = [node.range, node.step]
    return [node, *(found for part in inner for found in nodes_of(part))]


@pytest.mark.parametrize(
    "text",
    [
        "P.attr.a.b[0]",
        "size(P.roles) + [1, 2].size() * -3",
        'x ? \'a)\' : r\'b(\' + """c\n]"""',
        "{'k': [x, {'l': x}]}.k[0]",
        "math . abs ( x ) == x . ? y . orValue ( 1 )",
        "P.roles.exists(r, r == 'é' || r in ['ü', x])",
        "optional.of(x).optMap(v, v + 1)",
        "x.map(a, a.map(b, b))",
        "google.protobuf.Int64Value{value: 1}",
        "0x1F + 3 > 2 && 1e3 - .5 == 1.0",
    ],
)
def test_every_node_has_a_place_in_the_text(text: str) -> None:
    """The span of a node lies in the text, and begins before it ends."""
    lines = text.split("\n")
    for node in nodes_of(ENVIRONMENT._checker.check(text)):
        span = node.span
        assert (span.line, span.column) <= (span.end_line, span.end_column)
        assert 1 <= span.line <= span.end_line <= len(lines)
        assert span.end_column <= len(lines[span.end_line - 1].encode())
        if isinstance(node, Ident) and not node.name.startswith("@"):
            assert lines[span.line - 1].encode()[span.column : span.end_column].decode() in {
                node.name,
                "optMap",
            }


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    """The end of a call is found past brackets that are only text."""
    text = "f(')', \"]\", r'\\', 1) // )"
    assert Source(text).call(1).end_column == len(text) - 5
