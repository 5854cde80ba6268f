"""Key sets: reading them, keeping them fresh, and surviving whoever serves them."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import logging
import math
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from extauthz.fetch import client
from extauthz.keysets import (
    MAX_ABSENT,
    MAX_KEYS,
    VERIFIERS,
    FileOrigin,
    InlineOrigin,
    KeyFormat,
    KeySet,
    KeySetError,
    KeySets,
    KeySetUnavailable,
    KeysWanted,
    RemoteOrigin,
    parse_keys,
)
from tests.extauthz.key_server import (
    Clock,
    FaultServer,
    endless,
    fault_server,
    hang,
    hang_up,
    jwks,
    private_key,
    public_jwk,
    raw,
    response,
    secret_jwk,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from extauthz.keysets import Origin
    from tests.extauthz.key_server import Answer

PEM = KeyFormat(pem=True)


# --- reading ----------------------------------------------------------------------------------------------


def test_a_key_does_what_it_is_for() -> None:
    """What a key verifies follows from its type, curve and size, narrowed by its `alg`."""
    form = KeyFormat(optional_alg=True)
    keys = parse_keys(
        jwks(
            "rsa",
            "ec",
            "ed",
            public_jwk("rsa-any", alg=None),
            public_jwk("ed-any", alg=None),
            secret_jwk(alg=None),
        ),
        form,
    )
    assert {key.kid: sorted(key.algorithms) for key in keys.members} == {
        "rsa": ["RS256"],
        "ec": ["ES256"],
        "ed": ["EdDSA"],
        "rsa-any": ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
        "ed-any": ["Ed25519", "EdDSA"],
        "hmac": ["HS256", "HS384"],
    }


def test_no_algorithm_means_no_verifier() -> None:
    """`none` is not an algorithm that anything could be configured to use."""
    assert "none" not in VERIFIERS
    assert parse_keys(jwks("rsa")).members[0].verifies("none", b"m", b"") is False


@pytest.mark.parametrize(
    ("curve", "algorithm"),
    [
        (ec.SECP256R1(), "ES256"),
        (ec.SECP384R1(), "ES384"),
        (ec.SECP521R1(), "ES512"),
        (ec.SECP256K1(), "ES256K"),
    ],
)
def test_curves(curve: ec.EllipticCurve, algorithm: str) -> None:
    """Each curve goes with its one algorithm."""
    key = ec.generate_private_key(curve)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (parsed,) = parse_keys(pem, PEM).members
    assert parsed.algorithms == {algorithm}
    assert parsed.verifies(algorithm, b"message", VERIFIERS[algorithm].sign(b"message", key))
    assert not parsed.verifies(algorithm, b"massage", VERIFIERS[algorithm].sign(b"message", key))


SKIPPED: list[tuple[str, Any, str]] = [
    (
        "no kid",
        public_jwk("rsa", kid=None),
        "missing key ID (kid); `insecure.optionalKid: true` accepts such keys",
    ),
    ("empty kid", public_jwk("rsa", kid=""), "empty key ID (kid)"),
    ("kid a number", public_jwk("rsa", kid=1), "invalid key ID (kid)"),
    (
        "no alg",
        public_jwk("rsa", alg=None),
        "missing algorithm (alg); `insecure.optionalAlg: true` accepts such keys",
    ),
    ("empty alg", public_jwk("rsa", alg=""), "invalid algorithm (alg)"),
    ("alg none", public_jwk("rsa", alg="none"), "invalid algorithm (alg) `none` for this type of key"),
    (
        "alg of another type",
        public_jwk("rsa", alg="HS256"),
        "invalid algorithm (alg) `HS256` for this type of key",
    ),
    (
        "alg of another curve",
        public_jwk("ec", alg="ES384"),
        "invalid algorithm (alg) `ES384` for this type of key",
    ),
    ("for encryption", public_jwk("rsa", use="enc"), "not a key for signatures (use, key_ops)"),
    ("for wrapping", public_jwk("rsa", key_ops=["wrapKey"]), "not a key for signatures (use, key_ops)"),
    ("unknown type", public_jwk("rsa", kty="AKP"), "not a usable key of type `AKP`"),
    ("no type", public_jwk("rsa", kty=None), "not a usable key of type `None`"),
    ("no modulus", public_jwk("rsa", n=None), "not a usable key of type `RSA`"),
    ("modulus a number", public_jwk("rsa", n=5), "not a usable key of type `RSA`"),
    ("not on the curve", public_jwk("ec", y=public_jwk("ec")["x"]), "not a usable key of type `EC`"),
    ("a short secret", secret_jwk(k="AAAA"), "a secret shorter than 256 bits"),
    ("not an object", "key", "not a JSON object"),
]


@pytest.mark.parametrize(("key", "why"), [row[1:] for row in SKIPPED], ids=[row[0] for row in SKIPPED])
def test_unusable_keys_are_left_out(key: Any, why: str) -> None:
    """A key that cannot verify here is left out with the reason; the others of the set still serve."""
    remark = f"failed to validate key at idx 0: {why}"
    assert parse_keys(json.dumps({"keys": [key, public_jwk("ec")]}).encode()).remarks == (remark,)
    with pytest.raises(KeySetError) as error:
        parse_keys(json.dumps({"keys": [key]}).encode())
    assert str(error.value) == remark


def test_small_rsa_keys_are_left_out() -> None:
    """An RSA key of less than 2048 bits is not used, whatever form it comes in."""
    key = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505  # that is the point
    jwk = {**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": "small", "alg": "RS256"}
    with pytest.raises(KeySetError, match="an RSA key of 1024 bits"):
        parse_keys(jwks(jwk))
    with pytest.raises(KeySetError, match="an RSA key of 1024 bits"):
        parse_keys(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), PEM)


def test_secrets_do_not_belong_in_public_sets() -> None:
    """A secret in a set that is served to everybody is no secret."""
    with pytest.raises(KeySetError, match="a secret"):
        parse_keys(jwks(secret_jwk()), KeyFormat(secrets=False))


def test_a_single_key_is_a_set() -> None:
    """A document that is one JWK stands for a set of one, as in Cerbos."""
    assert parse_keys(json.dumps(public_jwk("ec")).encode()).members[0].kid == "ec"


def test_of_private_keys_the_public_half_is_kept() -> None:
    """Private members of a JWK and private keys in PEM never get beyond the reader."""
    private = RSAAlgorithm.to_jwk(private_key("rsa"), as_dict=True) | {"kid": "rsa", "alg": "RS256"}
    pem = private_key("ec").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for keys in (parse_keys(jwks(private)), parse_keys(pem, PEM)):
        assert not hasattr(keys.members[0].material, "sign")


def test_pem_blocks() -> None:
    """One text may hold several blocks: public keys of either form, and certificates."""
    public = private_key("rsa").public_key()
    blocks = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        certificate().public_bytes(Encoding.PEM),
        x25519.X25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        private_key("ed").private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
    ]
    keys = parse_keys(b"a remark\n" + b"\n".join(blocks), PEM)
    assert [key.kid for key in keys.members] == [None, None, None]
    assert [remark.split(":")[0][-1] for remark in keys.remarks] == ["3", "4", "5", "6"]


def certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, private_key("ec").public_key(), 1, start, start.replace(year=2025)
    )
    return builder.sign(private_key("ec"), hashes.SHA256())


def test_keys_of_other_trades_are_left_out() -> None:
    """A DSA key is a key, but not one for tokens."""
    key = dsa.generate_private_key(1024).public_key()  # noqa: S505  # quick to make, and refused anyway
    with pytest.raises(KeySetError, match="not used for signatures of tokens"):
        parse_keys(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), PEM)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": []}',
        b"\xff",
        b"<html>",
        b'{"keys": [], "keys": []}',
    ],
)
def test_what_is_no_key_set(text: bytes) -> None:
    """A text that is not a key set, or holds none, is refused as a whole."""
    for form in (KeyFormat(), PEM):
        with pytest.raises(KeySetError):
            parse_keys(text, form)


def test_too_many_keys() -> None:
    """A set of more keys than anyone needs is refused before any is looked at."""
    with pytest.raises(KeySetError, match="more than"):
        parse_keys(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode())
    with pytest.raises(KeySetError, match="more than"):
        parse_keys(b"-----BEGIN X-----\n-----END X-----\n" * (MAX_KEYS + 1), PEM)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(deadline=None)
def test_random_bytes_are_no_key_set(text: bytes) -> None:
    """Whatever the bytes, reading them ends in keys or in the error for it."""
    for form in (KeyFormat(), PEM, KeyFormat(pem=True, optional_alg=True, optional_kid=True)):
        with pytest.raises(KeySetError):
            parse_keys(text, form)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "alg", "crv", "x", "y", "n", "e", "k", "use", "key_ops"]),
        st.none()
        | st.integers()
        | st.text(max_size=50)
        | st.lists(st.text(max_size=3))
        | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB"]),
    )
)
@settings(deadline=None)
def test_random_keys(jwk: dict[str, Any]) -> None:
    """Whatever the members of a JWK, reading it ends in a key or in the error for it."""
    try:
        keys = parse_keys(
            json.dumps({"keys": [jwk]}).encode(), KeyFormat(optional_alg=True, optional_kid=True)
        )
    except KeySetError:
        return
    assert keys.members[0].algorithms


# --- origins ----------------------------------------------------------------------------------------------


async def test_inline_origin() -> None:
    """Inline data is base64, over several lines if need be."""
    data = base64.encodebytes(jwks("ec")).decode()
    assert await InlineOrigin(data).read(known=False) == jwks("ec")
    with pytest.raises(KeySetError, match="not base64"):
        InlineOrigin("{}")


async def test_file_origin_reads_what_changed(tmp_path: Path) -> None:
    """A file is read again when it was changed or replaced, or when what it held was of no use."""
    path = tmp_path / "keys.jwks"
    origin = FileOrigin(path)
    with pytest.raises(KeySetError, match="No such file"):
        await origin.read(known=False)
    path.write_bytes(b"one")
    assert await origin.read(known=True) == b"one"
    assert await origin.read(known=True) is None
    assert await origin.read(known=False) == b"one"
    path.write_bytes(b"two ")
    assert await origin.read(known=True) == b"two "
    (tmp_path / "new").write_bytes(b"new ")
    os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "new").replace(path)  # as a mounted secret is replaced: same size, same time, another file
    assert await origin.read(known=True) == b"new "


async def test_file_origin_is_bounded(tmp_path: Path) -> None:
    """A file of more than a megabyte is no key set, and neither is a directory."""
    path = tmp_path / "keys.jwks"
    path.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(KeySetError, match="larger than"):
        await FileOrigin(path).read(known=False)
    with pytest.raises(KeySetError, match="cannot read"):
        await FileOrigin(tmp_path).read(known=False)


@asynccontextmanager
async def remote(answer: Answer, **options: Any) -> AsyncIterator[tuple[FaultServer, RemoteOrigin]]:
    async with fault_server(answer) as server, client(4) as http:
        yield server, RemoteOrigin(http, server.url(), **options)


USELESS: dict[str, tuple[Answer, str]] = {
    "server error": (response(jwks("rsa"), 500), "answered with status 500"),
    "not found": (response(b"", 404), "answered with status 404"),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered with status 204"),
    "redirect": (response(b"", 302, {"location": "/other"}), "answered with status 302; give the address"),
    "redirect to itself": (response(b"", 307, {"location": "/jwks.json"}), "answered with status 307"),
    "not HTTP": (hang_up(b"SSH-2.0-OpenSSH_9.6\r\n"), "not valid HTTP"),
    "hangs up": (hang_up(), "not valid HTTP"),
    "hangs up in the head": (hang_up(b"HTTP/1.1 200 OK\r\ncontent-le"), "not valid HTTP"),
    "hangs up in the body": (hang_up(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), "not valid HTTP"),
    "endless head": (raw(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000), "not valid HTTP"),
    "endless body": (endless, "larger than 1000 bytes"),
    "too large": (response(b" " * 1001), "larger than 1000 bytes"),
    "compressed": (response(b"\x1f\x8b", headers={"content-encoding": "gzip"}), "compressed"),
}


@pytest.mark.parametrize(("answer", "why"), USELESS.values(), ids=USELESS)
async def test_useless_answers(answer: Answer, why: str) -> None:
    """Whatever a server does instead of sending a key set, it is an error that says so, and quickly."""
    async with remote(answer, max_bytes=1000) as (server, origin):
        with pytest.raises(KeySetError, match=why) as error:
            await asyncio.wait_for(origin.read(known=False), 5)
        assert server.url() in str(error.value)
        assert {request.target for request in server.received} == {"/jwks.json"}


async def test_a_slow_server_times_out() -> None:
    """A server that takes longer than the timeout is given up, also when it keeps sending."""
    for answer in (hang(response(b"")), endless):
        async with remote(answer, timeout=0.04, max_bytes=1 << 40) as (_, origin):
            with pytest.raises(KeySetError, match=r"no complete response within 0\.04 s"):
                await origin.read(known=False)


async def test_nobody_listens() -> None:
    """A refused connection is an error like others."""
    async with remote(response(b"")) as (server, _):
        url = server.url()
    async with client(1) as http:
        with pytest.raises(KeySetError, match="cannot connect"):
            await RemoteOrigin(http, url).read(known=False)


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:1/\r\n", "ftp://127.0.0.1/x", "http://"])
async def test_impossible_addresses(url: str) -> None:
    """An address that cannot be used is an error like others."""
    async with client(1) as http:
        with pytest.raises(KeySetError, match="cannot"):
            await RemoteOrigin(http, url).read(known=False)


async def test_nothing_is_kept_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookies are sent back, and proxies of the environment are not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with remote(response(jwks("rsa"), headers={"set-cookie": "a=1; Path=/"})) as (server, origin):
        assert await origin.read(known=False) == await origin.read(known=False)
        assert [request.headers.get("cookie") for request in server.received] == [None, None]
        assert server.received[0].headers["accept-encoding"] == "identity"


async def test_a_closed_connection_is_opened_again() -> None:
    """A kept-alive connection that the server closed meanwhile does not make a fetch fail."""
    async with remote(response(jwks("rsa"))) as (server, origin):
        await origin.read(known=False)
        good, first = server.answer, [True]

        async def once(faults: FaultServer, writer: asyncio.StreamWriter) -> None:
            await (hang_up() if first.pop() else good)(faults, writer)
            first.append(False)

        server.answer = once
        assert await origin.read(known=False) == jwks("rsa")
        assert len(server.received) == 3


# --- freshness --------------------------------------------------------------------------------------------


class Script:
    """An origin that gives what the test put there; with *gate*, not before that is set."""

    place = "the test"

    def __init__(self, text: bytes | Exception, gate: asyncio.Event | None = None) -> None:
        self.text = text
        self.gate = gate
        self.reads = 0

    async def read(self, *, known: bool) -> bytes | None:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


GONE = KeySetError("gone")


def key_set(origin: Origin, clock: Clock | None = None, **options: Any) -> KeySet:
    return KeySet("idp", origin, clock=clock or Clock(), wall=clock or Clock(), **options)


def kids(keys: KeySet) -> list[str | None]:
    return [key.kid for key in keys.keys.members] if keys.keys else []


async def wanted(keys: KeySet, kid: str) -> int:
    """Ask for a key as a request does, fetching when told to; return how many candidates there are."""
    try:
        return len(keys.candidates(kid))
    except KeysWanted as want:
        await want.fetch()
    return len(keys.candidates(kid))


async def test_a_thousand_unknown_kids_cause_one_fetch() -> None:
    """However many unknown key ids arrive, at once or one by one, there is one fetch in a cool-down."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock, cooldown=30)
    await keys.fetch()
    clock.now += 30
    assert sum(await asyncio.gather(*(wanted(keys, f"at-once-{n}") for n in range(1000)))) == 0
    for number in range(1000):
        assert await wanted(keys, f"one-by-one-{number}") == 0
    assert origin.reads == 2
    clock.now += 29.9
    assert await wanted(keys, "later") == 0
    assert origin.reads == 2
    clock.now += 0.2
    assert await wanted(keys, "much-later") == 0
    assert origin.reads == 3


