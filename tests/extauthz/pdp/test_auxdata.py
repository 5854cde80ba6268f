"""Tokens in `auxData`: whose are accepted, and how policies see their claims. As Cerbos 0.55 does."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from engine.model import NO_AUX_DATA
from extauthz.keysets import InlineOrigin, KeySet
from extauthz.pdp import Code, PdpError
from extauthz.pdp.auxdata import MAX_TOKENS, AuxDataReader
from extauthz.pdp.messages import AuxData, Token
from tests.extauthz.key_server import jwks, token

NOW = int(time.time())


def key_set(name: str, *keys: str) -> KeySet:
    """Make a key set."""
    return KeySet(name, InlineOrigin(base64.b64encode(jwks(*keys)).decode()))


def reader(*names: str, **options: Any) -> AuxDataReader:
    """Read with key sets that all hold the same key."""
    return AuxDataReader({name: key_set(name, "rsa") for name in names}, **options)


async def claims(made: AuxDataReader, text: str, key_set_id: str = "") -> Any:
    """Return the claims of one token."""
    return (await made.read(AuxData(Token(text, key_set_id)))).jwt


async def refused(made: AuxDataReader, aux_data: AuxData) -> None:
    """Expect that nothing is told but that it is not good."""
    with pytest.raises(PdpError) as error:
        await made.read(aux_data)
    assert (error.value.code, error.value.message) == (Code.INVALID_ARGUMENT, "invalid auxData")


@pytest.mark.parametrize("aux_data", [None, AuxData(), AuxData(jwts={}), AuxData(Token(""))])
async def test_without_tokens(aux_data: AuxData | None) -> None:
    """Without a token there are no claims, and that is no fault."""
    assert (await reader().read(aux_data)) == NO_AUX_DATA


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"sub": "a"}, {"sub": "a"}),
        ({"aud": "x"}, {"aud": ["x"]}),
        ({"aud": ["x", "y"]}, {"aud": ["x", "y"]}),
        ({"exp": 1949934039}, {"exp": "2031-10-16T16:20:39Z"}),
        ({"exp": 1949934039.75}, {"exp": "2031-10-16T16:20:39Z"}),
        ({"exp": 99999999999999}, {"exp": "3170843-11-07T09:46:39Z"}),
        ({"nbf": 0, "iat": 1}, {"nbf": "1970-01-01T00:00:00Z", "iat": "1970-01-01T00:00:01Z"}),
        ({"n": 1, "m": [1, {"c": None}]}, {"n": 1.0, "m": [1.0, {"c": None}]}),
    ],
)
async def test_claims(given: dict[str, Any], seen: dict[str, Any]) -> None:
    """Claims of the standard have their standard form, times are text; the others are as they are."""
    assert await claims(reader("one"), token(given)) == seen
    assert await claims(reader("one"), f" {token(given)}\n") == seen


@pytest.mark.parametrize(
    "given",
    [
        {"exp": NOW - 5},
        {"nbf": NOW + 3600},
        {"iat": NOW + 3600},
        {"exp": "soon"},
        {"iat": -5},
        {"sub": 5},
        {"iss": 5},
        {"aud": 5},
        {"aud": ["x", 5]},
    ],
)
@pytest.mark.parametrize("verify", [True, False])
async def test_claims_that_are_not_good(given: dict[str, Any], verify: bool) -> None:
    """A token that is expired, not yet valid or not of the standard is refused, verified or not."""
    await refused(reader("one", verify=verify), AuxData(Token(token(given))))


async def test_clocks_that_differ() -> None:
    """The acceptable skew goes for every time."""
    assert await claims(reader("one", leeway=3600), token({"exp": NOW - 5, "nbf": NOW + 600}))


async def test_which_key_set() -> None:
    """The only key set needs no name; several do, and a name that is none is refused."""
    good = token({"sub": "a"})
    assert await claims(reader("one"), good, "one")
    assert await claims(reader("one", "two"), good, "two")
    await refused(reader("one", "two"), AuxData(Token(good)))
    await refused(reader("one"), AuxData(Token(good, "two")))
    await refused(reader(), AuxData(Token(good)))


async def test_signatures() -> None:
    """A token that nobody signed is refused, unless signatures are not to be looked at."""
    head, body, signature = token({"sub": "a"}).split(".")
    forged = f"{head}.{body}.{signature[:-8]}AAAAAAAA"
    await refused(reader("one"), AuxData(Token(forged)))
    assert await claims(reader("one", verify=False), forged) == {"sub": "a"}
    assert await claims(reader(verify=False), forged, "none") == {"sub": "a"}
    await refused(reader(verify=False), AuxData(Token("no token")))


async def test_a_remembered_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified before is good only as long as its times say."""
    made, text = reader("one"), token({"exp": NOW + 3600})
    assert await claims(made, text)
    made._verifiers["one"]._clock = lambda: NOW + 3601.0
    await refused(made, AuxData(Token(text)))


async def test_a_remembered_token_goes_with_its_key() -> None:
    """When the key set has other keys, what the old ones verified is verified again."""
    keys = key_set("one", "rsa")
    made, text = AuxDataReader({"one": keys}), token({"sub": "a"})
    assert await claims(made, text)
    keys._origin = InlineOrigin(base64.b64encode(jwks("ec")).decode())
    keys._error = "read it again"
    await keys.fetch()
    await refused(made, AuxData(Token(text)))


async def test_several_tokens() -> None:
    """Each token's claims stand under its name; one bad token spoils the request."""
    tokens = {"a": Token(token({"sub": "a"})), "b": Token(token({"sub": "b"}))}
    assert (await reader("one").read(AuxData(jwts=tokens))).jwts == {
        "a": {"claims": {"sub": "a"}},
        "b": {"claims": {"sub": "b"}},
    }
    await refused(reader("one"), AuxData(jwts={**tokens, "c": Token("x")}))


async def test_too_many_tokens() -> None:
    """Each token is work: there is a limit."""
    tokens = {str(n): Token(token({"sub": "a"})) for n in range(MAX_TOKENS + 1)}
    with pytest.raises(PdpError, match="number of tokens \\(17\\) exceeds the limit \\(16\\)"):
        await reader("one").read(AuxData(jwts=tokens))


async def test_keys_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    """Without keys no token is good; the log says why."""
    broken = KeySet("one", InlineOrigin(base64.b64encode(b"{}").decode()))
    await refused(AuxDataReader({"one": broken}), AuxData(Token(token({"sub": "a"}))))
    assert "the key set `one` is not available" in caplog.text
