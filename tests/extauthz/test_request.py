"""Paths, hosts and headers have one spelling, and whatever is spelled otherwise is named as a fault."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.request import (
    PATH_FAULTS,
    RELAXABLE,
    REQUEST_FAULTS,
    Authority,
    HttpRequest,
    Limits,
    Target,
    canonical_target,
    careful_target,
    clean_target,
    read_authority,
    read_target,
)

CASES = Path(__file__).parents[1] / "cases"
PATHS: list[dict[str, Any]] = yaml.safe_load((CASES / "paths.yaml").read_text())

# Pieces that attackers build paths from, beside ordinary text.
PIECES = [
    *("/", "//", ".", "..", "...", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", "%3b", "%00", "%0a", "%25"),
    *(
        "%252e",
        "%2561",
        "%c0%ae",
        "%c3%a9",
        "%20",
        " ",
        "\t",
        "\0",
        "#",
        "?",
        "?x=1",
        "%",
        "%u002e",
        "a",
        "b1",
    ),
    *("é", "admin", ":", "@", "~", "%7E", "%41", "|", '"', "\x85", "\x7f"),
]
targets = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces)),
    st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join),
    st.text(string.ascii_letters + string.digits + "-._~/%:@!$&'()*+,;=?", max_size=40).map(
        lambda s: "/" + s
    ),
    st.text(max_size=20),
)


@pytest.mark.parametrize("case", PATHS, ids=[repr(case["target"]) for case in PATHS])
def test_a_target_is_read_as_the_table_says(case: dict[str, Any]) -> None:
    """Each target has the canonical path, the segments, the query and the faults that the table gives."""
    expected = Target(
        case.get("path", ""),
        tuple(case.get("segments", ())),
        case.get("query", ""),
        tuple(case.get("faults", ())),
    )
    assert canonical_target(case["target"]) == expected


def test_the_table_shows_every_fault_a_path_alone_can_have() -> None:
    """Each code of a path fault that does not depend on headers, host or limits is in the table."""
    shown = {fault for case in PATHS for fault in case.get("faults", ())}
    elsewhere = {"path.authority", "path.disagreement", "path.too_long"}
    assert shown == PATH_FAULTS.keys() - elsewhere


@given(targets)
def test_the_fast_way_and_the_careful_way_agree(target: str) -> None:
    """A target that is recognised as clean reads the same character by character."""
    clean = clean_target(target, Limits())
    assert clean is None or Target(*clean) == careful_target(target)


@given(targets)
def test_a_canonical_path_is_its_own_canonical_path(target: str) -> None:
    """Reading a canonical path again changes nothing; one read without faults stays without."""
    first = canonical_target(target)
    again = canonical_target(first.path)
    assert again.path == first.path
    if not first.faults:
        assert again == Target(first.path, first.segments, "")


@given(targets)
def test_path_and_segments_say_the_same(target: str) -> None:
    """The segments are the canonical path divided at slashes, and only then decoded."""
    read = canonical_target(target)
    divided = read.path.split("/")[1:]
    assert read.segments == tuple(unquote(segment, errors="strict") for segment in divided)


@given(targets)
def test_no_canonical_path_has_what_may_be_read_in_two_ways(target: str) -> None:
    """Whatever was sent: no dot segment, double slash, raw semicolon, backslash or control character."""
    path = canonical_target(target).path
    assert not {".", ".."} & set(path.split("/"))
    assert "//" not in path
    assert not set(path) - set(string.ascii_letters + string.digits + "-._~/%!$&'()*+,:=@")
    assert "%00" not in path


@given(targets)
def test_a_path_without_faults_hides_nothing(target: str) -> None:
    """Decoding an accepted path, once or twice, shows no slash, dots, parameters or control characters."""
    read = canonical_target(target)
    if read.faults:
        return
    for segment in read.segments:
        assert unquote(segment) == segment or "%" not in segment
        assert segment not in {".", ".."}
        assert not set(segment) & set("/\\;\0\n\r\x7f")
        assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in segment)


@given(targets)
def test_what_cannot_be_relaxed_leaves_no_path(target: str) -> None:
    """With a fault that no route can accept there is no path and no segment that a route could match."""
    read = canonical_target(target)
    assert set(read.faults) <= PATH_FAULTS.keys()
    assert len(set(read.faults)) == len(read.faults)
    if not set(read.faults) <= RELAXABLE:
        assert (read.path, read.segments, read.query_string) == ("", (), "")


@given(st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,:=@ éß%?#\"", min_size=1), st.booleans())
def test_any_harmless_text_can_be_a_segment(text: str, shout: bool) -> None:
    """A segment encoded in full, in either case of digits, comes back as it was."""
    encoded = "".join(f"%{byte:02X}" for byte in text.encode())
    read = canonical_target(f"/x/{encoded if shout else encoded.lower()}/y")
    assert read.faults in {(), ("path.dot_segment",), ("path.double_encoding",)}
    if not read.faults:
        assert read.segments == ("x", text, "y")


def test_a_path_is_bounded() -> None:
    """One character more than the limit is too long; the query does not count."""
    limits = Limits(path=10)
    assert canonical_target("/" + "a" * 9 + "?" + "b" * 99, limits).faults == ()
    assert canonical_target("/" + "a" * 10, limits) == Target("", (), "", ("path.too_long",))
    assert canonical_target("/" + "%41" * 3, limits).faults == ()
    assert canonical_target("/" + "%41" * 4, limits).faults == ("path.too_long",)


def test_segments_are_bounded() -> None:
    """One segment more than the limit is too many, however they are spelled."""
    limits = Limits(segments=3)
    assert canonical_target("/a/b/c", limits).faults == ()
    assert canonical_target("/a/%41/c", limits).faults == ()
    assert canonical_target("/a/b/c/d", limits) == Target("", (), "", ("path.too_long",))
    assert canonical_target("/a/b/c/", limits).faults == ("path.too_long",)
    assert canonical_target("/../../../..", limits).faults == ("path.too_long",)


def test_the_usual_limit_is_8_kib() -> None:
    """A path of 8192 characters is accepted by default, one more is not."""
    assert canonical_target("/" + "a" * 8191).faults == ()
    assert canonical_target("/" + "a" * 8192).faults == ("path.too_long",)


# --- other forms of a target --------------------------------------------------------------------------------

HERE = Authority("api.example.com")
FORMS = [
    ("GET", "http://api.example.com/admin", "/admin", ()),
    ("GET", "HTTPS://API.example.com./admin?x=1", "/admin", ()),
    ("GET", "http://api.example.com:80/admin", "/admin", ()),
    ("GET", "https://api.example.com:443/admin", "/admin", ()),
    ("GET", "http://api.example.com", "/", ()),
    ("GET", "http://api.example.com?x=1", "/", ()),
    ("GET", "http://api.example.com/app/../admin", "/admin", ("path.dot_segment",)),
    ("GET", "http://other.example.com/admin", "", ("path.authority",)),
    ("GET", "http://api.example.com:8080/admin", "", ("path.authority",)),
    ("GET", "https://api.example.com:80/admin", "", ("path.authority",)),
    ("GET", "http://user@api.example.com/admin", "", ("path.authority",)),
    ("GET", "http://api.example.com\\@evil.example/admin", "", ("path.not_absolute",)),
    ("GET", "http:///admin", "", ("path.authority",)),
    ("GET", "http:/admin", "", ("path.not_absolute",)),
    ("GET", "ftp://api.example.com/admin", "", ("path.not_absolute",)),
    ("OPTIONS", "*", "*", ()),
    ("GET", "*", "", ("path.not_absolute",)),
    ("options", "*", "", ("path.not_absolute",)),
    ("OPTIONS", "*?x", "", ("path.not_absolute",)),
    ("CONNECT", "", "", ("path.not_absolute",)),
    ("CONNECT", "api.example.com:443", "", ("path.not_absolute",)),
    ("CONNECT", "/chat", "/chat", ()),
    ("TRACE", "/admin", "/admin", ()),
]


@pytest.mark.parametrize(("method", "target", "path", "faults"), FORMS)
def test_other_forms_of_a_target(method: str, target: str, path: str, faults: tuple[str, ...]) -> None:
    """The absolute form must name the request's host, `*` belongs to OPTIONS, and nothing else is a path."""
    read = read_target(method, target, HERE)
    assert (read.path, read.faults) == (path, faults)