async def test_waiters_share_a_fetch() -> None:
    """Requests that need the same fetch wait for one, and all get the new key."""
    clock, gate = Clock(), asyncio.Event()
    origin = Script(jwks("rsa"))
    keys = key_set(origin, clock)
    await keys.fetch()
    clock.now += 31
    origin.text, origin.gate = jwks("rsa", "ec"), gate
    requests = [asyncio.create_task(wanted(keys, "ec")) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*requests) == [1] * 50
    assert origin.reads == 2


async def test_one_who_leaves_does_not_stop_the_others() -> None:
    """A request that is cancelled while it waits for keys does not cancel the fetch."""
    gate = asyncio.Event()
    origin = Script(jwks("rsa"), gate)
    keys = key_set(origin)
    leaver, stayer = asyncio.create_task(wanted(keys, "rsa")), asyncio.create_task(wanted(keys, "rsa"))
    await asyncio.sleep(0)
    leaver.cancel()
    gate.set()
    assert await stayer == 1
    assert (leaver.cancelled(), origin.reads) == (True, 1)


async def test_a_kid_known_to_be_absent_does_not_wait() -> None:
    """A key id that the origin just did not have is answered at once, for a while or until new keys."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock, cooldown=30)
    await keys.fetch()
    clock.now += 31
    await wanted(keys, "ec")
    clock.now += 31
    assert keys.candidates("ec") == ()
    with pytest.raises(KeysWanted):
        keys.candidates("other")
    origin.text = jwks("ec")
    await keys.fetch()
    assert [key.kid for key in keys.candidates("ec")] == ["ec"]


async def test_new_keys_make_absent_kids_worth_a_fetch_again() -> None:
    """When the keys change, what was absent before is asked for again as soon as the cool-down allows."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock, cooldown=30)
    await keys.fetch()
    clock.now += 31
    await wanted(keys, "soon")
    clock.now += 10
    origin.text = jwks("ec")
    await keys.fetch()
    assert keys.candidates("soon") == ()
    clock.now += 30
    with pytest.raises(KeysWanted):
        keys.candidates("soon")


