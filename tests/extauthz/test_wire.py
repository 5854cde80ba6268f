"""CheckRequests are read as Envoy wrote them, and answers are written as Envoy must read them.

The other end of every test is envoy-data-plane's own codec, which shares no code with ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    HeaderMap,
    HeaderValue,
    HeaderValueOptionHeaderAppendAction,
    Pipe,
)
from envoy_data_plane.envoy.service.auth import v3 as auth
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz import wire
from extauthz.request import HttpRequest, Limits, Peer
from extauthz.response import Allow, Answer, Deny, Failure, GrpcCode, Header
from tests.extauthz.requests import check_request, grpc_request

if TYPE_CHECKING:
    from collections.abc import Collection

CASES = Path(__file__).parents[1] / "cases"
HEADERS: list[dict[str, Any]] = yaml.safe_load((CASES / "headers.yaml").read_text())

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB+/Q==\n-----END CERTIFICATE-----\n"


# --- requests -----------------------------------------------------------------------------------------------


def test_a_typical_request_is_read() -> None:
    """Method, path, host, query, headers and what else Envoy says of a request arrive."""
    request = wire.decode(
        check_request(
            "PATCH", "https://API.example.com:8443/api/expenses/%34%32?x=1&y=%2F", {"accept": "*/*"}
        )
    )
    assert (request.method, request.scheme, request.host, request.port) == (
        "PATCH",
        "https",
        "api.example.com",
        8443,
    )
    assert request.target == "/api/expenses/%34%32?x=1&y=%2F"
    assert (request.path, request.segments) == ("/api/expenses/42", ("api", "expenses", "42"))
    assert request.query_string == "x=1&y=%2F"
    assert (request.path_faults, request.faults) == ((), ())
    assert request.header("accept") == "*/*"
    assert set(request.header_names) == {":authority", ":method", ":path", ":scheme", "accept"}
    assert (request.id, request.protocol, request.size) == ("1234567890123456789", "HTTP/1.1", -1)
    assert request.time == 1790856000.25
    assert request.source == Peer("192.0.2.10", 51234)
    assert request.destination == Peer("198.51.100.1", 8443)
    assert (request.body, request.body_truncated) == (b"", False)
    assert (request.context, request.metadata, request.route_metadata, request.sni) == ({}, {}, {}, "")


def test_what_is_read_late_is_read_once() -> None:
    """An attribute that is read when first asked for is the same object ever after."""
    request = wire.decode(check_request(metadata={"n": {"a": 1}}))
    assert request.metadata is request.metadata
    assert request.headers is request.headers
    with pytest.raises(AttributeError, match="nothing"):
        request.nothing  # type: ignore[attr-defined]  # noqa: B018  # that is the test


def test_a_grpc_library_without_envoy_is_understood() -> None:
    """Without headers, body, scheme, host and id (gRFC A92) a request is as good as another."""
    request = wire.decode(grpc_request("/pkg.Service/Method"))
    assert (request.method, request.path, request.segments) == (
        "POST",
        "/pkg.Service/Method",
        ("pkg.Service", "Method"),
    )
    assert (request.path_faults, request.faults) == ((), ())
    assert (request.host, request.port, request.scheme, request.id) == ("", None, "", "")
    assert (request.size, request.protocol, request.body) == (-1, "HTTP/2", b"")
    assert (request.headers, request.header_names, request.header("authorization")) == ({}, (), None)
    assert request.source.principal == "spiffe://example.org/client"


def test_metadata_of_a_grpc_library_is_understood() -> None:
    """Such a library sends the call's metadata in `header_map`."""
    fields = HeaderMap(headers=[HeaderValue(key="authorization", raw_value=b"Bearer a")])
    assert wire.decode(grpc_request(header_map=fields)).header("authorization") == "Bearer a"


