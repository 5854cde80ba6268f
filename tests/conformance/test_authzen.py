"""The AuthZEN calls against outside data: Cerbos's server corpora, and OpenID's interoperability scenario."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conformance.suite import DATA, corpus, parameters
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

INTEROP = Path(__file__).resolve().parents[1] / "cases" / "authzen" / "interop"
PATHS = {
    "cerbos/server/authzen/access_evaluation": ("accessEvaluation", "/access/v1/evaluation"),
    "cerbos/server/authzen/access_evaluation_batch": ("accessEvaluationBatch", "/access/v1/evaluations"),
}
STORE = """
storage: {driver: disk, disk: {directory: "${STORE}"}}
schema: {enforcement: reject}
auxData: {jwt: {keySets: [{id: cerbos, local: {file: "${KEY}"}}]}}
"""
TODO = """
storage: {driver: disk, disk: {directory: "${POLICIES}"}}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[httpx.Client]:
    """Serve the policies of Cerbos's corpora."""
    environment = {
        "STORE": str(DATA / "cerbos/store"),
        "KEY": str(DATA / "cerbos/auxdata/keys/verify_key.jwk"),
    }
    with running(STORE, environment) as service, service.served.client() as client:
        yield client


@pytest.fixture(scope="module")
def todo() -> Iterator[httpx.Client]:
    """Serve our policies for the interoperability scenario."""
    with running(TODO, {"POLICIES": str(INTEROP)}) as service, service.served.client() as client:
        yield client


def server_cases(name: str) -> Iterator[tuple[str, Any]]:
    call, path = PATHS[name]
    for file in sorted(corpus(name).glob("*.yaml")):
        case = yaml.safe_load(file.read_text(encoding="utf-8"))
        yield file.stem, (path, case["wantStatus"]["httpStatusCode"], case[call])


SERVER = [each for name in PATHS for each in parameters(name, server_cases(name))]


@pytest.mark.parametrize("case", SERVER)
def test_server(store: httpx.Client, case: tuple[str, int, dict[str, Any]]) -> None:
    """Decisions are Cerbos's; its own test does not compare the context of an answer either."""
    path, status, exchange = case
    response = store.post(path, json=exchange["input"])
    assert response.status_code == status
    assert without_context(response.json()) == without_context(exchange["wantResponse"])


@pytest.mark.parametrize(
    "case",
    parameters(
        "cerbos/server/authzen/access_evaluation", server_cases("cerbos/server/authzen/access_evaluation")
    ),
)
def test_context_of_an_evaluation(store: httpx.Client, case: tuple[str, int, dict[str, Any]]) -> None:
    """What an evaluation says about its reasons is Cerbos's as well."""
    path, _, exchange = case
    assert store.post(path, json=exchange["input"]).json() == exchange["wantResponse"]


def without_context(answer: dict[str, Any]) -> dict[str, Any]:
    if "evaluations" in answer:
        return {"evaluations": [without_context(each) for each in answer["evaluations"]]}
    return {"decision": answer.get("decision", False)}


def interop_cases() -> Iterator[tuple[str, Any]]:
    file = corpus("authzen") / "decisions.json"
    for number, case in enumerate(json.loads(file.read_text(encoding="utf-8"))["evaluation"], 1):
        yield f"{number:02}", case


INTEROP_CASES = parameters("authzen", interop_cases())


@pytest.mark.parametrize("case", INTEROP_CASES)
def test_interop(todo: httpx.Client, case: dict[str, Any]) -> None:
    """The decisions of the scenario, each asked for by itself."""
    response = todo.post("/access/v1/evaluation", json=case["request"])
    assert response.json() == {"decision": case["expected"]}


def test_interop_as_a_batch(todo: httpx.Client) -> None:
    """The decisions of the scenario, asked for at once."""
    if not corpus("authzen").is_dir():
        pytest.skip("no conformance data")
    cases = [case for _, case in interop_cases()]
    response = todo.post("/access/v1/evaluations", json={"evaluations": [case["request"] for case in cases]})
    assert response.json() == {"evaluations": [{"decision": case["expected"]} for case in cases]}


def test_the_service_says_where_it_is(todo: httpx.Client) -> None:
    """What the metadata names is where the calls are."""
    found = todo.get("/.well-known/authzen-configuration").json()
    assert found["policy_decision_point"] == str(todo.base_url).rstrip("/")
    request = {"subject": {"type": "identity", "id": "x"}, "resource": {"type": "route", "id": "/"}}
    one = {**request, "action": {"name": "GET"}}
    assert todo.post(found["access_evaluation_endpoint"], json=one).json() == {"decision": False}
    several = {**one, "evaluations": [{}]}
    assert todo.post(found["access_evaluations_endpoint"], json=several).json() == {
        "evaluations": [{"decision": False}]
    }