async def test_absent_kids_take_bounded_room() -> None:
    """Strangers cannot fill our memory with key ids."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock)
    for round_ in range(3):
        clock.now += 31
        await asyncio.gather(
            *(wanted(keys, f"{round_}-{n}") for n in range(2 * MAX_ABSENT)), wanted(keys, "k" * 10_000)
        )
    assert len(keys._absent) == MAX_ABSENT
    assert len(keys._wanted) == 0
    assert max(map(len, keys._absent)) < 200


async def test_stale_keys_serve() -> None:
    """While the origin is gone or sends rubbish, the keys of before serve, and the status says since when."""
    clock, origin = Clock(1000.0), Script(jwks("rsa"))
    keys = key_set(origin, clock)
    await keys.fetch()
    before = keys.keys
    for failure in (GONE, b"<html>", RuntimeError("a bug")):
        clock.now += 100
        origin.text = failure
        await keys.fetch()
        assert keys.keys is before
        assert len(keys.candidates("rsa")) == 1
    status = keys.status()
    assert (status.keys, status.loaded_at, status.failing_since) == (1, 1000.0, 1100.0)
    assert status.error == "unexpected RuntimeError"
    origin.text = jwks("rsa")
    await keys.fetch()
    assert keys.status().failing_since == 0
    assert keys.status().loaded_at == 1300.0
    assert keys.keys is before


async def test_stale_keys_serve_as_long_as_configured() -> None:
    """Keys that were not confirmed for longer than the configuration allows are no keys."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock, refresh_interval=3600, serve_stale=600)
    await keys.fetch()
    origin.text = GONE
    clock.now += 599
    assert keys.pause() == pytest.approx(1)
    await keys.fetch()
    assert kids(keys) == ["rsa"]
    clock.now += 1
    await keys.fetch()
    assert kids(keys) == []
    with pytest.raises(KeySetUnavailable):
        keys.candidates("rsa")


