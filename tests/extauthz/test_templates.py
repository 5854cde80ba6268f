"""Templates: however their slots fail, a denial stays one, and an allow says what it must."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Output
from extauthz.facts import DecisionFacts, Facts
from extauthz.reasons import reason
from extauthz.request import HttpRequest
from extauthz.response import DecisionMetadata, GrpcCode
from extauthz.slots import MISSING, Slot, SlotError
from extauthz.templates import (
    AllowTemplate,
    AmbiguousQuery,
    DenyTemplate,
    OwnedHeaders,
    ProblemTemplate,
    named_outputs,
    query_aliases,
)
from extauthz.wire import encode


def constant(value: object) -> Slot:
    return Slot("constant", lambda _: value)


def fail(_: Facts) -> object:
    raise SlotError("mapping.denied", "nothing is there")


FAILING = Slot("failing", fail)


def facts(*headers: tuple[str, str], target: str = "/") -> Facts:
    made = Facts(HttpRequest(target=target, headers=headers))
    made.decision = DecisionFacts("01J")
    return made


texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=600).map(str.strip)
told = DecisionMetadata("01J", "expenses", "read", "policy.allowed", "resource.expense.vdefault")


@given(
    st.dictionaries(st.sampled_from(["x-user", "x-roles", "x-more"]), st.lists(texts, max_size=3).map(tuple)),
    st.lists(st.sampled_from(["x_user-id", "x.user_id", "accept"]), unique=True),
    st.builds(DecisionMetadata, st.text(max_size=30), st.text(), st.text(max_size=600), st.text(), st.text()),
)
def test_an_answer_is_written_as_it_is_filled(
    headers: dict[str, tuple[str, ...]], sent: list[str], metadata: DecisionMetadata
) -> None:
    """Writing the answer of a plain route gives the bytes of the answer made first and encoded then."""
    slots = tuple((name, constant(values)) for name, values in headers.items())
    template = AllowTemplate(
        OwnedHeaders(frozenset({"x-user", "x-user-id"})), slots, remove_headers=("x-drop",)
    )
    asked = facts(*((name, "1") for name in sent))
    assert template.plain is not None
    made = template.fill(asked, metadata)
    assert (
        template.write(asked, metadata) == encode(made) == encode(made._replace(metadata=metadata._asdict()))
    )


@pytest.mark.parametrize(
    "template",
    [
        AllowTemplate(OwnedHeaders(frozenset()), response_headers=(("x-more", constant(("a",))),)),
        AllowTemplate(OwnedHeaders(frozenset()), set_query=(("q", constant("1")),)),
        AllowTemplate(OwnedHeaders(frozenset()), remove_query=("q",)),
    ],
    ids=["response", "set query", "remove query"],
)
def test_more_than_headers_for_the_upstream_is_written_too(template: AllowTemplate) -> None:
    """A route that changes the query or the response is not plain, and its answers say all of it."""
    assert template.plain is None
    assert template.write(facts(), told) == encode(template.fill(facts(), told))


def test_each_owned_header_is_set_or_removed_with_its_plain_aliases() -> None:
    """What an answer does not set it removes, and the spellings with ``_`` and ``.`` in any case."""
    owned = OwnedHeaders(frozenset({"x-user", "x-user-id"}))
    assert owned.removals(["x-user"]) == ("x-user-id", "x.user", "x.user.id", "x_user", "x_user_id")


@pytest.mark.parametrize(
    ("name", "is_alias"),
    [
        ("x_user-id", True),
        ("x.user_id", True),
        ("x-user-id", False),
        ("x-user.idx", False),
        ("user_id", False),
        ("accept", False),
    ],
)
def test_mixed_aliases_are_recognised_when_seen(name: str, is_alias: bool) -> None:
    """A header that some upstream would take for an owned one is an alias, the owned one itself is not."""
    owned = OwnedHeaders(frozenset({"x-user-id"}))
    assert owned.aliases_in(("accept", name)) == ([name] if is_alias else [])


def test_an_allow_whose_header_fails_is_no_allow() -> None:
    """A header that has no value for want of facts stops the answer."""
    template = AllowTemplate(OwnedHeaders(frozenset({"x-user"})), headers=(("x-user", FAILING),))
    with pytest.raises(SlotError):
        template.fill(facts(), {})


def test_several_values_are_several_lines() -> None:
    """The first value replaces what the client sent, the others are added."""
    template = AllowTemplate(
        OwnedHeaders(frozenset({"x-group"})), headers=(("x-group", constant(("a", "b"))),)
    )
    assert [tuple(header) for header in template.fill(facts(), {}).headers] == [
        ("x-group", "a", False),
        ("x-group", "b", True),
    ]


def test_a_parameter_without_a_value_is_removed() -> None:
    """The client's own copy of a parameter that the route sets never stays."""
    template = AllowTemplate(OwnedHeaders(frozenset()), set_query=(("region", constant(MISSING)),))
    answer = template.fill(facts(target="/?region=NA"), {})
    assert (answer.set_query, answer.remove_query) == ((), ("region",))


@pytest.mark.parametrize("query", ["a=1;region=NA", "%ff=1", "a=%3B;"])
def test_a_query_that_upstreams_read_differently_is_refused(query: str) -> None:
    """Semicolons, and names that do not decode, leave open what an upstream would see."""
    with pytest.raises(AmbiguousQuery):
        query_aliases(query, frozenset({"region"}))


def test_a_denial_survives_its_decoration() -> None:
    """Headers, body and members that fail are left out; status, code and reason stay."""
    template = DenyTemplate(
        status=451,
        headers=(("x-denial-reason", FAILING),),
        body=FAILING,
        problem=ProblemTemplate(
            "https://errors.example.com/", (("title", FAILING), ("detail", constant("\ud800")))
        ),
    )
    answer = template.fill(facts(), reason("policy.denied"), {})
    assert (answer.status, answer.code) == (451, GrpcCode.PERMISSION_DENIED)
    assert [header.name for header in answer.headers] == ["content-type"]
    assert json.loads(answer.body) == {
        "type": "https://errors.example.com/policy.denied",
        "title": reason("policy.denied").title,
        "status": 451,
        "reason": "policy.denied",
        "decisionId": "01J",
    }


def test_a_configured_status_is_for_policies_only() -> None:
    """Other refusals keep the status that the protocol gives them, and 401 its own gRPC code."""
    answer = DenyTemplate(status=404).fill(facts(), reason("authn.missing"), {})
    assert (answer.status, answer.code) == (401, GrpcCode.UNAUTHENTICATED)


def test_outputs_have_the_names_of_their_rules_and_keys() -> None:
    """A rule's name goes before a key, the first rule before later ones, and failed entries are left out."""
    outputs = [
        Output("resource.doc.vdefault#first", "read", {"reason": "one", "second": "key"}),
        Output("resource.doc.vdefault#second", "read", {"reason": "two"}),
        Output("resource.doc.vdefault#third", "read", None, "division by zero"),
    ]
    assert named_outputs(outputs) == {
        "first": {"reason": "one", "second": "key"},
        "second": {"reason": "two"},
        "reason": "one",
    }


def test_an_unknown_reason_denies() -> None:
    """A code that nobody has entered in the table is a 403, never an allow."""
    assert reason("something.new").status == 403
