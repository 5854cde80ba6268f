"""Cerbos's corpus of filters: what normalisation makes of each, to the letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine.plan import ALWAYS_ALLOWED, ALWAYS_DENIED, CONDITIONAL
from engine.plan.filter import as_bool, debug, from_json, normalised
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "cerbos/query_planner_filter"

KINDS = {True: (ALWAYS_ALLOWED, "(true)"), False: (ALWAYS_DENIED, "(false)")}


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(NAME).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def normal_form(filter_: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the normal form of a filter as the API has it, and its debug string."""
    if "condition" not in filter_:
        return {"kind": ALWAYS_ALLOWED}, "(true)"
    found = normalised(from_json(filter_["condition"]))
    truth = as_bool(found)
    if truth is not None:
        kind, text = KINDS[truth]
        return {"kind": kind}, text
    return {"kind": CONDITIONAL, "condition": found.to_json()}, debug(found)


@pytest.mark.parametrize("case", parameters(NAME, cases()))
def test_normal_forms(case: dict[str, Any]) -> None:
    """The normal form of a filter and its debug string are Cerbos's, operand for operand."""
    assert normal_form(case["input"]) == (case["wantFilter"], case["wantString"])