def test_the_asterisk_has_no_segments() -> None:
    """`*` cannot be taken for the path `/*`."""
    assert read_target("OPTIONS", "*", HERE).segments == ()


# --- hosts --------------------------------------------------------------------------------------------------

HOSTS = [
    ("api.example.com", "api.example.com", None, ""),
    ("API.Example.COM:443", "api.example.com", 443, ""),
    ("api.example.com.", "api.example.com", None, ""),
    ("api.example.com.:8443", "api.example.com", 8443, ""),
    ("my_service.default.svc", "my_service.default.svc", None, ""),
    ("192.0.2.7:80", "192.0.2.7", 80, ""),
    ("[2001:DB8:0:0::1]:443", "[2001:db8::1]", 443, ""),
    ("[::1]", "[::1]", None, ""),
    ("[::ffff:192.0.2.7]", "[::ffff:c000:207]", None, ""),
    ("", "", None, ""),
    ("user@api.example.com", "", None, "host.userinfo"),
    ("api.example.com:443@evil.example", "", None, "host.userinfo"),
    ("api.example.com..", "", None, "host.invalid"),
    ("api..example.com", "", None, "host.invalid"),
    (".example.com", "", None, "host.invalid"),
    ("api.example.com:", "", None, "host.invalid"),
    ("api.example.com:65536", "", None, "host.invalid"),
    ("api.example.com:-1", "", None, "host.invalid"),
    ("api.example.com:80:80", "", None, "host.invalid"),
    ("api.example.com/x", "", None, "host.invalid"),
    ("api.example.com,evil.example", "", None, "host.invalid"),
    ("api.example.com evil.example", "", None, "host.invalid"),
    ("api%2eexample.com", "", None, "host.invalid"),
    ("api.example.com\n", "", None, "host.invalid"),
    ("api.example.com\0", "", None, "host.invalid"),
    ("[::1", "", None, "host.invalid"),
    ("[::1]x", "", None, "host.invalid"),
    ("[fe80::1%25eth0]", "", None, "host.invalid"),
    ("[12345::]", "", None, "host.invalid"),
    ("::1", "", None, "host.invalid"),
    ("\u212ai.example.com", "", None, "host.invalid"),  # the Kelvin sign, whose lower case is `k`
    ("a" * 256, "", None, "host.invalid"),
]


