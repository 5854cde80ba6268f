"""Sources: the address stays in its template, and every failure is told from every record."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.fetch import client
from extauthz.slots import MISSING, Slot, SlotError
from extauthz.sources import HttpSource, SourceNotFound, SourceUnavailable, SourceWanted, UrlTemplate
from tests.extauthz.key_server import Clock, endless, fault_server, hang, hang_up, raw, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.model import JsonValue
    from extauthz.facts import Facts
    from tests.extauthz.key_server import Answer, FaultServer

RECORD = b'{"id": "42", "amount": 10, "tags": ["a"], "owner": null}'


def asking(**path: object) -> Facts:
    return cast("Facts", SimpleNamespace(path=path))


# --- addresses --------------------------------------------------------------------------------------------

TEMPLATE = UrlTemplate("http://api.internal:8080/v1/items/{id}/parts/{part}.json?by={by}&fixed=1")

HOSTILE: list[tuple[object, str]] = [
    ("42", "42"),
    ("a.b_c~d-e", "a.b_c~d-e"),
    (42, "42"),
    (-7, "-7"),
    ("a b", "a%20b"),
    ("a/b", "a%2Fb"),
    ("a\\b", "a%5Cb"),
    ("a?b=c", "a%3Fb%3Dc"),
    ("a#b", "a%23b"),
    ("100%", "100%25"),
    ("%2e%2e%2f", "%252e%252e%252f"),
    ("a&by=b", "a%26by%3Db"),
    ("a+b", "a%2Bb"),
    ("a;b", "a%3Bb"),
    ("@evil.example.com", "%40evil.example.com"),
    ("é", "%C3%A9"),
    ("...", "..."),
    (".hidden", ".hidden"),
    ("‥", "%E2%80%A5"),
]


@pytest.mark.parametrize(("value", "encoded"), HOSTILE, ids=[repr(value) for value, _ in HOSTILE])
def test_parameters_are_encoded(value: object, encoded: str) -> None:
    """Everything but unreserved characters is percent-encoded, in the path and in the query."""
    url = TEMPLATE.fill({"id": value, "part": "p", "by": value})
    assert url == f"http://api.internal:8080/v1/items/{encoded}/parts/p.json?by={encoded}&fixed=1"
    assert str(httpx.URL(url).raw_path, "ascii") == url.removeprefix("http://api.internal:8080")


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "../admin",
        "..\\admin",
        "a/../b",
        "a/./b",
        "a/..",
        "..;x=1/admin",
        "a\0b",
        "a\r\nHost: evil",
        "\x7f",
        "x" * 513,
        "é" * 513,
        "\ud800",
        None,
        True,
        1.5,
        ["a"],
        b"a",
    ],
)
def test_parameters_that_have_no_place_in_a_path(value: object) -> None:
    """What encoding does not make harmless, or cannot express, is refused and not sent."""
    with pytest.raises(SlotError) as error:
        TEMPLATE.fill({"id": value, "part": "p", "by": "b"})
    assert error.value.reason == "mapping.request"
    assert not (isinstance(value, str) and len(value) > 2 and value in str(error.value))


def test_queries_take_more_than_paths() -> None:
    """In the query dots and nothing are values like others; control characters and great length are not."""
    for value, encoded in (("", ""), ("..", ".."), ("../x", "..%2Fx")):
        assert f"?by={encoded}&" in TEMPLATE.fill({"id": "1", "part": "p", "by": value})
    for value in ("\0", "x" * 513):
        with pytest.raises(SlotError):
            TEMPLATE.fill({"id": "1", "part": "p", "by": value})


@pytest.mark.parametrize(
    "template", ["http://h/.{a}/x", "http://h/{a}./x", "http://h/x/{a}.{b}", "http://h/{a}{b}/x"]
)
def test_parameters_together_make_no_dot_segment(template: str) -> None:
    """Dots that would come together only in the address are refused with the template or with the value."""
    with pytest.raises(ValueError, match="dot segment"):
        UrlTemplate(template).fill({"a": ".", "b": "."})


SAME_PATHS = UrlTemplate("https://[::1]:8443/a/{x}/b/{y}-{z}?q={q}&r={x}#"[:-1])


@given(
    st.fixed_dictionaries(
        {name: st.text(max_size=30) | st.text("./\\%;?#&=@:", max_size=8) for name in "xyzq"}
    )
)
@example({"x": "..", "y": "", "z": "", "q": ""})
@settings(deadline=None, max_examples=500)
def test_random_parameters_stay_in_their_place(values: dict[str, str]) -> None:
    """Whatever the parameters hold, another parser finds the template's host, segments and query."""
    try:
        url = SAME_PATHS.fill(values)
    except SlotError:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "[::1]:8443", "")
    assert [unquote(segment) for segment in parts.path.split("/")] == [
        "",
        "a",
        values["x"],
        "b",
        f"{values['y']}-{values['z']}",
    ]
    assert [unquote(pair) for pair in parts.query.split("&")] == [f"q={values['q']}", f"r={values['x']}"]
    sent = httpx.URL(url)
    assert f"{sent.scheme}://{sent.netloc.decode()}{sent.raw_path.decode()}" == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://{host}/x", "not before"),
        ("{url}", "ASCII"),
        ("http://h:{port}/", "not before"),
        ("http://h{x}/", "not before"),
        ("http://{user}@h/", "not before|no user"),
        ("http://h?x={x}", "not before"),
        ("ftp://h/{x}", "not an http"),
        ("/items/{x}", "not before"),
        ("http:///items/{x}", "not an http"),
        ("http://h/{x", "braces"),
        ("http://h/x}", "braces"),
        ("http://h/{}", "braces"),
        ("http://h/{a.b}", "braces"),
        ("http://h/{x}#{x}", "fragment"),
        ("http://h/a b", "spaces"),
        ("http://h/é", "ASCII"),
        ("http://h\\x/{x}", "backslashes"),
        ("http://user:secret@h/{x}", "no user"),
        ("http://h/../{x}", "dot segments"),
        ("http://h:99999/{x}", "ort"),
        ("", "ASCII"),
    ],
)
def test_templates_that_are_refused(text: str, why: str) -> None:
    """A template that lets a parameter choose the host, or is no address, does not start."""
    with pytest.raises(ValueError, match=why):
        UrlTemplate(text)


