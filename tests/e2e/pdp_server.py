"""``extauthz serve`` as a process of its own, on ports of the loopback that the system picks."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE = 30.0
"""Seconds for a start or an end, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Served:
    """Where a server is."""

    http: str
    """A URL."""
    grpc: str
    """``host:port``"""


@contextlib.contextmanager
def extauthz(
    folder: Path,
    policies: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    tls: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Serve *policies* from an empty *folder*; *settings* are further blocks of the configuration.

    *tls* is ``server.tls``; its certificate has to be good for ``localhost``.
    """
    log = folder / "extauthz.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own command line
            [
                sys.executable,
                "-m",
                "extauthz",
                "serve",
                "-c",
                _configuration(folder, policies, settings, tls),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _await_ready(process, log, "https" if tls else "http", (tls or {}).get("caCert"))
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def _configuration(
    folder: Path, policies: Path, settings: Mapping[str, Any] | None, tls: Mapping[str, str] | None
) -> Path:
    given = dict(settings or {})
    server = {"httpListenAddr": "127.0.0.1:0", "grpcListenAddr": "127.0.0.1:0", **given.pop("server", {})}
    if tls:
        server["tls"] = {"cert": tls["cert"], "key": tls["key"]}
    storage = {"driver": "disk", "disk": {"directory": str(policies)}}
    blocks = {"server": server, "storage": storage, **given}
    file = folder / "extauthz.yaml"
    file.write_text(json.dumps(blocks).replace("$", "$$"), encoding="utf-8")
    return file


def _await_ready(process: subprocess.Popen[bytes], log: Path, scheme: str, ca: str | None) -> Served:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        served = _listening(log, scheme)
        if served is not None and _is_ready(served.http, ca):
            return served
        time.sleep(0.05)
    raise AssertionError(f"extauthz is not ready:\n{log.read_text(encoding='utf-8')}")


def _listening(log: Path, scheme: str) -> Served | None:
    """Find the addresses in the log, where they are as soon as the ports are open."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        is_whole = line.startswith("{") and line.endswith("}\n")
        if is_whole and (entry := json.loads(line))["message"] == "listening":
            host = "localhost" if scheme == "https" else "127.0.0.1"
            return Served(f"{scheme}://{host}:{_port(entry['http'])}", f"{host}:{_port(entry['grpc'])}")
    return None


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _is_ready(url: str, ca: str | None) -> bool:
    verify = ssl.create_default_context(cafile=ca) if ca else True
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", verify=verify).is_success
    return False
