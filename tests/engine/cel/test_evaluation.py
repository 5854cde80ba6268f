"""Operators, macros, conversions and failures, against a table of answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from engine.cel import Environment, EvaluationError
from engine.cel.runtime import equals, type_name

TABLE = Path(__file__).parents[2] / "cases" / "cel" / "evaluation.yaml"
ENVIRONMENT = Environment({"attr": "map<string, dyn>"})
ATTRIBUTES = {
    "n": 5.0,
    "one": 1.0,
    "yes": True,
    "s": "text",
    "nothing": None,
    "tags": ["a", "b"],
    "list": [1.0, True, None, "x"],
    "m": {"k": {"k": 1.0}},
}


def rows(kind: str) -> list[Any]:
    return [pytest.param(row, id=row["expr"]) for row in yaml.safe_load(TABLE.read_text()) if kind in row]


def evaluate(text: str) -> Any:
    return ENVIRONMENT.compile(text).function(SimpleNamespace(attr=ATTRIBUTES))


@pytest.mark.parametrize("row", rows("is"))
def test_expression_has_the_value_of_the_table(row: dict[str, str]) -> None:
    """An expression has the value that its row states as CEL text, in the same type."""
    value, expected = evaluate(row["expr"]), evaluate(row["is"])
    assert type_name(value) == type_name(expected)
    assert equals(value, expected)


@pytest.mark.parametrize("row", rows("error"))
def test_expression_fails_as_in_the_table(row: dict[str, str]) -> None:
    """An expression fails at run time with the words of its row."""
    with pytest.raises(EvaluationError) as failure:
        evaluate(row["expr"])
    assert row["error"] in str(failure.value)
