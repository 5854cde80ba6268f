"""The real Cerbos, started by the tests and asked over loopback.

The binary is the one that ``CERBOS_BINARY`` names, or else the npm package that ``make oracle`` installs, or
else a ``cerbos`` on the ``PATH``. Tests that need it are skipped where there is none, except in CI
(``CI=true``), where that is a failure.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.differential import peers
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from subprocess import CompletedProcess

REQUIRED = os.environ.get("CI", "").lower() == "true"
START_SECONDS = 120.0
"""Cerbos compiles some twenty expressions a second where others need the processor too."""

ANSWER_SECONDS = 300.0
STOP_SECONDS = 10.0
ATTEMPTS = 3
"""A port that was free a moment ago may be taken when the server comes to listen on it."""

# The shell lets go of the server when the pipe behind descriptor 3 closes, that is also when we are killed.
SUPERVISED = """
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
( cat <&3 >/dev/null; kill "$server" 2>/dev/null ) &
exec 3<&-
wait "$server"
"""


class OracleError(Exception):
    """Cerbos did not start, or did not answer; the message has the end of its log."""


@functools.cache
def find_binary() -> Path | None:
    """Return the path of the Cerbos binary, ``None`` when there is none.

    Raises:
        OracleError: ``CERBOS_BINARY`` names something that is not there, or the version is another one.

    """
    named = os.environ.get("CERBOS_BINARY")
    if named:
        found = Path(named).resolve()
        if not found.is_file():
            raise OracleError(f"CERBOS_BINARY={named}: there is no such file")
        return _pinned(found)
    installed = peers.installed()
    if installed.is_file():
        return _pinned(installed)
    on_path = shutil.which("cerbos")
    return _pinned(Path(on_path)) if on_path else None


def cerbos_binary() -> Path:
    """Return the path of the Cerbos binary; skip the test (in CI: fail) when there is none."""
    found = find_binary()
    if found is not None:
        return found
    reason = f"no Cerbos {peers.VERSION}: run `make oracle` or set CERBOS_BINARY"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def cerbosctl_binary() -> Path:
    """Return the path of the ``cerbosctl`` binary; skip the test (in CI: fail) when there is none."""
    named = os.environ.get("CERBOSCTL_BINARY")
    found = Path(named) if named else peers.installed(peers.CERBOSCTL)
    if found.is_file():
        return found
    reason = f"no cerbosctl {peers.VERSION}: run `make oracle` or set CERBOSCTL_BINARY"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def _pinned(binary: Path) -> Path:
    said = subprocess.run(  # noqa: S603 - the binary that whoever runs the tests has named
        [binary, "--version"], capture_output=True, text=True, timeout=START_SECONDS, check=True
    )
    version = said.stdout.split("\n", 1)[0].strip()
    if version != peers.VERSION:
        raise OracleError(f"{binary} is Cerbos {version}; the tests are written against {peers.VERSION}")
    return binary


def compile_policies(directory: Path, *arguments: str, timeout: float = 60.0) -> CompletedProcess[str]:
    """Run ``cerbos compile`` on a directory of policies; exit code, output and errors as they come."""
    return subprocess.run(  # noqa: S603 - see above
        [cerbos_binary(), "compile", *arguments, os.fspath(directory)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=_environment(),
    )


@dataclass
class Oracle:
    """A running Cerbos; one connection, so one thread at a time."""

    http_port: int
    grpc_port: int
    log: Path
    decision_log: Path | None = None
    _process: subprocess.Popen[bytes] | None = None
    _connection: http.client.HTTPConnection | None = None

    @property
    def url(self) -> str:
        """The base address of the REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        """``host:port`` of the gRPC API."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def pid(self) -> int:
        """The process that has started the server; all that works for the server descends from it."""
        assert self._process is not None
        return self._process.pid

    def ask(self, path: str, body: Any) -> tuple[int, Any]:
        """POST *body* as JSON; return the status and the JSON of the answer."""
        payload = json.dumps(body, ensure_ascii=False).encode()
        return self.post(path, payload)

    def post(self, path: str, payload: bytes) -> tuple[int, Any]:
        """POST bytes as they are; return the status and the JSON of the answer."""
        return self._request("POST", path, payload)

    def get(self, path: str) -> tuple[int, Any]:
        """GET a path; return the status and the JSON of the answer."""
        return self._request("GET", path, None)

    def check(self, body: Any) -> Any:
        """Ask ``CheckResources``; the answer as JSON.

        Raises:
            OracleError: any status but 200.

        """
        return self._answered("/api/check/resources", body)

    def plan(self, body: Any) -> Any:
        """Ask ``PlanResources``; the answer as JSON.

        Raises:
            OracleError: any status but 200.

        """
        return self._answered("/api/plan/resources", body)

    def _answered(self, path: str, body: Any) -> Any:
        status, answer = self.ask(path, body)
        if status != http.client.OK:
            raise OracleError(f"{path}: {status} {answer}")
        return answer

    def _request(self, method: str, path: str, payload: bytes | None) -> tuple[int, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=ANSWER_SECONDS)
        self._connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None

    # -- life ----------------------------------------------------------------------------------------------

    def wait_until_healthy(self, patience: float = START_SECONDS) -> bool:
        """Wait for the server; false when it has ended instead (a port was taken, or a policy is wrong)."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                return False
            try:
                if self.get("/_cerbos/health")[0] == http.client.OK:
                    return True
            except (OSError, http.client.HTTPException, ValueError):
                self._disconnect()
            time.sleep(0.01)
        raise OracleError(f"Cerbos was not healthy within {patience:.0f} s:\n{self.log_end()}")

    def log_end(self) -> str:
        """Return the last lines that the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        """End the server and everything it started."""
        self._disconnect()
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def cerbos(
    directory: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    decision_log: bool = False,
    patience: float = START_SECONDS,
) -> Iterator[Oracle]:
    """Run a Cerbos over a directory of policies; *settings* are blocks of its configuration.

    Of the block ``server`` the addresses stay ours, whatever else *settings* say.

    With *decision_log* each check is written to :attr:`Oracle.decision_log`, one JSON object a line, with the
    errors of evaluation that the API does not tell.

    Raises:
        OracleError: the server does not start, for example because a policy is wrong, or not within
            *patience* (seconds).

    """
    with tempfile.TemporaryDirectory(prefix="cerbos-") as folder:
        oracle = _started(directory, Path(folder), dict(settings or {}), decision_log, patience)
        try:
            yield oracle
        finally:
            oracle.stop()


def _started(
    directory: Path, folder: Path, settings: dict[str, Any], decision_log: bool, patience: float
) -> Oracle:
    for attempt in range(ATTEMPTS):
        oracle = _start(directory, folder, settings, decision_log=decision_log)
        try:
            if oracle.wait_until_healthy(patience):
                return oracle
        except BaseException:
            oracle.stop()
            raise
        oracle.stop()
        if "address already in use" not in oracle.log_end() or attempt == ATTEMPTS - 1:
            break
    raise OracleError(f"Cerbos did not start:\n{oracle.log_end()}")


def _start(directory: Path, folder: Path, settings: dict[str, Any], *, decision_log: bool) -> Oracle:
    http_port, grpc_port = free_port(), free_port()
    decisions = folder / "decisions.log" if decision_log else None
    if decisions is not None:
        decisions.touch()
    oracle = Oracle(http_port, grpc_port, folder / "cerbos.log", decisions)
    configuration = folder / "configuration.yaml"
    blocks = _blocks(directory, http_port, grpc_port, decisions)
    blocks |= {**settings, "server": {**settings.get("server", {}), **blocks["server"]}}
    configuration.write_text(json.dumps(blocks).replace("$", "$$"))
    command = [os.fspath(cerbos_binary()), "server", "--debug-listen-addr=", f"--config={configuration}"]
    with oracle.log.open("wb") as log:
        oracle._process = subprocess.Popen(  # noqa: S603 - see above
            ["/bin/sh", "-c", SUPERVISED, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_environment(),
        )
    return oracle


def _blocks(directory: Path, http_port: int, grpc_port: int, decisions: Path | None) -> dict[str, Any]:
    audit: dict[str, Any] = {"enabled": False}
    if decisions is not None:
        audit = {
            "enabled": True,
            "accessLogsEnabled": False,
            "decisionLogsEnabled": True,
            "backend": "file",
            "file": {"path": os.fspath(decisions)},
        }
    return {
        "server": {
            "httpListenAddr": f"127.0.0.1:{http_port}",
            "grpcListenAddr": f"127.0.0.1:{grpc_port}",
            "metricsEnabled": False,
            "requestLimits": {"maxActionsPerResource": 500, "maxResourcesPerRequest": 500},
        },
        "storage": {
            "driver": "disk",
            "disk": {"directory": os.fspath(directory.resolve()), "watchForChanges": False},
        },
        "telemetry": {"disabled": True},
        "audit": audit,
    }


def _environment() -> dict[str, str]:
    """Return our environment without what would configure a Cerbos from the side."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CERBOS_", "OTEL_"))}
    return {**kept, "CERBOS_NO_TELEMETRY": "1", "NO_COLOR": "1"}
