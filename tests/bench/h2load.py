"""Load by ``h2load`` (Debian's ``nghttp2-client``): bounded, every answer counted, each request timed.

In a *closed* loop a number of requests is always under way: the next is sent when one is answered. That shows
what a server can do, and hides how long requests would wait that cannot be sent meanwhile. At a *fixed rate*
requests are sent at moments that were drawn beforehand (a Poisson process, as many independent callers make
it), whether earlier ones are answered or not.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_STREAMS: Final = 100
"""Requests under way on one connection at a fixed rate, at most: Envoy's and many servers' own limit."""
GENERATORS: Final = 4
"""Processes that together make a fixed rate, a connection each."""
LATE: Final = 0.5
"""Milliseconds that h2load (1.52) waits too long between two requests of a script, on average. It counts each
gap from the request before, so this adds up: at 1,500/s it sent 17 % too few. With gaps shorter by so much it
is within 5 % of 500, 1,500 and 3,000 requests a second."""
PATIENCE: Final = 120.0
"""Seconds that one load may take, at most."""


class LoadError(RuntimeError):
    """Not every request was answered as it has to be; says what h2load counted."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, again and again."""

    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: Path | None = None
    authority: str = "127.0.0.1"
    http1: bool = False
    """HTTP/1.1, one request at a time on each connection."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop; *connections* times *streams* requests are under way."""

    connections: int
    streams: int

    @property
    def label(self) -> str:
        """As tables have it."""
        return f"{self.connections * self.streams} in flight"


@dataclass(frozen=True, slots=True)
class Fixed:
    """An open loop; *rate* in requests a second."""

    rate: float

    @property
    def label(self) -> str:
        """As tables have it."""
        return f"{self.rate:,.0f}/s"


Load = Closed | Fixed


@dataclass(frozen=True, slots=True)
class Counted:
    """What h2load says at the end."""

    requests: int
    succeeded: int
    with_status_2xx: int
    data_bytes: int
    """Of all bodies together."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load found."""

    requests: int
    rate: float
    """Requests a second."""
    latencies: tuple[int, ...]
    """Microseconds from sending each request to the end of its answer, sorted."""


def available() -> bool:
    """Whether h2load is installed."""
    return shutil.which("h2load") is not None


def version() -> str:
    """Return the version that the program tells (``h2load nghttp2/1.52.0``)."""
    said = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)  # noqa: S607 # found on the PATH as every tool here
    return said.stdout.rpartition("/")[2].strip()


def run(
    target: Target, load: Load, requests: int, directory: Path, *, answer_bytes: int, seed: int = 0
) -> Loaded:
    """Send *requests* and wait for the answers; every one has to be 2xx and its body *answer_bytes* long.

    Raises:
        LoadError: one is not, or is missing, or *PATIENCE* is over.

    """
    if isinstance(load, Closed):
        return _checked(_closed(target, load, requests, directory), answer_bytes)
    return _checked(_fixed(target, load, requests, directory, seed), answer_bytes)


_Outcome = tuple[Counted, list[tuple[int, int]]]


def _closed(target: Target, load: Closed, requests: int, directory: Path) -> list[_Outcome]:
    url = f"http://{target.authority}{target.path}"
    shape = ["-n", str(requests), "-c", str(load.connections), "-m", str(load.streams), url]
    return [_h2load(target, shape, directory / "closed.log")]


def _fixed(target: Target, load: Fixed, requests: int, directory: Path, seed: int) -> list[_Outcome]:
    with ThreadPoolExecutor(GENERATORS) as pool:
        started = [
            pool.submit(
                _scripted, target, load.rate / GENERATORS, share, directory / f"fixed{number}", seed + number
            )
            for number, share in enumerate(shares(requests, GENERATORS))
            if share
        ]
        return [each.result() for each in started]


def _scripted(target: Target, rate: float, requests: int, script: Path, seed: int) -> _Outcome:
    url = f"http://{target.authority}{target.path}"
    lines = [f"{moment:.3f}\t{url}\n" for moment in paced(arrivals(rate, requests, seed))]
    script.write_text("".join(lines))
    shape = ["-n", str(requests), "-c", "1", "-m", str(MAX_STREAMS), f"--timing-script-file={script}"]
    return _h2load(target, shape, script.with_suffix(".log"))