async def test_without_keys_it_tries_often() -> None:
    """Before there are any keys, requests fail; the next attempt is due in seconds, not after a cool-down."""
    clock, origin = Clock(), Script(GONE)
    keys = key_set(origin, clock, cooldown=30)
    with pytest.raises(KeySetUnavailable):
        await wanted(keys, "rsa")
    assert keys.pause() == 2
    clock.now += 2
    origin.text = jwks("rsa")
    assert await wanted(keys, "rsa") == 1


async def test_when_the_next_read_is_due() -> None:
    """Good keys are read again after the interval, after a failure sooner, but never at once."""
    clock, origin = Clock(), Script(jwks("rsa"))
    keys = key_set(origin, clock, refresh_interval=600, cooldown=30)
    assert keys.pause() == 0
    await keys.fetch()
    assert keys.pause() == 600
    clock.now += 700
    assert keys.pause() == 0
    origin.text = GONE
    await keys.fetch()
    assert keys.pause() == 30


async def until(true: Callable[[], bool]) -> None:
    """Wait for what the background does."""
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


async def test_the_background_keeps_reading() -> None:
    """After the start the origin is read again and again, through failures, until the stop."""
    origin = Script(jwks("rsa"))
    keys = KeySet("idp", origin, refresh_interval=0.002, cooldown=0.002)
    await keys.start()
    assert kids(keys) == ["rsa"]
    origin.text = ValueError("a bug")
    await until(lambda: keys.status().error == "unexpected ValueError")
    origin.text = jwks("ec")
    await until(lambda: kids(keys) == ["ec"])
    await keys.stop()
    reads = origin.reads
    await asyncio.sleep(0.01)
    assert (origin.reads, reads > 2) == (reads, True)


