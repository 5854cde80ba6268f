"""Queries, cookies, bodies and peers are read in the one way that no upstream can disagree with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.facts import (
    MAX_QUERY_PARAMETERS,
    FactError,
    Facts,
    parse_cookies,
    parse_query,
    read_body,
    split_spiffe_id,
)
from extauthz.request import HttpRequest, Peer

CASES = Path(__file__).parents[1] / "cases" / "slots"
REQUESTS = yaml.safe_load((CASES / "requests.yaml").read_text(encoding="utf-8"))
BODIES = yaml.safe_load((CASES / "bodies.yaml").read_text(encoding="utf-8"))


def plain(found: Any) -> dict[str, list[str]]:
    return {name: list(values) for name, values in found.items()}


@pytest.mark.parametrize("case", REQUESTS["queries"], ids=lambda case: case["text"])
def test_queries(case: dict[str, Any]) -> None:
    """Queries are read as forms; what is no form is a failure."""
    if "fails" in case:
        with pytest.raises(FactError, match=case["fails"]):
            parse_query(case["text"])
    else:
        assert plain(parse_query(case["text"])) == case["gives"]


def test_a_query_has_a_limited_number_of_parameters() -> None:
    """A thousand parameters are read, more are refused."""
    assert len(parse_query("&".join(f"a{i}" for i in range(MAX_QUERY_PARAMETERS)))) == MAX_QUERY_PARAMETERS
    with pytest.raises(FactError, match="more than 1000 parameters"):
        parse_query("&" * MAX_QUERY_PARAMETERS)


@given(st.text(alphabet="ab=&;+%2fc3a9", max_size=30))
def test_a_query_is_read_or_refused(text: str) -> None:
    """Any query is read as text, or is a failure of the request and nothing else."""
    try:
        found = parse_query(text)
    except FactError:
        assert "%" in text
    else:
        assert all(isinstance(value, str) for values in found.values() for value in values)


@pytest.mark.parametrize("case", REQUESTS["cookies"], ids=lambda case: str(case["lines"]))
def test_cookies(case: dict[str, Any]) -> None:
    """Cookies are pairs divided by semicolons; each value of a name is kept."""
    assert plain(parse_cookies(case["lines"])) == case["gives"]


@pytest.mark.parametrize("case", REQUESTS["spiffe"], ids=lambda case: repr(case["text"]))
def test_spiffe_ids(case: dict[str, Any]) -> None:
    """Only a SPIFFE ID to the letter has a trust domain, only Istio's form a namespace and an account."""
    assert list(split_spiffe_id(case["text"])) == case["gives"]


def test_a_peer_without_a_certificate_has_no_trust_domain() -> None:
    """What the client's end did not prove is empty."""
    facts = Facts(HttpRequest(source=Peer("10.0.0.1", 1)))
    assert (facts.peer.principal, facts.peer.trust_domain, facts.peer.address) == ("", "", "10.0.0.1")


@pytest.mark.parametrize("case", BODIES, ids=lambda case: case["why"])
def test_bodies(case: dict[str, Any]) -> None:
    """A body is JSON as a whole, or a failure that says what kept it from being read."""
    headers = case.get("headers", {})
    pairs = list(headers.items()) if isinstance(headers, dict) else [(name, value) for name, value in headers]
    pairs += [
        (name, case[key])
        for name, key in (("content-type", "type"), ("content-length", "length"))
        if key in case
    ]
    request = HttpRequest(
        method=case.get("method", "POST"),
        headers=pairs,
        body=case["body"].encode(),
        size=case.get("size", -1),
        body_truncated=case.get("truncated", False),
    )
    if "fails" in case:
        with pytest.raises(FactError) as failed:
            read_body(request, 64)
        assert failed.value.reason == case["fails"]
    else:
        assert read_body(request, 64) == case["gives"]


def test_a_deep_body_is_refused() -> None:
    """Nesting is limited, so that nothing that looks at a body later can run out of stack."""
    text = b"[" * 100 + b"]" * 100
    request = HttpRequest(method="POST", headers=[("content-type", "application/json")], body=text)
    with pytest.raises(FactError, match="nested deeper"):
        read_body(request, 1000)


def test_what_takes_work_is_done_once() -> None:
    """A late fact is computed when it is first asked for, and then kept."""
    facts = Facts(HttpRequest(target="/?a=1"))
    assert "query" not in vars(facts)
    assert facts.query is facts.query
    assert "query" in vars(facts)
    assert "body" not in vars(facts)


def test_what_is_given_twice_is_there_and_cannot_be_looked_at() -> None:
    """The map of a query knows repeated names, and refuses every way of looking at their values."""
    query: Any = Facts(HttpRequest(target="/?a=1&b=1&b=2")).query
    assert ("b" in query, len(query), list(query)) == (True, 2, ["a", "b"])
    assert (query["a"], query.get("a"), query.get("c", "none")) == ("1", "1", "none")
    looks = (
        lambda: query["b"],
        lambda: query.get("b"),
        query.items,
        query.values,
        lambda: dict(query)["b"] == "1",
    )
    for look in looks:
        with pytest.raises(FactError, match="more than once"):
            look()
