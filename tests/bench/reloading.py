"""Requests while policies change: how much later their answers come.

A server with 10,000 policies is asked at a fixed rate: in peace, while files are changed one after the other
that it does not follow (what writing costs the machine), and while its own are; several times, taking turns.
No request may fail, and the 99th percentile may double.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench import loading
from tests.bench.measure import Measurement
from tests.bench.peers.expenses import EXT_AUTHZ, framed
from tests.bench.processes import await_ready, listens, running, tree
from tests.bench.service import CONFIGURATION, DERIVED_ROLES, POLICY, environment, request
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POLICIES: Final = 10_000
CLIENTS: Final = 4
RATE: Final = 50
"""Requests a second of each client: far from all that one worker can do, even on a busy machine."""

START: Final = 300.0
SECONDS: Final = 10
TURNS: Final = 5
CHANGES: Final = 67
"""In each turn: more than 200 altogether."""

REST: Final = 3.0
"""Seconds after a turn: changes are followed by a look at all files, which belongs to no turn of peace."""

PEACE: Final = "in peace"
ELSEWHERE: Final = "while other files change"
CHANGING: Final = "while policies change"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that follows its policies: process and gRPC port."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured of the requests of some seconds, in milliseconds."""

    p50: float
    p99: float


def reload(rounds: int) -> Iterator[Measurement]:
    """Measure the time of requests in peace, and while policies change."""
    del rounds
    if shutil.which("h2load") is None:
        print("reload: h2load is not installed (Debian: nghttp2-client); left out", file=sys.stderr)  # noqa: T201 # a message of a command
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        policies = directory / "served" / "policies"
        elsewhere = directory / "elsewhere"
        for each in (policies, elsewhere):
            each.mkdir(parents=True)
            loading.write_policies(each, POLICIES)
        server = stack.enter_context(_following(directory / "served"))
        payload = directory / "request.bin"
        payload.write_bytes(framed(request()))
        _turn(server, payload, directory)
        around: Mapping[str, AbstractContextManager[None]] = {
            PEACE: nullcontext(),
            ELSEWHERE: _Changes(elsewhere),
            CHANGING: _Changes(policies),
        }
        found: dict[str, list[Turn]] = {name: [] for name in around}
        for _ in range(TURNS):
            for name, meanwhile in around.items():
                time.sleep(REST)
                with meanwhile:
                    found[name].append(_turn(server, payload, directory))
        memory = max(map(loading.resident, tree([server.pid])))
    yield from _measurements(found)
    yield Measurement("reload", f"memory of a worker, {POLICIES:,} policies", memory, "MiB", budget=300)


def _measurements(found: dict[str, list[Turn]]) -> Iterator[Measurement]:
    peace = statistics.median(turn.p99 for turn in found[PEACE])
    for name, turns in found.items():
        for percentile in ("p50", "p99"):
            values = sorted(getattr(turn, percentile) for turn in turns)
            yield Measurement(
                "reload",
                f"{percentile} {name}",
                statistics.median(values),
                "ms",
                values[0],
                values[-1],
                ratio=statistics.median(values) / peace if percentile == "p99" else None,
                budget=2 * peace if percentile == "p99" and name == CHANGING else None,
            )


class _Changes(AbstractContextManager[None]):
    """Changes a file after the other, evenly over the seconds of a turn; never to what it was before."""

    def __init__(self, policies: Path) -> None:
        self._policies = policies
        self._stop = threading.Event()
        self._made = 0

    def __enter__(self) -> None:
        self._stop.clear()
        self._before = self._made
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        made = self._made - self._before
        if made < CHANGES:
            raise RuntimeError(f"only {made} changes were made")

    def _run(self) -> None:
        while not self._stop.wait(SECONDS / CHANGES * 0.75):
            number = self._made * 37 % POLICIES
            path = self._policies / f"team{number // 100}" / f"kind{number}.yaml"
            path.write_text(loading.policy(number, self._made))
            self._made += 1


@contextmanager
def _following(directory: Path) -> Iterator[Server]:
    """Serve the policies in *directory*, and follow their changes."""
    policies = directory / "policies"
    (policies / "roles.yaml").write_text(DERIVED_ROLES)
    (policies / "expense.yaml").write_text(POLICY.replace("KIND", "expense"))
    watching = CONFIGURATION.replace('"${POLICIES}"}', '"${POLICIES}", watchForChanges: true}')
    (directory / "extauthz.yaml").write_text(watching)
    port = free_port()
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(directory / "extauthz.yaml")]
    variables = environment(policies, grpc=f"127.0.0.1:{port}", workers=1)
    variables["XDG_CACHE_HOME"] = str(directory / "cache")
    log = directory / "extauthz.log"
    with running(command, log, variables) as process:
        await_ready(process, log, lambda: listens(port), START)
        yield Server(process.pid, port)


def _turn(server: Server, payload: Path, directory: Path) -> Turn:
    log = directory / "requests.log"
    log.unlink(missing_ok=True)
    command = [
        *("h2load", "-c", str(CLIENTS), "-m", "1", "-t", "1"),
        *("--rps", str(RATE), "-n", str(CLIENTS * RATE * SECONDS)),
        *("-d", str(payload), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        *("--log-file", str(log), f"http://127.0.0.1:{server.port}{EXT_AUTHZ}"),
    ]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS * 10)  # noqa: S603 # our own words
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or len(lines) != CLIENTS * RATE * SECONDS:
        raise RuntimeError(f"of {len(lines)} requests {len(failed)} failed")
    times = sorted(int(line[2]) / 1e3 for line in lines)
    return Turn(times[len(times) // 2], times[len(times) * 99 // 100])
