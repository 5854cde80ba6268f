"""Short ways of routes: whatever they answer, the steps of the authorizer would have answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extauthz.requests import check_request
from tests.extauthz.service import POLICY, service, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from extauthz.app import App
    from extauthz.authorizer import Authorizer

URL = "https://api.example.com"
DECISION = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

CONFIGURATION = """
storage: {driver: disk, disk: {directory: "${POLICIES}"}}
auxData: {jwt: {keySets: [{id: company, local: {data: "${JWKS}"}}]}}
extAuthz:
  identity:
    - id: bearer
      jwt: &company
        {keySetID: company, issuer: https://id.example.com/, audiences: [api], algorithms: [RS256]}
      principal: &principal
        id: {claim: sub}
        roles: {claim: roles}
        attr: {region: {claim: region, optional: true}}
    - id: anywhere
      jwt: {<<: *company, from: [{header: authorization}, {cookie: sid}]}
      principal: *principal
    - id: changing
      jwt: {<<: *company, from: [{header: x-token}]}
      principal: {id: {claim: sub}, roles: {claim: roles}, attr: {host: {expr: request.host}}}
  ownedHeaders: [x-authz-principal, x-authz-roles]
  routes:
    - match: {path: "/expenses/{id}", hosts: [api.example.com]}
      identity: bearer
      actions: {GET: read, PATCH: update, DELETE: delete, HEAD: newline, PUT: explode}
      resource:
        kind: expense
        id: "{id}"
        attr:
          ownerId: {query: owner, default: alice}
          region: {claim: region, optional: true}
          level: {claim: level, default: 3.0}
          status: OPEN
          host: {expr: request.host + path.id}
          amount: {expr: "claims.?amount"}
      allow:
        headers:
          x-authz-principal: {expr: principal.id}
          x-authz-roles: {expr: principal.roles}
          x-basis: {expr: outputs.basis}
          x-region: {claim: region, optional: true}
          x-expense: "{id}"
          x-owner: {query: owner, default: nobody}
          x-why: {expr: 'reason + decision.policy + route.id + resource.id + action'}
          x-fixed: always
        removeHeaders: [authorization]
      deny: {headers: {x-denial: {expr: 'outputs.?reason.orValue(reason + path.id + claims.sub)'}}}
    - match: {path: "/search/{kind}"}
      identity: bearer
      actions: {GET: look}
      resource:
        kind: "{kind}"
        id: {query: id}
        scope: {query: scope, default: ""}
        attr: {kind: "{kind}"}
      allow:
        headers:
          x-id: {query: id}
          x-sub: {claim: sub}
          x-kind: {expr: path.kind}
          x-region: {claim: region, optional: true}
    - match: {path: /anywhere}
      identity: anywhere
      anonymous: allow
      actions: {GET: look, POST: create}
      resource: {kind: expense, id: "1", attr: {amount: {expr: "body.?amount"}}}
      allow: {responseHeaders: {x-policy: {expr: decision.policy}}}
    - match: {path: /changing}
      identity: changing
      action: look
      resource: {kind: expense, id: "1"}
      allow: {headers: {x-host: {expr: principal.attr.host}}}
    - match: {path: "/open/{name}"}
      identity: anonymous
      action: look
      resource: {kind: expense, id: "{name}"}
      allow: {headers: {x-name: "<{name}>", x-authz-principal: {expr: principal.id}}}
    - match: {path: "/numbers/{number:int}"}
      identity: bearer
      actions: {GET: look}
      resource: {kind: expense, id: "{number}"}
"""

USUAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an allow with headers of all kinds": ("GET", "/expenses/7?owner=alice", {}),
    "an allow without a query": ("PATCH", "/expenses/7", {}),
    "an allow of a user with optional claims": (
        "GET",
        "/expenses/7",
        {"level": 4, "amount": 2},
    ),
    "a denial with an output": ("GET", "/expenses/7?owner=bob", {}),
    "a denial without a rule": ("DELETE", "/expenses/7", {}),
    "an allow without an optional header": ("GET", "/search/expense?id=9", {"region": None}),
    "texts from the query": ("GET", "/search/expense?id=9", {}),
    "a kind that has no policy": ("GET", "/search/other?id=9", {}),
    "headers for the client": ("GET", "/anywhere", {}),
    "a principal of the request": ("GET", "/changing", {}),
    "a route for everybody": ("GET", "/open/door", {}),
}
"""What a short way answers: method, target, claims."""

UNUSUAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an output that cannot be a header": ("HEAD", "/expenses/7", {}),
    "an output that is not there": ("GET", "/expenses/7", {"roles": ["admin"]}),
    "a condition that fails": ("PUT", "/expenses/7", {}),
    "a parameter that is there twice": ("GET", "/expenses/7?owner=alice&owner=bob", {}),
    "a parameter that is not there": ("GET", "/search/expense", {}),
    "a parameter that is empty": ("GET", "/search/expense?id=", {}),
    "a query that cannot be read": ("GET", "/expenses/7?owner=%zz", {}),
    "a capture that is converted": ("GET", "/numbers/7", {}),
    "a capture that is empty": ("GET", "/expenses/", {}),
    "a claim that is no text": ("GET", "/search/expense?id=9", {"sub": 7}),
    "a path with a fault": ("GET", "/expenses/..%2f7", {}),
    "a method of no route": ("POST", "/expenses/7", {}),
    "a very long value": ("GET", "/expenses/" + "7" * 600, {}),
    "no path at all": ("GET", "*", {}),
}


@dataclass(frozen=True)
class Pair:
    """A service, once with short ways and once without."""

    short: Authorizer
    steps: Authorizer
    answered: list[bool]
    """Of the requests so far: whether a short way has answered."""

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Ask both, after what both have to remember has been remembered."""
        for _ in range(3):
            self.short.check(request), self.steps.check(request)
        short, steps = self.short.check(request), self.steps.check(request)
        assert isinstance(short, bytes)
        assert isinstance(steps, bytes)
        return short, steps


def made_alike(made: App, patch: pytest.MonkeyPatch) -> Authorizer:
    patch.setattr(made.authorizer, "_next_id", lambda: DECISION)
    return made.authorizer


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run the service twice, in one of them without short ways, both with functions of the engine."""
    answered: list[bool] = []
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.decider.USES", 1)
        contexts = [
            service(tmp_path_factory.mktemp(name), policy=POLICY, configuration=CONFIGURATION)
            for name in ("short", "steps")
        ]
        short, steps = (made_alike(runner.run(context.__aenter__()), patch) for context in contexts)
        way = short._short_answer

        def watched(*arguments: Any) -> bytes | None:
            answer = way(*arguments)
            answered.append(answer is not None)
            return answer

        patch.setattr(short, "_short_answer", watched)
        patch.setattr(steps, "_short_answer", lambda *_: None)
        yield Pair(short, steps, answered)
        for context in contexts:
            runner.run(context.__aexit__(None, None, None))


def request_of(case: tuple[str, str, dict[str, Any]], *, raw: bool = False) -> bytes:
    method, target, claims = case
    bearer = user_token(**{"region": "EMEA", **claims})
    return check_request(method, URL + target, {"x-token": bearer, "accept": "*/*"}, token=bearer, raw=raw)


@pytest.mark.parametrize("raw", [False, True], ids=["joined headers", "raw headers"])
@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_is_answered_by_the_short_way(name: str, raw: bool, pair: Pair) -> None:
    """The short way answers, allow or denial, and byte for byte as the steps do."""
    short, steps = pair.ask(request_of(USUAL[name], raw=raw))
    assert pair.answered[-1]
    assert short == steps


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_not_is_left_to_the_steps(name: str, pair: Pair) -> None:
    """Whatever is out of the ordinary is not for the short way, and the answer is that of the steps."""
    short, steps = pair.ask(request_of(UNUSUAL[name]))
    assert not pair.answered[-1]
    assert short == steps


def test_a_short_way_sees_what_changes(pair: Pair) -> None:
    """A token that is not remembered, or no token, is no token of somebody who came before."""
    good = request_of(USUAL["an allow without a query"])
    pair.ask(good)
    for request in (
        check_request("PATCH", URL + "/expenses/7"),
        check_request("PATCH", URL + "/expenses/7", token=user_token() + "x"),
        check_request("PATCH", URL + "/expenses/7", token=user_token(exp=1)),
        check_request("PATCH", URL + "/expenses/7", {"authorization": "Basic YTpi"}),
    ):
        short, steps = pair.ask(request)
        assert not pair.answered[-1]
        assert short == steps


def test_an_answer_is_counted_once(pair: Pair) -> None:
    """Allows and denials of a short way are counted as those of the steps are."""
    for name in ("an allow without a query", "a denial with an output", "an output that cannot be a header"):
        before = dict(pair.short.answered), dict(pair.steps.answered)
        pair.ask(request_of({**USUAL, **UNUSUAL}[name]))
        after = dict(pair.short.answered), dict(pair.steps.answered)
        short, steps = (
            {code: new[code] - old[code] for code in new if new[code] != old[code]}
            for old, new in zip(before, after, strict=True)
        )
        assert short == steps
        assert sum(short.values()) == 4


texts = st.one_of(
    st.sampled_from(["alice", "bob", "7", "", "a,b", "é", "a b", "x" * 600]), st.text(max_size=8)
)
headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["x-authz-roles", "X-Authz-Roles", "x_authz_roles", "cookie", "host", "x-token", "accept"]
        ),
        texts,
    ),
    max_size=3,
)
claims = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.sampled_from(["alice", "bob", "", 7]),
        "roles": st.sampled_from([["user"], ["admin"], ["user", "admin"], [], "user", None]),
        "region": st.one_of(texts, st.integers(0, 9), st.just(["EMEA"]), st.just({"a": 1})),
        "level": st.one_of(st.integers(0, 9), st.booleans(), st.none()),
        "amount": st.one_of(st.integers(0, 9), st.none()),
    },
)
targets = st.one_of(
    st.sampled_from(["/expenses/", "/search/", "/open/", "/numbers/", "/anywhere", "/changing", "/"]).flatmap(
        lambda path: st.builds(
            lambda name, query: path + name + query,
            st.one_of(st.sampled_from(["7", "expense", "a%20b", "a/b", ".."]), st.just("")),
            st.one_of(st.just(""), st.builds(lambda a, b: f"?owner={a}&id={b}", texts, texts)),
        )
    ),
    st.text(max_size=12).map(lambda text: "/" + text),
)


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["GET", "PATCH", "DELETE", "HEAD", "PUT", "POST", "OPTIONS", "get", ""]),
    target=targets,
    more=headers,
    told=claims,
    raw=st.booleans(),
    authority=st.sampled_from(
        ["api.example.com", "API.example.com.", "api.example.com:443", "other.example.com"]
    ),
)
def test_both_ways_answer_alike(
    pair: Pair,
    method: str,
    target: str,
    more: list[tuple[str, str]],
    told: dict[str, Any],
    raw: bool,
    authority: str,
) -> None:
    """For any request whatsoever the two authorizers give the same bytes."""
    request = check_request(method, f"https://{authority}{target}", more, token=user_token(**told), raw=raw)
    short, steps = pair.ask(request)
    assert short == steps