async def test_a_start_without_keys_goes_on() -> None:
    """Key sets are loaded side by side; one that cannot be is reported and keeps trying."""
    sets = KeySets([KeySet("good", Script(jwks("rsa"))), KeySet("bad", Script(GONE))])
    await sets.start()
    assert [(status.id, status.keys, status.error) for status in sets.status()] == [
        ("good", 1, ""),
        ("bad", 0, "gone"),
    ]
    assert kids(sets["good"]) == ["rsa"]
    await sets.stop()


async def test_a_broken_file_changes_nothing_until_mended(tmp_path: Path) -> None:
    """A file that turns to rubbish is reported for as long as it is, and the keys of before serve."""
    path = tmp_path / "keys.jwks"
    path.write_bytes(jwks("rsa"))
    keys = key_set(FileOrigin(path))
    await keys.fetch()
    path.write_bytes(b"{")
    for _ in range(3):
        await keys.fetch()
        assert keys.status().error.startswith("not a JWK set")
        assert kids(keys) == ["rsa"]
    path.write_bytes(jwks("ec"))
    await keys.fetch()
    assert (keys.status().error, kids(keys)) == ("", ["ec"])


async def test_unchanged_keys_are_the_same_object() -> None:
    """Reading the same keys again replaces nothing, so that what was derived from them stays good."""
    origin = Script(jwks("rsa", "ec"))
    keys = key_set(origin)
    await keys.fetch()
    before = keys.keys
    origin.text = json.dumps({"keys": [public_jwk("rsa"), public_jwk("ec")], "more": 1}, indent=2).encode()
    await keys.fetch()
    assert keys.keys is before
    origin.text = jwks("rsa")
    await keys.fetch()
    assert keys.keys is not before


