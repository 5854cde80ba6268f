"""The same requests to our server and to the real Cerbos over REST: whole answers, and refusals."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from engine import Engine
from tests.differential.compare import differences
from tests.differential.oracle import cerbos_binary
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.rest import Servers, servers
from tests.differential.run import CONFIGURATIONS
from tests.differential.schemas import CONFIGURATIONS as SCHEMA_CONFIGURATIONS
from tests.differential.schemas import request as schema_request
from tests.differential.schemas import schema_set
from tests.differential.sides import Configuration, written
from tests.extauthz.key_server import jwks, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.differential.sides import Files, Request

SEEDS = (3, 5, 8)
"""Of sets all of whose expressions Cerbos's type checker accepts, one for each configuration."""

REQUESTS = 60
RESOURCES = 3
CHECK = "/api/check/resources"
SET = "/api/check"
BATCH = "/api/check_resource_batch"

POLICY: Any = {
    "apiVersion": "api.cerbos.dev/v1",
    "resourcePolicy": {
        "resource": "doc",
        "version": "default",
        "rules": [
            {
                "actions": ["view"],
                "effect": "EFFECT_ALLOW",
                "roles": ["user"],
                "output": {"when": {"ruleActivated": "R.attr"}},
            }
        ],
    },
}
CLAIMS: Any = json.loads(json.dumps(POLICY).replace("R.attr", "request.auxData.jwt"))
PRINCIPAL: Any = {"id": "ann", "roles": ["user"]}
DOC: Any = {"actions": ["view", "edit"], "resource": {"kind": "doc", "id": "1", "attr": {"a": [1, None]}}}
QUESTION: Any = {"requestId": "r", "principal": PRINCIPAL, "resources": [DOC]}
INSTANCES: Any = {"1": {"attr": {"a": 1}}, "2": {}}
SET_QUESTION: Any = {
    "requestId": "r",
    "actions": ["view", "edit"],
    "principal": PRINCIPAL,
    "resource": {"kind": "doc", "policyVersion": "default", "instances": INSTANCES},
    "includeMeta": True,
}


def asked() -> Iterator[tuple[str, bytes]]:
    """Return requests of one shape and another, right ones and wrong ones."""
    for raw in (b"", b"[]", b"null", b'{"requestId":1}'):
        yield CHECK, raw
    principals: tuple[Any, ...] = (
        {},
        {"id": "", "roles": []},
        {"id": "a", "roles": ["u", "u"]},
        {"id": "a", "roles": ["u"], "scope": "!x"},
        {"id": "a", "roles": ["u"], "policyVersion": "a b"},
        {"id": "a", "roles": [""]},
        {"id": "a", "roles": "x"},
    )
    resources: tuple[Any, ...] = (
        [],
        [{"actions": [], "resource": DOC["resource"]}],
        [{"actions": ["a", "a"], "resource": DOC["resource"]}],
        [{"actions": ["view"]}],
        [{"actions": ["view"], "resource": {"kind": "", "id": ""}}],
    )
    fields: tuple[Any, ...] = (
        {},
        {"includeMeta": True},
        {"includeMeta": "yes"},
        {"unknown": 1},
        {"auxData": {"jwt": {"token": ""}}},
        {"auxData": {"jwt": {"token": "a.b.c"}}},
        *({"principal": principal} for principal in principals),
        *({"resources": entries} for entries in resources),
    )
    for path, whole in ((CHECK, QUESTION), (BATCH, QUESTION)):
        yield from ((path, json.dumps(whole | changed).encode()) for changed in fields)
    changes: tuple[Any, ...] = (
        {},
        {"includeMeta": False},
        {"actions": []},
        {"resource": {}},
        {"resource": {"kind": "doc", "instances": {}}},
        {"unknown": 1},
        *({"principal": principal} for principal in principals),
    )
    yield from ((SET, json.dumps(SET_QUESTION | changed).encode()) for changed in changes)
    yield "/api/nothing", b"{}"