@pytest.mark.parametrize(("text", "host", "port", "fault"), HOSTS)
def test_a_host_is_read_as_the_table_says(text: str, host: str, port: int | None, fault: str) -> None:
    """Case, port and trailing dot do not matter; whatever is not plainly a host is none."""
    assert read_authority(text) == Authority(host, port, fault)


@given(st.text(max_size=30) | st.text("aB.:[]@%-_09", max_size=30))
def test_reading_a_host_never_fails_and_is_idempotent(text: str) -> None:
    """Any text gives a host that reads as itself, or a fault."""
    read = read_authority(text)
    assert (read.fault == "") or (read.host, read.port) == ("", None)
    assert read_authority(read.host).host == read.host


# --- the request --------------------------------------------------------------------------------------------

LINES = [
    ({"target": "/a", "host": "h"}, (), ()),
    ({"target": "/a", "headers": [(":path", "/a"), ("host", "h")]}, (), ()),
    ({"target": "/a", "headers": [(":path", "/b")]}, ("path.disagreement",), ()),
    ({"target": "/a", "headers": [(":path", "/a?x")]}, ("path.disagreement",), ()),
    ({"target": "/a", "host": "h", "headers": [(":authority", "H.")]}, (), ()),
    ({"target": "/a", "host": "h", "headers": [(":authority", "g")]}, (), ("host.disagreement",)),
    ({"target": "/a", "host": "h", "headers": [(":authority", "h:81")]}, (), ("host.disagreement",)),
    ({"target": "/a", "host": "h", "headers": [("host", "g")]}, (), ("host.disagreement",)),
    ({"target": "/a", "headers": [(":authority", "h"), ("host", "g")]}, (), ("host.disagreement",)),
    ({"target": "/a", "host": "h", "headers": [("host", "h"), ("host", "g")]}, (), ("host.disagreement",)),
    ({"target": "/a", "host": "u@h"}, (), ("host.userinfo",)),
    ({"target": "/a", "host": "h h"}, (), ("host.invalid",)),
    ({"target": "/a", "method": "GE T"}, (), ("method.invalid",)),
    ({"target": "/a", "method": ""}, (), ("method.invalid",)),
    ({"target": "/a", "method": "M" * 129}, (), ("method.invalid",)),
    ({"target": "/a", "method": "PROPFIND"}, (), ()),
    ({"target": "", "headers": [(":path", "/a")]}, (), ()),
    ({"target": "", "headers": []}, ("path.not_absolute",), ()),
]