async def test_failures_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one line in the log, not one for each attempt."""
    caplog.set_level(logging.INFO, "extauthz.keysets")
    clock, origin = Clock(), Script(GONE)
    keys = key_set(origin, clock)
    for _ in range(5):
        await keys.fetch()
    origin.text = jwks("rsa")
    await keys.fetch()
    assert [record.getMessage() for record in caplog.records] == [
        "key set idp: gone",
        "key set idp: 1 keys from the test",
    ]


async def test_rotation_over_http() -> None:
    """A server that rotates its keys, fails and comes back is followed through all of it."""
    async with remote(response(jwks("rsa"))) as (server, origin):
        clock = Clock()
        keys = key_set(origin, clock)
        assert await wanted(keys, "rsa") == 1
        for answer, expected in [
            (response(jwks("rsa", "ec")), ["rsa", "ec"]),
            (response(b"oops", 500), ["rsa", "ec"]),
            (hang_up(), ["rsa", "ec"]),
            (response(jwks("ec")), ["ec"]),
        ]:
            server.answer = answer
            clock.now += 31
            await wanted(keys, "new")
            clock.now += 31
            await keys.fetch()
            assert kids(keys) == expected


@pytest.mark.parametrize("options", [{"cooldown": 0}, {"refresh_interval": 0}, {"cooldown": -1}])
def test_intervals_must_be_positive(options: dict[str, Any]) -> None:
    """An interval of zero would make every stranger's token a fetch."""
    with pytest.raises(ValueError, match="longer than zero"):
        key_set(Script(GONE), **options)
    assert math.isfinite(key_set(Script(GONE)).pause())
