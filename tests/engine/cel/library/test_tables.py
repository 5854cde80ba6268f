"""The functions of the library, called from expressions, against tables of answers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine.cel import CompileError, Environment, EvaluationError, Timestamp
from engine.cel.runtime import equals, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = Path(__file__).parents[3] / "cases" / "cel" / "library"
ENVIRONMENT = Environment({})
NOW = Timestamp.parse("2024-05-06T07:08:09Z")


def rows() -> Iterator[Any]:
    for table in sorted(TABLES.glob("*.yaml")):
        for row in yaml.safe_load(table.read_text()):
            yield pytest.param(row, id=f"{table.stem}: {row['expr']}")


def evaluate(text: str) -> Any:
    return ENVIRONMENT.compile(text).function(SimpleNamespace(now=NOW))


def same(left: Any, right: Any) -> bool:
    """Equal, of one type all the way down, and for doubles also in sign and in not being a number."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or repr(left) == repr(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type_name(left) == type_name(right) and equals(left, right)


@pytest.mark.parametrize("row", [row for row in rows() if "is" in row.values[0]])
def test_expression_has_the_value_of_the_table(row: dict[str, str]) -> None:
    """An expression has the value that its row states as CEL text, in the same type."""
    assert same(evaluate(row["expr"]), evaluate(row["is"]))


@pytest.mark.parametrize("row", [row for row in rows() if "error" in row.values[0]])
def test_expression_fails_as_in_the_table(row: dict[str, str]) -> None:
    """An expression fails, at run time with the words of its row, or already when it is compiled."""
    with pytest.raises((CompileError, EvaluationError)) as failure:
        evaluate(row["expr"])
    assert failure.type is CompileError or row["error"] in str(failure.value)