def test_answered_and_refused_alike(record_property: Callable[[str, object], None]) -> None:
    """Status, code and message of refusals are Cerbos's, in the deprecated calls too."""
    cerbos_binary()
    count, refused = 0, 0
    with written({"doc.json": POLICY}) as directory, servers(directory, Configuration("plain")) as both:
        for path, body in asked():
            ours, theirs = both.ask(path, body)
            assert ours == theirs, (path, body)
            count += 1
            refused += ours.status != 200
    record_property("compared", ("REST", count, 0))
    assert 0 < refused < count


@pytest.mark.parametrize("index", range(len(CONFIGURATIONS)))
def test_whole_answers(index: int, record_property: Callable[[str, object], None]) -> None:
    """With ``includeMeta``, the JSON of an answer is Cerbos's."""
    random = Random(SEEDS[index])  # noqa: S311 - nothing secret: the same seed has to make the same policies
    files = policy_set(random)
    questions = [request(random, RESOURCES) for _ in range(REQUESTS)]
    compared_whole(files, CONFIGURATIONS[index], questions, record_property)


@pytest.mark.parametrize("index", range(len(SCHEMA_CONFIGURATIONS)))
def test_whole_answers_with_schemas(index: int, record_property: Callable[[str, object], None]) -> None:
    """What is wrong with attributes is told as Cerbos tells it."""
    random = Random(index)  # noqa: S311 - the same
    files = schema_set(random)
    whole = [schema_request(random) for _ in range(REQUESTS)]
    questions = [one | {"resources": one["resources"][:RESOURCES]} for one in whole]
    compared_whole(files, SCHEMA_CONFIGURATIONS[index], questions, record_property)


def tokens() -> Iterator[str]:
    """Return tokens with claims of many types, and some that are not to be trusted."""
    claims: tuple[dict[str, Any], ...] = (
        {"sub": "ann"},
        {"sub": "ann", "exp": 4_000_000_000, "nbf": 1, "iat": 1, "aud": "us", "iss": "them", "jti": "1"},
        {"aud": ["us", "you"], "groups": ["a", 1, None, {"b": [True]}]},
        {"count": 3, "share": 0.25, "large": 2**53, "none": None, "text": "ünï", "map": {}},
        {"exp": 1},
        {"nbf": 4_000_000_000},
        {},
    )
    yield from (token(one) for one in claims)
    yield token({"sub": "ann"}, key="rsa-other", header={"kid": "rsa"})
    yield token({"sub": "ann"}, key="rsa-other")
    yield token({"sub": "ann"}, key="ec", alg="ES256")
    yield token({"sub": "ann"}) + "x"
    yield token("[]")
    yield "no token"


def test_claims_of_tokens(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Policies see the claims of a token as in Cerbos; what is not to be trusted is refused alike."""
    cerbos_binary()
    keys = tmp_path / "keys.json"
    keys.write_bytes(jwks("rsa"))
    configuration = Configuration("tokens", key_sets=({"id": "keys", "local": {"file": str(keys)}},))
    statuses = []
    with written({"doc.json": CLAIMS}) as directory, servers(directory, configuration) as both:
        for one in tokens():
            for named in ({}, {"keySetId": "keys"}, {"keySetId": "others"}):
                body = QUESTION | {"auxData": {"jwt": {"token": one, **named}}}
                ours, theirs = both.ask(CHECK, json.dumps(body).encode())
                assert ours == theirs, body
                statuses.append(ours.status)
    record_property("compared", ("REST", len(statuses), 0))
    assert set(statuses) == {200, 400}


def compared_whole(
    files: Files,
    configuration: Configuration,
    questions: Sequence[Request],
    record_property: Callable[[str, object], None],
) -> None:
    """Compare the answers to those of *questions* that both of us decide alike; the others are listed."""
    cerbos_binary()
    listed = 0
    with written(files) as directory, servers(directory, configuration) as both:
        engine = Engine.from_directory(directory, settings=configuration.settings())
        for question in questions:
            if any(differences(engine, both.cerbos, question)):
                listed += 1
            else:
                same_answer(both, question)
    record_property("compared", ("REST", len(questions), listed))
    assert listed <= len(questions) // 2


def same_answer(both: Servers, question: Request) -> None:
    """Ask both servers one question."""
    body = {"requestId": "r", "includeMeta": True, **question}
    ours, theirs = both.ask(CHECK, json.dumps(body).encode())
    assert ours == theirs, body
    assert ours.status == 200
