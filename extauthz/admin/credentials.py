"""Who may use the admin API: one user, whose password is known by its bcrypt hash.

Verifying a password is slow on purpose. So it is done in a thread of its own, one at a time, and only so many
may wait for it; a credential that was right is known again for a while by a keyed digest; and whoever was
wrong a few times has to wait, longer each time, before another guess is looked at.

Each worker counts for itself. Networks of IPv6 count as one address, as whoever has one has 2**64 of them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import math
import re
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import bcrypt

from extauthz.pdp.errors import Code, PdpError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from extauthz.pdp.method import Caller

logger = logging.getLogger(__name__)

REMEMBERED: Final = 60.0
"""Seconds for which a credential that was right is not verified again."""
MAX_WAITING: Final = 8
"""Callers who may wait for a verification at a time."""
FREE_GUESSES: Final = 5
"""Wrong passwords from one address before the next one is delayed."""
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 60.0
MAX_ADDRESSES: Final = 1024
"""Addresses of which wrong guesses are remembered; the one that was silent longest is forgotten first."""
MAX_HEADER: Final = 1024
"""Characters of an ``authorization`` header that are looked at."""
BCRYPT_BYTES: Final = 72
"""bcrypt looks no further into a password; what makes hashes for Cerbos cuts it off there."""
MAX_COST: Final = 14
"""Of a hash; verifying takes about a second then."""
LEAST_COST: Final = 10
"""Below this a stolen hash is soon guessed."""
CERBOS_PASSWORD: Final = b"cerbosAdmin"
"""What Cerbos takes where nothing is configured: everybody knows it."""

_HASH: Final = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


class HashError(ValueError):
    """What should be the hash of a password is none; worded for whoever configured it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user, and the bcrypt hash of the password."""

    username: str
    password_hash: bytes

    @property
    def cost(self) -> int:
        """Of the hash: the binary logarithm of the work."""
        return int(self.password_hash[4:6])


def read_hash(text: str) -> bytes:
    """Read a bcrypt hash in base64, as ``passwordHash`` holds it.

    Raises:
        HashError: it is not one, or takes too long to verify.

    """
    try:
        found = base64.b64decode("".join(text.split()), validate=True).strip()
    except (binascii.Error, ValueError):
        raise HashError("must be base64 of a bcrypt hash") from None
    match = _HASH.fullmatch(found)
    if match is None:
        raise HashError("must be base64 of a bcrypt hash, such as `$2b$12$...`")
    if int(match[1]) > MAX_COST:
        raise HashError(f"takes too long to verify: its cost is {int(match[1])}, the most is {MAX_COST}")
    return found


def check_hash(password_hash: bytes) -> None:
    """Refuse the hash of a password that everybody knows; takes as long as verifying one does.

    Raises:
        HashError: it is that of the password which Cerbos has by default.

    """
    if _is_password(CERBOS_PASSWORD, password_hash):
        raise HashError("is that of the password which Cerbos publishes as its default")


def made_hash(password: str, cost: int = 12) -> str:
    """Make what ``passwordHash`` wants of a password.

    Raises:
        HashError: the password is empty, or longer than bcrypt can tell apart.

    """
    secret = password.encode()
    if not secret or b"\0" in secret:
        raise HashError("a password must not be empty or hold NUL")
    if len(secret) > BCRYPT_BYTES:
        raise HashError(
            f"a password must not be longer than {BCRYPT_BYTES} bytes, which is what bcrypt looks at"
        )
    return base64.b64encode(bcrypt.hashpw(secret, bcrypt.gensalt(cost))).decode()


def _is_password(password: bytes, password_hash: bytes) -> bool:
    if b"\0" in password:
        return False
    try:
        return bcrypt.checkpw(password[:BCRYPT_BYTES], password_hash)
    except ValueError:  # a hash that has the form, but no meaning
        return False


class Gate:
    """Lets callers with the credential pass; :meth:`admit` is the guard of the calls."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = credentials
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known = b""
        self._known_until = 0.0
        self._guesses = Guesses(clock)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="admin-password")

    async def admit(self, caller: Caller) -> None:
        """Return when *caller* may use the API.

        Raises:
            PdpError: the credential is missing or wrong, or it is not the time for a guess.

        """
        _refuse_other_origins(caller.headers)
        given = _given(caller.headers)
        if not self._is_known(given):
            await self._verify(given, caller.peer)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_known(self, given: bytes) -> bool:
        return self._clock() < self._known_until and hmac.compare_digest(self._digest(given), self._known)

    def _digest(self, given: bytes) -> bytes:
        return hmac.digest(self._key, given, "sha256")

    async def _verify(self, given: bytes, address: str) -> None:
        self._guesses.check(address)
        if self._waiting >= MAX_WAITING:
            raise PdpError(Code.TOO_MANY, "too many callers are being authenticated: try again later")
        self._waiting += 1
        try:
            async with self._turn:
                self._guesses.check(address)  # guesses before this one may have been wrong meanwhile
                await self._verified(given, address)
        finally:
            self._waiting -= 1

    async def _verified(self, given: bytes, address: str) -> None:
        if self._is_known(given):
            return
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._thread, self._is_right, given):
            self._guesses.count(address)
            logger.warning("wrong credentials for the admin API", extra={"peer": address})
            raise PdpError(Code.UNAUTHENTICATED, "incorrect credentials")
        self._guesses.forget(address)
        self._known, self._known_until = self._digest(given), self._clock() + REMEMBERED

    def _is_right(self, given: bytes) -> bool:
        """Compare both parts, always at the cost of the password's."""
        username, _, password = given.partition(b":")
        right_user = hmac.compare_digest(username, self._credentials.username.encode())
        right_password = _is_password(password, self._credentials.password_hash)
        return right_user and right_password