def test_parameters_of_a_template() -> None:
    """A template says which path parameters a route has to have."""
    assert TEMPLATE.parameters == {"id", "part", "by"}
    assert UrlTemplate("http://h").fill({}) == "http://h"


# --- sources ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def source(answer: Answer, **options: Any) -> AsyncIterator[tuple[FaultServer, HttpSource]]:
    async with fault_server(answer) as server, client(8) as http:
        options.setdefault("clock", Clock())
        options.setdefault("timeout", 5)
        yield server, HttpSource("item", UrlTemplate(server.url("/items/{id}")), http, **options)


def captured(name: str) -> Slot:
    """Give what the path captured, whatever it is."""
    return Slot(name, lambda facts: facts.path[name], frozenset({"path"}))


async def read(items: HttpSource, facts: Facts) -> JsonValue:
    """Do as the authorizer does."""
    try:
        return items.get(facts)
    except SourceWanted as wanted:
        return await wanted.fetch()


async def test_a_record_is_read_and_remembered() -> None:
    """A record is fetched once, then given from memory until it is too old; numbers are floats."""
    clock = Clock()
    async with source(response(RECORD), clock=clock, ttl=5) as (server, items):
        record = await read(items, asking(id="42"))
        assert record == {"id": "42", "amount": 10.0, "tags": ["a"], "owner": None}
        assert isinstance(record["amount"], float)
        clock.now += 4.9
        assert items.get(asking(id="42")) is record
        clock.now += 0.1
        with pytest.raises(SourceWanted):
            items.get(asking(id="42"))
        await read(items, asking(id="42"))
        assert [request.target for request in server.received] == ["/items/42", "/items/42"]


async def test_hostile_parameters_arrive_encoded() -> None:
    """What goes over the wire is what the template says, byte for byte."""
    async with source(response(RECORD)) as (server, items):
        for value in ("a/b", "a?b#c", "100%25", "é", "%2e%2e"):
            await read(items, asking(id=value))
        assert [request.target for request in server.received] == [
            "/items/a%2Fb",
            "/items/a%3Fb%23c",
            "/items/100%2525",
            "/items/%C3%A9",
            "/items/%252e%252e",
        ]
        with pytest.raises(SlotError):
            items.get(asking(id="../admin"))
        with pytest.raises(SlotError, match="`id`"):
            items.get(asking())


