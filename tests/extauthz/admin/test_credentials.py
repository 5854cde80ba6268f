"""Who may use the admin API: the right one passes, guessing is slow, and nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import TYPE_CHECKING

import bcrypt
import pytest

from extauthz.admin.credentials import (
    FREE_GUESSES,
    LONGEST_DELAY,
    MAX_ADDRESSES,
    MAX_WAITING,
    REMEMBERED,
    Credentials,
    Gate,
    Guesses,
    HashError,
    check_hash,
    made_hash,
    read_hash,
)
from extauthz.pdp.errors import Code, PdpError
from extauthz.pdp.method import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "s3cret:ü"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
CERBOS_DEFAULT = "JDJ5JDEwJEdEOVFzZDE2VVhoVkR0N2VkUFBVM09nalc0QnNZaC9xc2E4bS9mcUJJcEZXenp5OUpjMi91Cgo="
"""As Cerbos's documentation has it."""


class Clock:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Iterator[Gate]:
    made = Gate(Credentials("ada", HASH), clock)
    yield made
    made.close()


def caller(username: str = "ada", password: str = PASSWORD, peer: str = "192.0.2.1") -> Caller:
    given = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Caller({"authorization": f"Basic {given}"}, peer=peer)


async def refusal(gate: Gate, who: Caller) -> PdpError:
    with pytest.raises(PdpError) as refused:
        await gate.admit(who)
    return refused.value


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note in which threads passwords are verified."""
    threads: list[str] = []
    check = bcrypt.checkpw

    def noted(password: bytes, hashed: bytes) -> bool:
        threads.append(threading.current_thread().name)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", noted)
    return threads


# --- passing ----------------------------------------------------------------------------------------------


async def test_the_right_credential_passes_and_is_remembered(
    gate: Gate, clock: Clock, verified: list[str]
) -> None:
    """The password is verified once in a while, in a thread of its own."""
    for _ in range(3):
        await gate.admit(caller())
    assert len(verified) == 1
    assert verified[0].startswith("admin-password")
    clock.now += REMEMBERED + 1
    await gate.admit(caller())
    assert len(verified) == 2


@pytest.mark.parametrize(
    "who",
    [caller(password="s3cret"), caller("bob"), caller(password=PASSWORD + "x")],
)
async def test_a_wrong_one_does_not(gate: Gate, who: Caller, verified: list[str]) -> None:
    """A wrong user, a wrong password: the same words and work, also when the right one is remembered."""
    await gate.admit(caller())
    found = await refusal(gate, who)
    assert (found.code, found.message) == (Code.UNAUTHENTICATED, "incorrect credentials")
    assert len(verified) == 2


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "authentication required"),
        ("Bearer x", "unsupported authentication method"),
        ("Basic !!!", "failed to decode credentials"),
        ("Basic", "invalid credentials"),
        ("Basic " + base64.b64encode(b"nobody").decode(), "invalid credentials"),
        ("Basic " + "A" * 100_000, "failed to decode credentials"),
        ("Basic " + base64.b64encode(b"ada:\0").decode(), "incorrect credentials"),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), "incorrect credentials"),
    ],
)
async def test_what_is_no_credential(gate: Gate, header: str, told: str) -> None:
    """Whatever the header holds, the caller is refused, in Cerbos's words."""
    found = await refusal(gate, Caller({"authorization": header} if header else {}))
    assert (found.code, found.message) == (Code.UNAUTHENTICATED, told)


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"}],
)
async def test_pages_of_other_sites_are_refused(gate: Gate, headers: dict[str, str]) -> None:
    """A browser that knows the password is not made to use it by another site's page."""
    who = caller()
    found = await refusal(gate, who._replace(headers={**who.headers, "host": "pdp.example", **headers}))
    assert found.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "same-origin", "origin": "https://pdp.example"}, {"sec-fetch-site": "none"}],
)
async def test_our_own_pages_are_not(gate: Gate, headers: dict[str, str]) -> None:
    """The explorer page, which comes from us, may use the API."""
    who = caller()
    await gate.admit(who._replace(headers={**who.headers, "host": "pdp.example", **headers}))


# --- guessing ---------------------------------------------------------------------------------------------