@pytest.mark.parametrize("case", HEADERS, ids=[case["name"] for case in HEADERS])
@pytest.mark.parametrize("form", ["joined", "told_apart"])
def test_headers_are_read_as_the_table_says(case: dict[str, Any], form: str) -> None:
    """Joined or told apart, headers have the values and the ambiguity that the table gives."""
    fields = [(name, _value(value)) for name, value in case["fields"]]
    request = wire.decode(check_request(headers=fields, raw=form == "told_apart"))
    expected: dict[str, Any] = case[form]
    assert {name for name in request.header_names if not name.startswith(":")} == expected.keys()
    for name, value in expected.items():
        assert request.header(name) in ([value] if value is not None else case["joined_any_of"])
        assert request.headers[name] == request.header(name)
        values = case.get("values", {}).get(name) if form == "told_apart" else None
        assert request.header_values(name) == tuple(values or [request.header(name)])
    ambiguous = case.get("ambiguous", {}).get(form, [])
    assert [name for name in expected if request.ambiguous(name)] == ambiguous
    assert request.header_values("x-none") == ()
    assert not request.ambiguous("x-none")


def _value(value: str | dict[str, str]) -> str | bytes:
    return value if isinstance(value, str) else bytes.fromhex(value["bytes"])


def test_header_map_values_that_are_text_are_read_too() -> None:
    """A HeaderValue may have `value` instead of `raw_value`."""
    fields = HeaderMap(headers=[HeaderValue(key="x-a", value="1"), HeaderValue(key="x-a", raw_value=b"2")])
    assert wire.decode(check_request(http={"header_map": fields})).header_values("x-a") == ("1", "2")


def test_both_forms_together_must_agree() -> None:
    """Headers sent joined and told apart are fine as long as they say the same."""
    fields = [("x-a", "1"), ("x-a", "2"), ("authorization", "Bearer a")]
    request = wire.decode(check_request(headers=fields, both=True))
    assert request.faults == ()
    assert request.header_values("x-a") == ("1", "2")


def test_both_forms_together_add_up() -> None:
    """A header that only one of the two forms has is there."""
    fields = HeaderMap(headers=[HeaderValue(key="x-a", raw_value=b"1")])
    request = wire.decode(check_request(headers={"x-b": "2"}, http={"header_map": fields}))
    assert (request.faults, request.header("x-a"), request.header("x-b")) == ((), "1", "2")


def test_forms_that_contradict_each_other_are_a_fault() -> None:
    """Whichever of two different Authorization headers is right, the request is refused."""
    fields = HeaderMap(headers=[HeaderValue(key="Authorization", raw_value=b"Bearer a")])
    request = wire.decode(check_request(token="b", http={"header_map": fields}))
    assert request.faults == ("header.disagreement",)


CONTRADICTIONS = [
    ({"path": "/other"}, ("path.disagreement",), ()),
    ({"path": "/"}, (), ()),
    ({"host": "other.example.com"}, (), ("host.disagreement",)),
    ({"host": "API.example.com."}, (), ()),
    ({"host": "api.example.com:444"}, (), ("host.disagreement",)),
    ({"host": "", "path": "", "method": ""}, (), ()),
    ({"headers": [("host", "other.example.com")]}, (), ("host.disagreement",)),
    ({"headers": [("host", "api.example.com")]}, (), ()),
]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(("given_", "path_faults", "faults"), CONTRADICTIONS)
def test_fields_and_pseudo_headers_must_agree(
    given_: dict[str, Any],
    path_faults: tuple[str, ...],
    faults: tuple[str, ...],
    raw: bool,
) -> None:
    """A path or host that the headers contradict is a fault; what is missing is taken from the headers."""
    headers = given_.get("headers", ())
    fields = {name: value for name, value in given_.items() if name != "headers"}
    request = wire.decode(check_request("GET", "https://api.example.com/", headers, raw=raw, http=fields))
    assert (request.path_faults, request.faults) == (path_faults, faults)
    if not path_faults + faults:
        assert (request.method, request.path, request.host) == ("GET", "/", "api.example.com")


def test_a_path_that_is_not_text_is_refused_where_it_shows() -> None:
    """Envoy puts `!` for raw bytes in `http.path`; the bytes in `header_map` betray it."""
    fields = HeaderMap(headers=[HeaderValue(key=":path", raw_value=b"/adm\xffin")])
    request = wire.decode(
        check_request(url="https://api.example.com/adm!in", http={"header_map": fields, "headers": {}})
    )
    assert "path.disagreement" in request.path_faults


