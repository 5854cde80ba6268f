"""Decision ids: ULIDs, so that they sort by time and never repeat between workers.

A ULID is 48 bits of milliseconds and 80 bits of chance, as 26 characters of Crockford's base 32
(https://github.com/ulid/spec). The 80 bits are drawn once and then counted up, the "monotonic" form of the
specification: drawing anew for every request costs more than the whole rest of the id. An id names a
decision; it is not a secret.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
"""The two characters of each 10-bit number."""

COUNTER_BITS = 80
TAIL_BITS = 20
"""The part of the counter that changes at every id; the head above it is encoded once in a million ids."""


def decision_ids(
    now: Callable[[], int] = time.time_ns,
    start: int | None = None,
) -> Callable[[], str]:
    """Return a function that makes a new id at each call.

    *now* gives nanoseconds since the epoch. *start* fixes the counter (tests); each process must draw its
    own, so call this after a fork.
    """
    counter = secrets.randbits(COUNTER_BITS) if start is None else start
    head, tail = divmod(counter, 1 << TAIL_BITS)
    encoded_head = _encoded(head, 6)
    encoded_at = -1
    timestamp = ""

    def next_id() -> str:
        nonlocal head, tail, encoded_head, encoded_at, timestamp
        milliseconds = now() // 1_000_000
        if milliseconds != encoded_at:
            encoded_at, timestamp = milliseconds, _encoded(milliseconds, 5)
        number = tail
        here = encoded_head
        tail += 1
        if tail >> TAIL_BITS:
            head, tail = (head + 1) % (1 << (COUNTER_BITS - TAIL_BITS)), 0
            encoded_head = _encoded(head, 6)
        return f"{timestamp}{here}{PAIRS[number >> 10]}{PAIRS[number & 1023]}"

    return next_id


def _encoded(number: int, pairs: int) -> str:
    return "".join([PAIRS[(number >> shift) & 1023] for shift in range(10 * (pairs - 1), -1, -10)])
