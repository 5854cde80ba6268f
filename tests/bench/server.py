"""The server as a process under load, beside an empty handler on the same transport.

``h2load`` (Debian's ``nghttp2-client``) sends gRPC requests over a few connections, as Envoy does; rounds of
the servers alternate, and processor time is what the kernel accounts to a server's processes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.measure import Measurement
from tests.bench.service import CONFIGURATION, environment, request, write_policies

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS: Final = 6000
"""For each round; bounded, so that the load ends by itself."""
CONNECTIONS: Final = 4
STREAMS: Final = 8
MAX_ROUNDS: Final = 9
READY: Final = 60.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
EMPTY: Final = Path(__file__).parent / "empty_server.py"
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of load measured."""

    requests_a_second: float
    cpu: float
    """Microseconds of the server for each request."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process to be loaded."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """Return the processor time of the process and its children so far."""
        pids = [self.process.pid, *_children(self.process.pid)]
        return sum(_cpu_ticks(pid) for pid in pids) / TICKS


def server(rounds: int) -> Iterator[Measurement]:
    """Measure requests a second and processor time a request: transport only, one worker, several."""
    if shutil.which("h2load") is None:
        print("server: h2load is not installed (Debian: nghttp2-client); left out", file=sys.stderr)  # noqa: T201 # a message of a command
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cores = os.cpu_count() or 1
        servers = {
            "empty handler": stack.enter_context(_empty(directory)),
            "extauthz, 1 worker": stack.enter_context(_extauthz(directory / "one", 1)),
            f"extauthz, {cores} workers": stack.enter_context(_extauthz(directory / "all", cores)),
        }
        payload = directory / "request.bin"
        payload.write_bytes(_framed(request()))
        found: dict[str, list[Round]] = {name: [] for name in servers}
        for _ in range(min(rounds, MAX_ROUNDS)):
            for name, each in servers.items():
                found[name].append(_load(each, payload))
        yield from _measurements(found)


def _measurements(found: dict[str, list[Round]]) -> Iterator[Measurement]:
    first = next(iter(found.values()))
    for name, rounds in found.items():
        speeds = [each.requests_a_second for each in rounds]
        ratio = statistics.median(
            one / other.requests_a_second for one, other in zip(speeds, first, strict=True)
        )
        yield Measurement(
            "server",
            name,
            statistics.median(speeds),
            "requests/s",
            min(speeds),
            max(speeds),
            ratio,
            None,
            True,
        )
    for name, rounds in found.items():
        costs = [each.cpu for each in rounds]
        ratio = statistics.median(one / other.cpu for one, other in zip(costs, first, strict=True))
        yield Measurement("server", name, statistics.median(costs), "µs CPU", min(costs), max(costs), ratio)


def _load(each: Server, payload: Path) -> Round:
    command = [
        *("h2load", "-n", str(REQUESTS), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-t", "1"),
        *("-d", str(payload), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://127.0.0.1:{each.port}{CHECK}",
    ]
    before = each.cpu_seconds()
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)  # noqa: S603 # our own words
    spent = each.cpu_seconds() - before
    finished = re.search(r"finished in .*?, ([\d.]+) req/s", result.stdout)
    succeeded = re.search(r"(\d+) succeeded", result.stdout)
    if finished is None or succeeded is None or int(succeeded[1]) != REQUESTS:
        raise RuntimeError(f"not every request succeeded:\n{result.stdout}")
    return Round(float(finished[1]), spent / REQUESTS * 1e6)


def _framed(message: bytes) -> bytes:
    """Put gRPC's five bytes before a message: not compressed, its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


# --- processes --------------------------------------------------------------------------------------------


@contextmanager
def _empty(directory: Path) -> Iterator[Server]:
    port = _free_port()
    with _process([sys.executable, str(EMPTY), str(port)], directory / "empty.log") as process:
        yield _ready(process, port)


@contextmanager
def _extauthz(directory: Path, workers: int) -> Iterator[Server]:
    policies = directory / "policies"
    policies.mkdir(parents=True)
    write_policies(policies)
    (directory / "extauthz.yaml").write_text(CONFIGURATION)
    port = _free_port()
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(directory / "extauthz.yaml")]
    variables = environment(policies, grpc=f"127.0.0.1:{port}", workers=workers)
    with _process(command, directory / "extauthz.log", variables) as process:
        yield _ready(process, port)


@contextmanager
def _process(
    command: list[str], log: Path, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 # our own words
            command, stdout=output, stderr=output, env={**os.environ, **(variables or {})}
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _ready(process: subprocess.Popen[bytes], port: int, seconds: float = READY) -> Server:
    """Wait until somebody listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(1)  # every worker
            return Server(process, port)
    raise RuntimeError(f"`{process.args!r}` did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_ticks(pid: int) -> int:
    """Return user and system time of a process (``proc_pid_stat(5)``, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