TARGETS = [
    ("https://api.example.com", "/", ()),
    ("https://user@api.example.com/a", "/a", ("host.userinfo",)),
    ("https://[2001:DB8::1]:443/a", "/a", ()),
    ("https://api.example.com/a?b", "/a", ()),
]


@pytest.mark.parametrize(("url", "path", "faults"), TARGETS)
def test_urls_are_taken_apart(url: str, path: str, faults: tuple[str, ...]) -> None:
    """User names are a fault, addresses are hosts, queries are no part of the path."""
    request = wire.decode(check_request(url=url))
    assert (request.path, request.faults) == (path, faults)


@pytest.mark.parametrize("method", ["get", "TRACE", "PROPFIND", "M-SEARCH"])
def test_unusual_methods_are_kept(method: str) -> None:
    """A method is what was sent, in its own case."""
    request = wire.decode(check_request(method))
    assert (request.method, request.faults) == (method, ())


def test_connect_has_no_path() -> None:
    """A CONNECT without a path is refused, whatever the routes."""
    fields = {":authority": "api.example.com:443", ":method": "CONNECT"}
    bare = auth.AttributeContextHttpRequest(method="CONNECT", host="api.example.com:443", headers=fields)
    data = auth.CheckRequest(
        attributes=auth.AttributeContext(request=auth.AttributeContextRequest(http=bare))
    )
    assert wire.decode(bytes(data)).path_faults == ("path.not_absolute",)


def test_a_method_override_changes_nothing() -> None:
    """`X-HTTP-Method-Override` is a header like others."""
    request = wire.decode(check_request("POST", headers={"x-http-method-override": "DELETE"}))
    assert request.method == "POST"


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("truncated", [False, True])
def test_a_cut_body_is_known(truncated: bool, raw: bool) -> None:
    """Envoy's partial-body header tells whether the body is whole."""
    request = wire.decode(check_request("POST", body='{"a":', truncated=truncated, raw=raw))
    assert (request.body, request.body_truncated) == (b'{"a":', truncated)


def test_a_packed_body_is_bytes() -> None:
    """With `pack_as_bytes` the body arrives as it was sent."""
    request = wire.decode(check_request("POST", raw_body=b"\xff\x00{"))
    assert (request.body, request.size) == (b"\xff\x00{", 3)


def test_context_metadata_and_tls_are_read() -> None:
    """Context extensions, both kinds of metadata, peers and server name arrive as plain values."""
    metadata = {"envoy.filters.http.jwt_authn": {"payload": {"sub": "a", "n": 1, "x": [None, True, 1.5, {}]}}}
    request = wire.decode(
        check_request(
            context={"tenant": "t1"},
            metadata=metadata,
            route_metadata={"r": {"k": "v"}},
            sni="api.example.com",
            principal="spiffe://cluster.local/ns/a/sa/b",
            certificate=CERTIFICATE,
            service="web",
            client="2001:db8::9",
        )
    )
    assert request.context == {"tenant": "t1"}
    assert request.metadata == metadata
    assert type(request.metadata["envoy.filters.http.jwt_authn"]["payload"]["n"]) is float
    assert request.route_metadata == {"r": {"k": "v"}}
    assert request.sni == "api.example.com"
    assert request.source == Peer(
        "2001:db8::9", 51234, "spiffe://cluster.local/ns/a/sa/b", CERTIFICATE, "web", {}
    )


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address(pipe=Pipe(path="/run/app.sock")), "/run/app.sock"),
        (Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name="inner")), "inner"),
        (Address(), ""),
        (None, ""),
    ],
)
def test_peers_without_an_ip_address(address: Address | None, text: str) -> None:
    """A Unix socket shows its path, an internal listener its name, and nothing shows nothing."""
    attributes = auth.AttributeContext(
        source=auth.AttributeContextPeer(address=address, labels={"app": "web"}),
        request=auth.AttributeContextRequest(http=auth.AttributeContextHttpRequest(method="GET", path="/")),
    )
    request = wire.decode(bytes(auth.CheckRequest(attributes=attributes)))
    assert request.source == Peer(text, 0, labels={"app": "web"})
    assert request.time == 0.0


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("limits", "faults"),
    [
        (Limits(), ()),
        (Limits(headers=5), ()),
        (Limits(headers=4), ("header.too_many",)),
        (Limits(header_bytes=100), ("header.too_large",)),
        (Limits(header_bytes=131), ("header.too_large",)),
        (Limits(header_bytes=132), ()),
    ],
)
def test_headers_are_bounded(limits: Limits, faults: tuple[str, ...], raw: bool) -> None:
    """More headers, or more bytes of them, than allowed is a fault; the size of the body does not count."""
    data = check_request(url="https://h/", headers={"x-a": "1" * 60}, raw_body=b"0" * 999, raw=raw)
    limits = Limits(headers=limits.headers + 1, header_bytes=limits.header_bytes)  # the partial-body header
    assert wire.decode(data, limits).faults == faults