@pytest.mark.parametrize(("arguments", "path_faults", "faults"), LINES)
def test_what_the_headers_say_must_agree(
    arguments: dict[str, Any], path_faults: tuple[str, ...], faults: tuple[str, ...]
) -> None:
    """Method, target and host must be well formed, and headers must not name another path or host."""
    request = HttpRequest(**arguments)
    assert (request.path_faults, request.faults) == (path_faults, faults)
    assert request.path == ("" if path_faults else "/a")
    assert set(request.faults) <= REQUEST_FAULTS.keys()


def test_the_method_is_kept_as_sent() -> None:
    """`get` is a method of its own."""
    assert HttpRequest(method="get").method == "get"
    assert HttpRequest(method="", headers=[(":method", "PUT")]).method == "PUT"


def test_headers_are_joined_and_told_apart() -> None:
    """Names are lower case, repeated headers are joined with a comma, cookies with a semicolon."""
    request = HttpRequest(
        headers=[("X-A", "1"), ("cookie", "a=1"), ("x-a", "2"), ("Cookie", "b=2"), ("X-B", "1,2")]
    )
    assert request.headers == {"x-a": "1,2", "cookie": "a=1; b=2", "x-b": "1,2"}
    assert request.header_names == ("x-a", "cookie", "x-b")
    assert request.header("x-a") == "1,2"
    assert request.header("x-none") is None
    assert request.header_values("x-a") == ("1", "2")
    assert request.header_values("x-none") == ()
    assert [name for name in request.header_names if request.ambiguous(name)] == ["x-a", "cookie"]


def test_a_name_that_only_looks_like_ascii_is_not_made_so() -> None:
    """The Kelvin sign does not turn `coo\u212aie` into `cookie`."""
    assert HttpRequest(headers=[("coo\u212aie", "a=1")]).header("cookie") is None


@pytest.mark.parametrize(
    ("limits", "faults"),
    [
        (Limits(headers=3, header_bytes=11), ()),
        (Limits(headers=2), ("header.too_many",)),
        (Limits(header_bytes=10), ("header.too_large",)),
        (Limits(headers=0, header_bytes=0), ("header.too_many", "header.too_large")),
    ],
)
def test_headers_are_bounded(limits: Limits, faults: tuple[str, ...]) -> None:
    """More headers, or more bytes of them when joined, than the limits allow is a fault of the request."""
    request = HttpRequest(headers=[("aa", "11"), ("aa", "22"), ("bb", "33")], limits=limits)
    assert request.faults == faults


def test_a_request_shows_itself_without_its_headers() -> None:
    """The text of a request, which may reach a log, has no tokens in it."""
    request = HttpRequest(
        method="GET", target="/a?key=secret", host="h", headers=[("authorization", "Bearer secret")]
    )
    assert repr(request) == "<HttpRequest GET h/a>"