async def test_guessing_becomes_slower(gate: Gate, clock: Clock, verified: list[str]) -> None:
    """After a few wrong passwords no other one is looked at for a while, not even the right one."""
    for _ in range(FREE_GUESSES):
        assert (await refusal(gate, caller(password="guess"))).code is Code.UNAUTHENTICATED
    for _ in range(20):
        assert (await refusal(gate, caller())).code is Code.TOO_MANY
    assert len(verified) == FREE_GUESSES
    assert "try again in 1 s" in (await refusal(gate, caller())).message
    clock.now += 1.1
    assert (await refusal(gate, caller(password="guess"))).code is Code.UNAUTHENTICATED
    clock.now += 1.1
    assert (await refusal(gate, caller())).code is Code.TOO_MANY
    clock.now += 1.0
    await gate.admit(caller())
    assert (await refusal(gate, caller(password="guess"))).code is Code.UNAUTHENTICATED


async def test_others_are_not_locked_out(gate: Gate) -> None:
    """Who guesses delays neither other addresses nor whoever has passed just now."""
    await gate.admit(caller(peer="192.0.2.9"))
    for _ in range(FREE_GUESSES + 1):
        await refusal(gate, caller(password="guess"))
    await gate.admit(caller(peer="192.0.2.9"))
    await gate.admit(caller())  # remembered
    found = await refusal(gate, caller(password="other", peer="192.0.2.10"))
    assert found.code is Code.UNAUTHENTICATED


def test_a_network_counts_as_one_address(clock: Clock) -> None:
    """Whoever has an IPv6 network cannot guess from each of its addresses."""
    guesses = Guesses(clock)
    for number in range(FREE_GUESSES):
        guesses.count(f"2001:db8::{number:x}")
    with pytest.raises(PdpError):
        guesses.check("2001:db8::ffff:1")
    guesses.check("2001:db8:0:1::1")


def test_delays_and_memory_are_bounded(clock: Clock) -> None:
    """No number of guesses makes a delay longer than the longest, or fills the memory."""
    guesses = Guesses(clock)
    for _ in range(5000):
        guesses.count("192.0.2.1")
    clock.now += LONGEST_DELAY
    guesses.check("192.0.2.1")
    for number in range(2 * MAX_ADDRESSES):
        guesses.count(f"198.51.{number // 256}.{number % 256}")
    assert len(guesses._wrong) == MAX_ADDRESSES


async def test_verifications_wait_for_each_other(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """One password is verified at a time, few may wait, and meanwhile the event loop goes on."""
    begun, go_on, at_once = threading.Event(), threading.Event(), []

    def slow(_: bytes, __: bytes) -> bool:
        at_once.append(1)
        begun.set()
        assert go_on.wait(60)
        at_once.pop()
        return False

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    waiting = [
        asyncio.ensure_future(refusal(gate, caller(peer=f"192.0.2.{number}")))
        for number in range(MAX_WAITING)
    ]
    await asyncio.to_thread(begun.wait, 60)
    assert (await refusal(gate, caller(peer="192.0.2.100"))).code is Code.TOO_MANY
    assert len(at_once) == 1
    go_on.set()
    assert {found.code for found in await asyncio.gather(*waiting)} == {Code.UNAUTHENTICATED}


# --- hashes -----------------------------------------------------------------------------------------------


def test_a_hash_is_made_and_read() -> None:
    """What is made is what the configuration takes."""
    found = read_hash(made_hash(PASSWORD, 10))
    assert bcrypt.checkpw(PASSWORD.encode(), found)
    assert Credentials("ada", found).cost == 10
    check_hash(found)


async def test_a_long_password_is_cut_off_as_bcrypt_does_it(clock: Clock) -> None:
    """A hash that another tool made of a long password can be used; we make none."""
    long = "x" * 100
    gate = Gate(Credentials("ada", bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4))), clock)
    await gate.admit(caller(password=long))
    gate.close()
    for password in (long, "", "a\0b"):
        with pytest.raises(HashError):
            made_hash(password)


def test_the_password_of_cerbos_is_refused() -> None:
    """What Cerbos has by default is known to everybody."""
    with pytest.raises(HashError, match="publishes as its default"):
        check_hash(read_hash(CERBOS_DEFAULT))


@pytest.mark.parametrize(
    "text",
    ["", "plain password", base64.b64encode(b"password").decode(), base64.b64encode(HASH[:-1]).decode()],
)
def test_what_is_no_hash(text: str) -> None:
    """Only base64 of a bcrypt hash is one."""
    with pytest.raises(HashError, match="must be base64 of a bcrypt hash"):
        read_hash(text)


def test_a_hash_that_takes_too_long_is_refused() -> None:
    """A cost beyond all measure would stop every call."""
    with pytest.raises(HashError, match="its cost is 31"):
        read_hash(base64.b64encode(b"$2b$31$" + HASH[7:]).decode())
