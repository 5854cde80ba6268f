"""Cerbos's cel_eval corpus: a condition over one principal and one resource is true or false."""

from __future__ import annotations

import datetime
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import AuxData, Principal, Resource, json_value
from engine.cel import Environment, EvaluationError, Timestamp
from engine.expressions import environment
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

CORPUS = "cerbos/cel_eval"

COMBINE: Mapping[str, Callable[[Iterable[bool]], bool]] = {
    "all": all,
    "any": any,
    "none": lambda outcomes: not any(outcomes),
}


@cache
def policies() -> Environment:
    return environment()


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(CORPUS).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def placed(given: Mapping[str, Any]) -> tuple[str, str]:
    return given.get("policyVersion", ""), given.get("scope", "")


def activation(request: Mapping[str, Any]) -> SimpleNamespace:
    given, wanted = request["principal"], request["resource"]
    principal = Principal(
        given["id"], tuple(given["roles"]), json_value(given.get("attr", {})), *placed(given)
    )
    resource = Resource(wanted["kind"], wanted["id"], json_value(wanted.get("attr", {})), *placed(wanted))
    aux_data = AuxData(json_value(request.get("auxData", {}).get("jwt", {})))
    return SimpleNamespace(
        request=SimpleNamespace(principal=principal, resource=resource, aux_data=aux_data),
        P=principal,
        R=resource,
        now=Timestamp.from_datetime(datetime.datetime.now(datetime.UTC)),
    )


def holds(condition: Mapping[str, Any], facts: SimpleNamespace) -> bool:
    ((kind, content),) = condition.items()
    if kind in COMBINE:
        return COMBINE[kind](holds(part, facts) for part in content["of"])
    try:
        return policies().compile(content).function(facts) is True
    except EvaluationError:
        return False


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_cel_eval(case: Mapping[str, Any]) -> None:
    """A condition of Cerbos's own tests has Cerbos's outcome; an expression that fails is false."""
    assert holds(case["condition"], activation(case["request"])) is case["want"]
