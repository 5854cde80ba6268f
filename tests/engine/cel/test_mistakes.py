"""Texts that do not compile, against a table of what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.cel import CompileError
from tests.engine.cel.policies import environment

TABLE = Path(__file__).parents[2] / "cases" / "cel" / "mistakes.yaml"
ENVIRONMENT = environment()


def rows() -> list[Any]:
    return [pytest.param(row, id=row["expr"]) for row in yaml.safe_load(TABLE.read_text())]


@pytest.mark.parametrize("row", rows())
def test_all_mistakes_are_reported_each_with_its_place(row: dict[str, Any]) -> None:
    """A text that does not compile is refused with all its mistakes, in order of their places."""
    with pytest.raises(CompileError) as refusal:
        ENVIRONMENT.compile(row["expr"])
    assert [str(issue) for issue in refusal.value.issues][: len(row["issues"])] == row["issues"]