async def test_not_found() -> None:
    """A 404 is its own outcome, remembered for a second at most."""
    clock = Clock()
    async with source(response(b"", 404), clock=clock, ttl=60) as (server, items):
        with pytest.raises(SourceNotFound) as error:
            await read(items, asking(id="1"))
        assert (error.value.reason, error.value.source) == ("source.not_found", "item")
        with pytest.raises(SourceNotFound):
            items.get(asking(id="1"))
        clock.now += 1
        server.answer = response(RECORD)
        assert await read(items, asking(id="1"))
        assert len(server.received) == 2


FAILURES: dict[str, tuple[Answer, str]] = {
    "server error": (response(RECORD, 500), "source.unavailable"),
    "forbidden": (response(RECORD, 403), "source.unavailable"),
    "created": (response(RECORD, 201), "source.unavailable"),
    "partial": (response(RECORD, 206), "source.unavailable"),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "source.unavailable"),
    "redirect": (response(b"", 302, {"location": "/items/1"}), "source.unavailable"),
    "not HTTP": (hang_up(b"hello"), "source.unavailable"),
    "hangs up": (hang_up(), "source.unavailable"),
    "hangs up in the body": (
        hang_up(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
        "source.unavailable",
    ),
    "endless": (endless, "source.unavailable"),
    "too large": (response(b'{"a": "' + b"x" * 1000 + b'"}'), "source.unavailable"),
    "compressed": (response(b"\x1f\x8b", headers={"content-encoding": "gzip"}), "source.unavailable"),
    "empty": (response(b""), "source.invalid"),
    "not JSON": (response(b"<html>"), "source.invalid"),
    "cut off": (response(b'{"a": '), "source.invalid"),
    "a list": (response(b"[]"), "source.invalid"),
    "a string": (response(b'"x"'), "source.invalid"),
    "null": (response(b"null"), "source.invalid"),
    "a key twice": (response(b'{"owner": "a", "owner": "b"}'), "source.invalid"),
    "a key twice deep inside": (response(b'{"a": [{"b": 1, "\\u0062": 2}]}'), "source.invalid"),
    "NaN": (response(b'{"a": NaN}'), "source.invalid"),
    "infinite": (response(b'{"a": 1e999}'), "source.invalid"),
    "too deep": (response(b'{"a": ' * 65 + b"1" + b"}" * 65), "source.invalid"),
    "much too deep": (response(b"[" * 900), "source.invalid"),
    "not UTF-8": (response(b'{"a": "\xff"}'), "source.invalid"),
    "a lone surrogate": (response(b'{"a": "\\ud800"}'), "source.invalid"),
    "with a byte order mark": (response(b"\xef\xbb\xbf{}"), "source.invalid"),
    "two documents": (response(b"{}{}"), "source.invalid"),
}


@pytest.mark.parametrize(("answer", "reason"), FAILURES.values(), ids=FAILURES)
async def test_failures(answer: Answer, reason: str) -> None:
    """Whatever is not a 200 with one JSON object is a failure, which is not remembered."""
    async with source(answer, max_bytes=1000) as (server, items):
        with pytest.raises(SourceUnavailable) as error:
            await asyncio.wait_for(read(items, asking(id="1")), 5)
        assert error.value.reason == reason
        server.answer = response(b'{"a": 1}')
        assert await read(items, asking(id="1")) == {"a": 1.0}


async def test_deep_enough() -> None:
    """64 levels are read."""
    body = b'{"a": ' * 64 + b"1" + b"}" * 64
    async with source(response(body)) as (_, items):
        assert await read(items, asking(id="1")) == json.loads(body)


async def test_timeout() -> None:
    """A service that takes longer than the timeout is given up, also when it keeps sending."""
    for answer in (hang(response(RECORD)), endless):
        async with source(answer, timeout=0.04, max_bytes=1 << 40) as (_, items):
            with pytest.raises(SourceUnavailable) as error:
                await read(items, asking(id="1"))
            assert error.value.reason == "source.timeout"


async def test_nobody_listens() -> None:
    """A refused connection is a failure like others."""
    async with source(response(b"")) as (server, _):
        url = server.url("/{id}")
    async with client(1) as http:
        with pytest.raises(SourceUnavailable) as error:
            await read(HttpSource("item", UrlTemplate(url), http), asking(id="1"))
        assert error.value.reason == "source.unavailable"