def test_a_long_path_is_a_fault() -> None:
    """A path beyond its limit is refused, not an error."""
    data = check_request(url="https://h/" + "a" * 9000)
    assert wire.decode(data).path_faults == ("path.too_long",)


NOT_REQUESTS = [
    b"",
    b"\x0a\x00",
    b"\xff",
    b"\x0a\x05abc",
    b"not a request",
    bytes(auth.CheckRequest(attributes=auth.AttributeContext(source=auth.AttributeContextPeer()))),
    check_request()[:-3],
]


@pytest.mark.parametrize("data", NOT_REQUESTS)
def test_bytes_that_are_no_http_request_are_refused(data: bytes) -> None:
    """Garbage, truncated messages and the network filter's questions raise WireError."""
    with pytest.raises(wire.WireError):
        wire.decode(data)


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    """Any bytes either decode or raise WireError."""
    try:
        request = wire.decode(data)
    except wire.WireError:
        return
    assert request.path_faults or request.path.startswith("/") or request.method == "OPTIONS"


def test_metadata_nested_without_end_is_refused() -> None:
    """Metadata deeper than the codec goes is refused when the message is read, not when it is used."""
    nested: dict[str, Any] = {}
    for _ in range(60):
        nested = {"a": nested}
    with pytest.raises(wire.WireError):
        wire.decode(check_request(metadata={"n": nested}))


@pytest.mark.parametrize("name", ["method", "path", "host", "id"])
def test_text_that_is_not_utf8_is_refused(name: str) -> None:
    """A string field with other bytes is no protobuf string (Envoy replaces them; others may not)."""
    data = check_request(http={name: "needle"})
    with pytest.raises(wire.WireError):
        wire.decode(data.replace(b"needle", b"need\xffe"))


field_names = st.one_of(
    st.sampled_from(["accept", "Accept", "host", "cookie", "x-a", "x_a", ":path", "\u212aey", ""]),
    st.text(max_size=5),
)
bytes_or_text = st.one_of(st.text(max_size=8), st.binary(max_size=8))