def _h2load(target: Target, shape: list[str], log: Path) -> _Outcome:
    log.unlink(missing_ok=True)  # h2load appends
    command = ["h2load", "-t", "1", f"--connect-to=127.0.0.1:{target.port}", f"--log-file={log}", *shape]
    command += [word for name, value in target.headers for word in ("-H", f"{name}: {value}")]
    command += ["-d", str(target.body)] if target.body is not None else []
    command += ["--h1"] if target.http1 else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)  # noqa: S603 # our own words
    except subprocess.TimeoutExpired as late:
        raise LoadError(f"h2load did not end within {PATIENCE:.0f} s") from late
    if done.returncode != 0:
        raise LoadError(f"h2load failed:\n{done.stdout}{done.stderr}")
    return counted(done.stdout), logged(log.read_text())


def _checked(outcomes: Sequence[_Outcome], answer_bytes: int) -> Loaded:
    """Put the outcomes of generators that ran side by side together; not one answer may be wrong."""
    for count, answers in outcomes:
        expected = (count.requests, count.requests, count.requests * answer_bytes, count.requests)
        if (count.succeeded, count.with_status_2xx, count.data_bytes, len(answers)) != expected:
            raise LoadError(f"not every answer is what it has to be ({answer_bytes} bytes each): {count}")
    latencies = sorted(took for _, answers in outcomes for _, took in answers)
    return Loaded(len(latencies), sum(_rate(answers) for _, answers in outcomes), tuple(latencies))


def _rate(answers: Sequence[tuple[int, int]]) -> float:
    """Divide the requests of one generator by the time from its first request to its last answer.

    Several do not begin at the same moment: from the first beginning to the last end would be too long.
    """
    began = min(start for start, _ in answers)
    ended = max(start + took for start, took in answers)
    return len(answers) / (ended - began) * 1e6


# --- pure -------------------------------------------------------------------------------------------------


def shares(total: int, parts: int) -> list[int]:
    """Divide a number into parts that differ by one at most."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def arrivals(rate: float, requests: int, seed: int) -> list[float]:
    """Draw the moments, in milliseconds, of a Poisson process that has so many in the time it should have.

    The same for the same *seed*.
    """
    drawn = random.Random(seed)  # noqa: S311 # not for secrets
    return sorted(drawn.uniform(0, requests / rate * 1000) for _ in range(requests))


def paced(moments: Sequence[float]) -> list[float]:
    """Write moments as h2load has to be told them, so that it keeps them on the whole."""
    gaps = [late - early for early, late in itertools.pairwise((0.0, *moments))]
    return list(itertools.accumulate(max(0.0, gap - LATE) for gap in gaps))


def counted(output: str) -> Counted:
    """Read the summary that h2load prints.

    Raises:
        LoadError: it is not there.

    """
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m)\b", output, re.MULTILINE)
    requests = re.search(r"^requests: (\d+) total, .* (\d+) succeeded", output, re.MULTILINE)
    statuses = re.search(r"^status codes: (\d+) 2xx", output, re.MULTILINE)
    traffic = re.search(r"^traffic: .* \((\d+)\) data", output, re.MULTILINE)
    if not (finished and requests and statuses and traffic):
        raise LoadError(f"h2load did not say what it counted:\n{output}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]
    return Counted(
        int(requests[1]), int(requests[2]), int(statuses[1]), int(traffic[1]), float(finished[1]) * unit
    )


def logged(text: str) -> list[tuple[int, int]]:
    """Read h2load's log: when each request started (microseconds since the epoch), how long it took (too).

    Raises:
        LoadError: one was not answered with 2xx.

    """
    rows = [line.split("\t") for line in text.splitlines()]
    bad = [status for _, status, *_ in rows if not status.startswith("2")]
    if bad:
        raise LoadError(
            f"{len(bad)} of {len(rows)} requests were answered with {', '.join(sorted(set(bad)))}"
        )
    return [(int(start), int(took)) for start, _, took, *_ in rows]
