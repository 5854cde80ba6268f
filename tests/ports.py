"""Ports for servers under test.

Several test processes run at a time (pytest-xdist). Ports that the kernel hands out are free when they are
asked for, and may be somebody else's a moment later; so each process takes its ports from a range of its own,
below the one that the kernel takes from.
"""

from __future__ import annotations

import itertools
import os
import re
import socket

FIRST, LAST = 15_000, 32_000
"""Linux hands out ports from 32,768 on."""
SHARES = 8


def _share() -> range:
    """Return the ports of this process: of a worker of pytest-xdist its own share, else one of any."""
    named = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
    size = (LAST - FIRST) // SHARES
    number = int(named[0]) % SHARES if named else os.getpid() % SHARES
    return range(FIRST + number * size, FIRST + (number + 1) * size)


_PORTS = _share()
_NEXT = itertools.count(os.getpid() * 7)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, and that this process has not had lately."""
    for _ in range(len(_PORTS)):
        port = _PORTS[next(_NEXT) % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port of 127.0.0.1 is free")
