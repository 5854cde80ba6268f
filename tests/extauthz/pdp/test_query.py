"""Requests in the query string, as Cerbos's gateway reads them."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.pdp import admin_messages, query
from extauthz.pdp.admin_methods import METHODS
from extauthz.pdp.errors import Code, PdpError


def read(cls: type, text: str) -> object:
    return query.decode(cls, parse_qs(text, keep_blank_values=True))


def test_fields_by_either_name() -> None:
    """A field has its name in JSON or in protobuf, a list is given by repeating, other names are ignored."""
    found = read(
        admin_messages.ListPoliciesRequest,
        "includeDisabled=T&name_regexp=a.*&policyId=x&policyId=y%2Fz&pretty&foo=1",
    )
    assert found == admin_messages.ListPoliciesRequest(True, "a.*", policy_id=("x", "y/z"))
    assert read(admin_messages.PurgeStoreRevisionsRequest, "keepLast=4294967295").keep_last == (1 << 32) - 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cls", "text", "told"),
    [
        (
            admin_messages.ListPoliciesRequest,
            "includeDisabled=maybe",
            'parsing field "include_disabled": strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            admin_messages.PurgeStoreRevisionsRequest,
            "keepLast=x",
            'parsing field "keep_last": strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (
            admin_messages.PurgeStoreRevisionsRequest,
            "keepLast=4294967296",
            'parsing field "keep_last": strconv.ParseUint: parsing "4294967296": invalid syntax',
        ),
        (
            admin_messages.ListPoliciesRequest,
            "includeDisabled=true&includeDisabled=false",
            'too many values for field "include_disabled": true, false',
        ),
    ],
)
def test_what_is_no_value(cls: type, text: str, told: str) -> None:
    """A value that does not fit is refused in the words of Cerbos's gateway."""
    with pytest.raises(PdpError) as refused:
        read(cls, text)
    assert (refused.value.code, refused.value.message) == (Code.INVALID_ARGUMENT, told)


NAMES = sorted({field for method in METHODS if method.in_query for field in method.request._fields})


@given(
    st.sampled_from([method.request for method in METHODS if method.in_query]),
    st.dictionaries(st.sampled_from([*NAMES, "other"]), st.lists(st.text(), min_size=1, max_size=3)),
)
def test_anything_is_read_or_refused(cls: type, values: dict[str, list[str]]) -> None:
    """Whatever stands in a query, it makes a request or a refusal of bounded length."""
    refusal = None
    try:
        query.decode(cls, values)
    except PdpError as error:
        refusal = error
    assert refusal is None or (refusal.code is Code.INVALID_ARGUMENT and len(refusal.message) < 400)