@settings(max_examples=300)
@given(
    method=st.sampled_from(["GET", "POST", "get", ""]),
    authority=st.sampled_from(["api.example.com", "API.example.com.:443", "a@b", "[::1]:1", ""]),
    target=st.one_of(
        st.sampled_from(["/", "/a/b?c=d", "/a//b", "/%2e", ""]),
        st.text(max_size=8).map(lambda text: f"/{text}"),
    ),
    contradiction=st.sampled_from([{}, {}, {}, {"path": "/x"}, {"host": "x"}, {"method": "PUT"}]),
    headers=st.lists(st.tuples(field_names, bytes_or_text), max_size=4),
    form=st.sampled_from(["joined", "raw", "both"]),
    limits=st.sampled_from([Limits(), Limits(headers=5), Limits(header_bytes=300, path=3, segments=2)]),
)
def test_what_is_usual_is_read_as_everything_is(
    method: str,
    authority: str,
    target: str,
    contradiction: dict[str, str],
    headers: list[tuple[str, str | bytes]],
    form: str,
    limits: Limits,
) -> None:
    """The quick reading gives the request that the careful one gives, in every attribute."""
    if form == "joined":
        headers = [(name, value) for name, value in headers if isinstance(value, str)]
    data = check_request(
        method,
        f"https://{authority}{target}",
        headers,
        raw=form == "raw",
        both=form == "both" and all(isinstance(value, str) for _, value in headers),
        http=contradiction,
    )
    try:
        quick = wire.decode(data, limits)
    except wire.WireError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_read_usual", lambda *_: None)
        careful = wire.decode(data, limits)
    assert {name: getattr(quick, name) for name in ATTRIBUTES} == {
        name: getattr(careful, name) for name in ATTRIBUTES
    }
    for name in {*quick.header_names, "x-a", "authorization"}:
        assert quick.header(name) == careful.header(name)
        assert quick.header_values(name) == careful.header_values(name)
        assert quick.ambiguous(name) == careful.ambiguous(name)


ATTRIBUTES = sorted(name for name in HttpRequest.__slots__ if not name.startswith("_"))


def test_every_attribute_of_a_request_can_be_read() -> None:
    """Each attribute that is read late exists in the class it fills."""
    request = wire.decode(check_request(raw_body=b"1"))
    assert all(getattr(request, name) is not NotImplemented for name in wire.READ_LATE)


# --- answers ------------------------------------------------------------------------------------------------

names = st.from_regex(r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}\Z")
visible = st.characters(exclude_categories=["Cs", "Cc"])
values = st.text(visible, max_size=30).map(lambda text: text.strip(" \t"))
headers = st.lists(st.builds(Header, names, values, st.booleans()), max_size=5).map(tuple)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)
metadata = st.dictionaries(st.text(max_size=10), json_values, max_size=4)
answers: st.SearchStrategy[Answer] = st.one_of(
    st.builds(
        Allow,
        headers=headers,
        remove_headers=st.lists(names, max_size=3).map(tuple),
        response_headers=headers,
        set_query=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=2).map(tuple),
        remove_query=st.lists(st.text(max_size=9), max_size=2).map(tuple),
        metadata=metadata,
    ),
    st.builds(
        Deny,
        status=st.integers(300, 599),
        code=st.sampled_from([GrpcCode.PERMISSION_DENIED, GrpcCode.UNAUTHENTICATED]),
        headers=headers,
        body=st.text(max_size=50),
        metadata=metadata,
    ),
    st.builds(
        Failure, status=st.integers(400, 599), headers=headers, body=st.text(max_size=50), metadata=metadata
    ),
)

OVERWRITE = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
APPEND = HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD


def response(answer: Answer) -> auth.CheckResponse:
    """Read what was written with the independent codec."""
    return auth.CheckResponse.parse(wire.encode(answer))


def options(written: Collection[Any]) -> list[tuple[str, str, bool | None, int]]:
    """List name, value and both append fields of each header."""
    return [(each.header.key, each.header.value, each.append, each.append_action) for each in written]


def all_options(message: auth.CheckResponse) -> list[Any]:
    ok, denied, error = message.ok_response, message.denied_response, message.error_response
    of_ok = [*ok.headers, *ok.response_headers_to_add] if ok else []
    return of_ok + [each for part in (denied, error) if part for each in part.headers]


@given(answers)
def test_code_zero_goes_with_an_allow_and_nothing_else(answer: Answer) -> None:
    """Code 0 if and only if it is an Allow, and then `ok_response` alone is set."""
    message = response(answer)
    assert message.status is not None
    assert (message.status.code == 0) is isinstance(answer, Allow)
    parts = [message.ok_response, message.denied_response, message.error_response]
    assert [part is not None for part in parts] == [
        isinstance(answer, kind) for kind in (Allow, Deny, Failure)
    ]