def _given(headers: Mapping[str, str]) -> bytes:
    """Return ``user:password`` of a call; the words of refusals are Cerbos's."""
    header = headers.get("authorization", "")
    if not header:
        raise PdpError(Code.UNAUTHENTICATED, "authentication required")
    scheme, _, encoded = header[:MAX_HEADER].partition(" ")
    if scheme.lower() != "basic":
        raise PdpError(Code.UNAUTHENTICATED, "unsupported authentication method")
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise PdpError(Code.UNAUTHENTICATED, "failed to decode credentials") from None
    if b":" not in given:
        raise PdpError(Code.UNAUTHENTICATED, "invalid credentials")
    return given


def _refuse_other_origins(headers: Mapping[str, str]) -> None:
    """Refuse what a page of another site makes a browser send: browsers add the password that they know.

    ``Sec-Fetch-Site`` is in every request of today's browsers (https://www.w3.org/TR/fetch-metadata), and
    no page can change it.
    """
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise PdpError(Code.PERMISSION_DENIED, "the admin API is not for pages of other sites")
    origin = headers.get("origin", "")
    if origin and origin.partition("://")[2] != headers.get("host", ""):
        raise PdpError(Code.PERMISSION_DENIED, "the admin API is not for pages of other sites")


class Guesses:
    """Wrong guesses by address, and how long each address has to wait before the next one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Refuse a guess that comes too early; raises :class:`PdpError`."""
        wait = self._wait(_network(address))
        if wait > 0:
            raise PdpError(Code.TOO_MANY, f"too many wrong credentials: try again in {math.ceil(wait)} s")

    def _wait(self, network: str) -> float:
        count, last = self._wrong.get(network, (0, 0.0))
        if count < FREE_GUESSES:
            return 0.0
        delay = min(FIRST_DELAY * 2.0 ** min(count - FREE_GUESSES, 16), LONGEST_DELAY)
        return last + delay - self._clock()

    def count(self, address: str) -> None:
        """Remember a wrong guess."""
        network = _network(address)
        count, _ = self._wrong.pop(network, (0, 0.0))
        self._wrong[network] = count + 1, self._clock()
        if len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)

    def forget(self, address: str) -> None:
        """Begin anew, after a right one."""
        self._wrong.pop(_network(address), None)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