async def test_equal_look_ups_share_a_request() -> None:
    """Requests that want the same record at the same time cause one look-up; others have their own."""
    async with source(hang(response(RECORD))) as (server, items):
        same = [asyncio.create_task(read(items, asking(id="1"))) for _ in range(20)]
        other = asyncio.create_task(read(items, asking(id="2")))
        await asyncio.sleep(0.01)
        server.released.set()
        records = await asyncio.gather(*same, other)
        assert len({id(record) for record in records}) == 2
        assert sorted(request.target for request in server.received) == ["/items/1", "/items/2"]
        assert items._under_way == {}


async def test_one_who_leaves_does_not_stop_the_others() -> None:
    """A cancelled request does not cancel the look-up that others wait for."""
    async with source(hang(response(RECORD))) as (server, items):
        leaver, stayer = (asyncio.create_task(read(items, asking(id="1"))) for _ in range(2))
        await asyncio.sleep(0.01)
        leaver.cancel()
        server.released.set()
        assert (await stayer)["id"] == "42"
        assert leaver.cancelled()


async def test_nobody_waits_any_more() -> None:
    """When all who wait are gone, the look-up ends by itself, and its record is remembered."""
    async with source(hang(response(RECORD))) as (server, items):
        for answer in (hang(hang_up()), hang(response(RECORD))):
            server.answer = answer
            server.released.clear()
            leaver = asyncio.create_task(read(items, asking(id="1")))
            await asyncio.sleep(0.01)
            leaver.cancel()
            server.released.set()
            while items._under_way:
                await asyncio.sleep(0.001)
        assert items.get(asking(id="1"))["id"] == "42"


async def test_saturation_fails_fast() -> None:
    """Beyond the limit of look-ups under way, the next fails at once; joining one of them still works."""
    async with source(hang(response(RECORD)), max_under_way=2) as (server, items):
        waiting = [asyncio.create_task(read(items, asking(id=name))) for name in ("1", "2", "2")]
        await asyncio.sleep(0.01)
        with pytest.raises(SourceUnavailable, match="too many") as error:
            await read(items, asking(id="3"))
        assert error.value.reason == "source.unavailable"
        server.released.set()
        assert len(await asyncio.gather(*waiting)) == 3
        assert await read(items, asking(id="3"))


async def test_memory_is_bounded() -> None:
    """More records than the limit push out those not used for long."""
    async with source(response(RECORD), max_records=10) as (server, items):
        for number in range(50):
            await read(items, asking(id=str(number)))
            await read(items, asking(id="0"))
        assert len(items._memory) <= 10
        assert [request.target for request in server.received].count("/items/0") == 1


async def test_no_memory() -> None:
    """With a time to live of zero each request looks up; those at the same time still share."""
    async with source(response(RECORD), ttl=0) as (server, items):
        await asyncio.gather(*(read(items, asking(id="1")) for _ in range(3)))
        await read(items, asking(id="1"))
        assert len(server.received) == 2
        assert len(items._memory) == 0


async def test_headers() -> None:
    """Headers come from slots, and records that were asked for with other headers are other records."""
    headers = {"X-Tenant": captured("tenant"), "x-fixed": Slot("fixed", lambda _: "yes")}
    async with source(response(RECORD), headers=headers) as (server, items):
        for tenant in ("acme", "umbrella", "acme", MISSING):
            await read(items, asking(id="1", tenant=tenant))
        sent = [(request.headers.get("x-tenant"), request.headers["x-fixed"]) for request in server.received]
        assert sent == [("acme", "yes"), ("umbrella", "yes"), (None, "yes")]
        for bad in ("a\r\nb: c", "a\0", "é", 5, None):
            with pytest.raises(SlotError, match="`x-tenant`"):
                items.get(asking(id="1", tenant=bad))


async def test_header_values_cannot_imitate_each_other() -> None:
    """No value of one header makes a look-up pass for one with other headers."""
    slots = {name: captured(name) for name in ("a", "b")}
    async with source(response(RECORD), headers=slots) as (server, items):
        await read(items, asking(id="1", a="1b:2", b=MISSING))
        await read(items, asking(id="1", a="1", b="2"))
        assert len(server.received) == 2