@given(answers)
def test_a_denial_is_7_or_16_and_a_failure_14(answer: Answer) -> None:
    """Only codes that every Envoy takes for a denial, with an HTTP status that denies."""
    message = response(answer)
    assert message.status is not None
    if isinstance(answer, Deny):
        assert message.status.code in {7, 16}
        assert message.denied_response is not None
        assert message.denied_response.status is not None
        assert message.denied_response.status.code == answer.status
        assert message.denied_response.body == answer.body
    if isinstance(answer, Failure):
        assert message.status.code == 14
        assert message.error_response is not None
        assert message.error_response.status is not None
        assert message.error_response.status.code == answer.status
        assert message.error_response.body == answer.body


@given(answers)
def test_every_header_says_both_append_fields(answer: Answer) -> None:
    """`append` is there and says the same as `append_action`, on every header that is sent."""
    for option in all_options(response(answer)):
        assert (option.append, option.append_action) in {(False, OVERWRITE), (True, APPEND)}


@given(answers)
def test_the_first_value_for_the_upstream_always_replaces(answer: Answer) -> None:
    """To the upstream the first header of a name overwrites, further ones are added, none is lost."""
    if not isinstance(answer, Allow):
        return
    ok = response(answer).ok_response
    assert ok is not None
    seen: set[str] = set()
    for sent, option in zip(answer.headers, ok.headers, strict=True):
        assert option.header is not None
        assert (option.header.key, option.header.value) == (sent.name.lower(), sent.value)
        assert option.append is (sent.name.lower() in seen)
        seen.add(sent.name.lower())
    assert ok.headers_to_remove == [name.lower() for name in answer.remove_headers]


@given(answers)
def test_metadata_is_outside_only_and_unchanged(answer: Answer) -> None:
    """`dynamic_metadata` of the CheckResponse holds the metadata; the deprecated inner one is never set."""
    message = response(answer)
    assert message.ok_response is None or message.ok_response.dynamic_metadata is None
    if answer.metadata:
        assert message.dynamic_metadata is not None
        assert message.dynamic_metadata.to_dict() == answer.metadata
    else:
        assert message.dynamic_metadata is None


@given(answers)
def test_our_codec_reads_the_same(answer: Answer) -> None:
    """Written directly, or by the independent codec from what it read: the same message."""
    message = response(answer)
    assert auth.CheckResponse.parse(bytes(message)) == message


def test_headers_in_full() -> None:
    """Each kind of header goes to its own field, in order."""
    ok = response(
        Allow(
            headers=(Header("X-A", "1"), Header("x-b", "2", append=True), Header("x-a", "3")),
            remove_headers=("Authorization", "x_a"),
            response_headers=(Header("x-c", "4"), Header("set-cookie", "5", append=True), Header("x-c", "6")),
        )
    ).ok_response
    assert ok is not None
    assert options(ok.headers) == [
        ("x-a", "1", False, OVERWRITE),
        ("x-b", "2", False, OVERWRITE),
        ("x-a", "3", True, APPEND),
    ]
    assert ok.headers_to_remove == ["authorization", "x_a"]
    assert options(ok.response_headers_to_add) == [
        ("x-c", "4", False, OVERWRITE),
        ("set-cookie", "5", True, APPEND),
        ("x-c", "6", True, APPEND),
    ]


def test_query_parameters_are_percent_encoded() -> None:
    """Envoy takes parameters as they are, so nothing in them may end one; names to remove keep escapes."""
    ok = response(
        Allow(
            set_query=(("tenant", "a&admin=1#é"), ("a b", "c d+e")), remove_query=("debug", "%64ebug", "x y")
        )
    ).ok_response
    assert ok is not None
    assert [(each.key, each.value) for each in ok.query_parameters_to_set] == [
        ("tenant", "a%26admin%3D1%23%C3%A9"),
        ("a%20b", "c%20d%2Be"),
    ]
    assert ok.query_parameters_to_remove == ["debug", "%64ebug", "x%20y"]


