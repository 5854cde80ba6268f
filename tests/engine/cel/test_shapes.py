"""Code made of that of another expression is the code that compiling would have made."""

from __future__ import annotations

import types
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel import CompileError, Environment, EvaluationError
from engine.cel.shapes import Outline, outline
from engine.expressions import environment
from tests.differential.policies import expression

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def texts(pattern: str, *constants: Sequence[object]) -> list[str]:
    return [pattern.format(*each) for each in zip(*constants, strict=True)]


WORDS = ("alpha", "gamma", "delta", "omega")
NUMBERS = (1234.5, 9876.0, 2345.6, 4567.8)
WHOLE_NUMBERS = (1234, 9876, 2345, 4567)

SHARED = [
    'R.attr.team == "{}"',
    "P.id != '{}' && R.attr.team == \"fixed\"",
    'R.attr.team in ["{}", "fixed", "words"]',
    'R.attr.list.exists(l, l == "{}")',
    '!(R.attr.a == "{}") || R.attr.b == "other"',
    'R.attr.a ==\n  "{}" ? R.attr.b : R.attr.c',
    'has(R.attr.a) && R.attr.a.b == "{}"',
    'request.resource.attr.team == "{}" // as "agreed"',
    'cel.bind(x, R.attr.a, x == "{}" && x != "other")',
    f"R.attr.team in [{', '.join(repr(f'word{number:02}') for number in range(20))}, '{{}}']",
]
ALONE = [
    'R.attr.text.matches("{}")',
    'R.attr.text.startsWith("{}")',
    '"{}" + P.id == R.id',
    '"{}"',
    '{{"{}": 1}}.alpha == 1',
    'R.attr["{}"] == 1',
    'R.attr.map == {{"{}": 1}}',
    'R.attr.text.split("{}") == []',
    'dyn("{}") == 1',
    '["{}"] == R.attr.list',
    'R.attr.a in {{"{}": 1}}',
]


def fresh() -> Environment:
    """Make an environment that has seen nothing."""
    return environment()


def parts(made: Any) -> tuple[Any, ...]:
    """Return all that an expression consists of, code byte by byte."""
    program = made._program
    bound = program.function.__defaults__[1:]
    return (
        list(flat(program.function.__code__)),
        [repr(value) for value in bound if not callable(value)],
        program.result_type,
        program.identifiers,
        program.references,
        program.uses_now,
        program.listing.file,
    )


def flat(code: types.CodeType) -> Iterator[Any]:
    yield code.co_code, code.co_linetable, code.co_exceptiontable, code.co_names, code.co_varnames
    yield code.co_freevars, code.co_cellvars, code.co_flags, code.co_stacksize, code.co_filename
    for constant in code.co_consts:
        yield from flat(constant) if isinstance(constant, types.CodeType) else ((type(constant), constant),)


def shares(environment: Environment) -> bool:
    """Tell whether some code was made of that of another expression."""
    return any(known is not None and known[0] is not None for known in environment._shapes.values())


@pytest.mark.parametrize("pattern", SHARED)
def test_constants_that_are_compared_are_exchanged(pattern: str) -> None:
    """From the second expression of a shape on, code is not generated again; it is the same as if it were."""
    together = fresh()
    for text in texts(pattern, WORDS):
        assert parts(together.compile(text)) == parts(fresh().compile(text))
    assert shares(together)


@pytest.mark.parametrize("numbers", [NUMBERS, WHOLE_NUMBERS], ids=["doubles", "ints"])
@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
def test_numbers_that_are_compared_are_exchanged(operator: str, numbers: tuple[float, ...]) -> None:
    """That holds for numbers with the same number of digits too."""
    together = fresh()
    for text in texts(
        f"R.attr.amount {operator} {{}} && {{}} {operator} R.attr.other", numbers, numbers[::-1]
    ):
        assert parts(together.compile(text)) == parts(fresh().compile(text))
    assert shares(together)


@pytest.mark.parametrize("pattern", ALONE)
def test_where_a_constant_matters_each_text_is_compiled(pattern: str) -> None:
    """A pattern, a key, an operand of anything but a comparison is never exchanged."""
    together = fresh()
    for text in texts(pattern, WORDS):
        assert parts(together.compile(text)) == parts(fresh().compile(text))
    assert not shares(together)


@pytest.mark.parametrize(
    "pattern",
    [
        "R.attr.list[{}] == 1",
        "R.attr.amount + {} == R.attr.other",
        "R.attr.amount == -{}",
        "R.attr.amount in [{}, 1]",
        "double({}) == R.attr.amount",
        "timestamp({}) < now()",
    ],
)
def test_where_a_number_matters_each_text_is_compiled(pattern: str) -> None:
    """An index, an operand of arithmetic, an element or an argument is never exchanged."""
    together = fresh()
    for text in [pattern.replace("{}", str(number)) for number in WHOLE_NUMBERS]:
        assert parts(together.compile(text)) == parts(fresh().compile(text))
    assert not shares(together)


