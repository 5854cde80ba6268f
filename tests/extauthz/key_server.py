"""What the tests of identities and sources share: real keys, any tokens, a server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from extauthz.keysets import VERIFIERS

# --- keys and tokens --------------------------------------------------------------------------------------

SECRET = b"a secret of forty-eight bytes, for HMAC, 0123456"


@functools.cache
def private_key(name: str) -> Any:
    """Give the key of a name, made once: ``rsa``, ``ec``, ``ed``; with a suffix, another one."""
    makers: dict[str, Callable[[], Any]] = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate,
        "hmac": lambda: SECRET,
    }
    return makers[name.partition("-")[0]]()


def public_jwk(name: str, **members: Any) -> dict[str, Any]:
    """Give the public JWK of a key, its name as ``kid``; a member that is None is left out."""
    key = private_key(name)
    kind, alg = {"rsa": (RSAAlgorithm, "RS256"), "ec": (ECAlgorithm, "ES256"), "ed": (OKPAlgorithm, "EdDSA")}[
        name.partition("-")[0]
    ]
    jwk = {**kind.to_jwk(key.public_key(), as_dict=True), "kid": name, "alg": alg, "use": "sig"}  # type: ignore[attr-defined]  # the table mixes the classes
    return without_none({**jwk, **members})


def secret_jwk(**members: Any) -> dict[str, Any]:
    """Give the HMAC secret as a JWK."""
    return {"kty": "oct", "kid": "hmac", "alg": "HS256", "k": base64url(SECRET), **members}


def jwks(*keys: dict[str, Any] | str) -> bytes:
    """Give a JWK set; a string is the name of a key."""
    return json.dumps({"keys": [public_jwk(key) if isinstance(key, str) else key for key in keys]}).encode()


def token(
    claims: Mapping[str, Any] | str,
    *,
    key: str = "rsa",
    alg: str = "RS256",
    header: Mapping[str, Any] | str | None = None,
) -> str:
    """Make a token signed with *key*; claims and header may be texts; a header goes over the usual one."""
    usual = {"typ": "JWT", "alg": alg, "kid": key}
    head = header if isinstance(header, str) else json.dumps(without_none({**usual, **(header or {})}))
    body = claims if isinstance(claims, str) else json.dumps(without_none(dict(claims)))
    message = f"{base64url(head.encode())}.{base64url(body.encode())}"
    return f"{message}.{base64url(VERIFIERS[alg].sign(message.encode(), private_key(key)))}"


def base64url(data: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def without_none(members: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None."""
    return {name: value for name, value in members.items() if value is not None}


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# --- the server -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came over the wire."""

    target: str
    headers: dict[str, str]


Answer = Callable[["FaultServer", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FaultServer:
    """A real HTTP/1.1 server on 127.0.0.1 that answers as the test tells it, now this way, now that."""

    answer: Answer
    port: int = 0
    received: list[Received] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it, and what :func:`hang` holds back is answered."""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/jwks.json") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    self.received.append(_parsed(await reader.readuntil(b"\r\n\r\n")))
                    await self.answer(self, writer)
                    await writer.drain()
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


def _parsed(head: bytes) -> Received:
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = (name_value.partition(": ") for name_value in fields if name_value)
    return Received(line.split(" ")[1], {name.lower(): value for name, _, value in pairs})


@contextlib.asynccontextmanager
async def fault_server(answer: Answer) -> AsyncIterator[FaultServer]:
    """Run a :class:`FaultServer` while the block runs."""
    faults = FaultServer(answer)
    listener = await asyncio.start_server(faults.serve, "127.0.0.1", 0)
    faults.port = listener.sockets[0].getsockname()[1]
    try:
        yield faults
    finally:
        listener.close()
        await faults.close()


def response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer properly."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields.items()
    )
    return raw(head.encode() + b"\r\n" + body)


def raw(data: bytes) -> Answer:
    """Answer with these bytes, whatever they are."""

    async def write(_server: FaultServer, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return write


def hang(then: Answer) -> Answer:
    """Answer only when the test says so."""

    async def wait(server: FaultServer, writer: asyncio.StreamWriter) -> None:
        await server.released.wait()
        await then(server, writer)

    return wait


def hang_up(after: bytes = b"") -> Answer:
    """Close the connection, after some bytes."""

    async def close(_server: FaultServer, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        writer.close()

    return close


async def endless(_server: FaultServer, writer: asyncio.StreamWriter) -> None:
    """Begin a response that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        await writer.drain()