def test_long_texts_are_written_whole() -> None:
    """Values of more than a few hundred bytes, whose lengths take more than one byte, arrive."""
    value = "v" * 16384
    message = response(
        Deny(403, GrpcCode.PERMISSION_DENIED, (Header("x-a", value),), "b" * 100_000, {"m": "é" * 3000})
    )
    assert message.denied_response is not None
    assert options(message.denied_response.headers)[0][:2] == ("x-a", value)
    assert len(message.denied_response.body) == 100_000
    assert message.dynamic_metadata is not None
    assert message.dynamic_metadata.to_dict() == {"m": "é" * 3000}


def test_whole_numbers_may_be_metadata() -> None:
    """An int is the number it is; Struct knows one kind of number."""
    message = response(Allow(metadata={"n": 3, "t": True}))
    assert message.dynamic_metadata is not None
    assert message.dynamic_metadata.to_dict() == {"n": 3.0, "t": True}


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


UNSENDABLE: list[Answer] = [
    *[
        Allow(headers=(Header(name, "v"),))
        for name in ("", " ", "a b", "a:", ":path", "a\n", "é", "a\0", "n" * 257)
    ],
    *[
        Allow(headers=(Header("x", value),))
        for value in ("a\r\nx: y", "a\nb", "\0", "a\x1f", "\x7f", "\ud800")
    ],
    *[Allow(headers=(Header("x", value),)) for value in (" admin", "admin ", "\tadmin", "v" * 16385)],
    Allow(remove_headers=(":path",)),
    Allow(remove_headers=("x y",)),
    Allow(response_headers=(Header("x", "a\r\n"),)),
    Deny(403, GrpcCode.PERMISSION_DENIED, (Header("x", "a\nb"),)),
    Deny(403, GrpcCode.PERMISSION_DENIED, body="\ud800"),
    Deny(200, GrpcCode.PERMISSION_DENIED),
    Deny(299, GrpcCode.PERMISSION_DENIED),
    Deny(600, GrpcCode.PERMISSION_DENIED),
    Deny(0, GrpcCode.PERMISSION_DENIED),
    Deny(403, GrpcCode.OK),
    Deny(403, GrpcCode.UNAVAILABLE),
    Failure(200),
    Failure(399),
    Failure(600),
    Failure(headers=(Header("x y", ""),)),
    Allow(metadata={"a": math.nan}),
    Allow(metadata={"a": math.inf}),
    Allow(metadata={"a": b"bytes"}),
    Allow(metadata={"a": [{"b": object()}]}),
    Allow(metadata={"\ud800": ""}),
    Allow(metadata={"a": "\ud800"}),
    Allow(metadata=deep(40)),
    Allow(set_query=(("a", "\ud800"),)),
]


@pytest.mark.parametrize("answer", UNSENDABLE, ids=[repr(answer)[:60] for answer in UNSENDABLE])
def test_what_must_not_be_sent_is_not_encoded(answer: Answer) -> None:
    """Header injection, statuses that do not deny and values that are not JSON raise UnsendableError."""
    with pytest.raises(wire.UnsendableError):
        wire.encode(answer)
    with pytest.raises(wire.UnsendableError):  # and not only the first time
        wire.encode(answer)


def test_metadata_may_be_as_deep_as_said() -> None:
    """Thirty levels are written and can be read again."""
    message = response(Allow(metadata=deep(29)))
    assert message.dynamic_metadata is not None
    assert message.dynamic_metadata.to_dict() == deep(29)


def test_the_last_resort_is_a_failure() -> None:
    """The answer for when no other can be made is a 503 that no Envoy takes for an allow."""
    message = auth.CheckResponse.parse(wire.FAILURE)
    assert message.status is not None
    assert message.status.code == 14
    assert message.error_response is not None
    assert message.error_response.status is not None
    assert message.error_response.status.code == 503


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_header_whatsoever_breaks_out(name: str, value: str) -> None:
    """Any name and value are refused, or arrive as they are without a character that ends a header."""
    try:
        ok = response(Allow(headers=(Header(name, value),))).ok_response
    except wire.UnsendableError:
        return
    assert ok is not None
    ((key, sent, _, _),) = options(ok.headers)
    assert (key, sent) == (name.lower(), value)
    assert not set(key + sent) & {"\r", "\n", "\0"}
    assert key.isascii()
    assert ":" not in key