@pytest.mark.parametrize("size", ["size(R.attr.list)", "R.attr.text.size()"])
def test_ints_that_are_compared_with_ints_are_exchanged(size: str) -> None:
    """Each of several literals is exchanged where the other side is an int as well."""
    together = fresh()
    for text in texts(f"{size} > {{}} && {{}} >= {size}", WHOLE_NUMBERS, WHOLE_NUMBERS[::-1]):
        assert parts(together.compile(text)) == parts(fresh().compile(text))
    assert shares(together)


@pytest.mark.parametrize(
    "text",
    [
        'R.attr.a == "{}" && R.attr.b == 9993.0 && R.attr.c < 1234.5',  # the number of a stand-in
        'R.attr.a == "{}" && R.attr.b == 9993 && R.attr.c < 1234.5',
        'R.attr.a == "~00~~" && R.attr.b == "{}" && R.attr.c == "~01~~~"',
        'R.attr.a == "{}" && R.attr.b == -1234.5',
        'R.attr.a == "{}" && R.attr.b == 1.2345e3',
        'R.attr.a == r"{}" && R.attr.b == b"words"',
        'R.attr.a == "{}" && R.attr.b == "a\\nb\\nc"',
        "R.attr.a == '{}' && R.attr.b == '''words'''",
        'R.attr.a == "{}" && R.attr.b == "\\u00fc\\u00fc\\u00fc\\u00fc"',
        'R.attr.a == "{}" && R.attr.b == "it\'s so"',
        'R.attr.a == "{}" && timestamp("2024-01-01T00:00:00Z") < now()',
        "R.attr.a == '{}' && R.attr.b == 'a\x00\x00\x00b'",
    ],
)
def test_what_looks_like_something_else_changes_nothing(text: str) -> None:
    """Constants that look like stand-ins, or that are written in other ways, keep their meaning."""
    together = fresh()
    for each in texts(text, WORDS):
        assert parts(together.compile(each)) == parts(fresh().compile(each))


def test_equal_constants_are_kept_apart() -> None:
    """Constants that are equal in one text may differ in the next of the same shape."""
    pattern = 'R.attr.a == "{}" && R.attr.b == "{}"'
    together = fresh()
    made = [together.compile(text) for text in texts(pattern, WORDS, (*WORDS[:2], "omega", "delta"))]
    for expression_, (a, b) in zip(
        made, zip(WORDS, (*WORDS[:2], "omega", "delta"), strict=True), strict=True
    ):
        for one, other in ((a, b), (b, a), ("alpha", "delta")):
            activation = SimpleNamespace(R=SimpleNamespace(attr={"a": one, "b": other}))
            assert expression_.function(activation) is (one == a and other == b)


def test_a_mistake_is_told_of_each_text() -> None:
    """What is wrong with a shape is said of every text that has it, in its own words."""
    together = fresh()
    for text in texts('R.attrs.a == "{}"', WORDS):
        with pytest.raises(CompileError) as told:
            together.compile(text)
        with pytest.raises(CompileError) as expected:
            fresh().compile(text)
        assert told.value.issues == expected.value.issues


def test_a_failure_is_placed_in_its_own_text() -> None:
    """An expression that was made of another one says what fails in its own words."""
    together = fresh()
    made = [together.compile(text) for text in texts('R.attr.gone == "{}"', WORDS)]
    for expression_, word in zip(made, WORDS, strict=True):
        with pytest.raises(EvaluationError) as error:
            expression_.function(SimpleNamespace(R=SimpleNamespace(attr={})))
        place = expression_.locate(error.value)
        assert place.excerpt == f'R.attr.gone == "{word}"\n^^^^^^^^^^^'


def _other_constants(found: Outline, random: Random) -> list[str | float]:
    """Return constants of the same lengths, all of them different."""
    made: list[str | float] = []
    for number, (literal, (start, end)) in enumerate(zip(found.literals, found.spans, strict=True)):
        if isinstance(literal, str):
            letters = "".join(random.choice("abcxyz") for _ in range(end - start - 2))
            made.append(f"{number:02d}{letters}"[: end - start - 2])
        else:
            digits = len(str(int(literal)))
            made.append(float(10 ** (digits - 1) + number + 3))
    return made


@given(st.integers(0, 10**9))
@settings(max_examples=100)
def test_any_expression_is_what_it_would_be_alone(seed: int) -> None:
    """Whatever the expression, one that differs in constants is compiled to what it would be by itself."""
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    text = expression(random, random.choice(("bool", "dyn", "string")), 3)
    found = outline(text)
    if found is None:
        return
    together = fresh()
    for _ in range(3):
        other = found.with_constants(text, _other_constants(found, random))
        assert len(other) == len(text)
        try:
            alone = parts(fresh().compile(other))
        except CompileError:
            with pytest.raises(CompileError):
                together.compile(other)
        else:
            assert parts(together.compile(other)) == alone
