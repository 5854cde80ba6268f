"""What is Envoy's own about the transport `envoy`: TLS, its log, what it leaves, and when it is missing."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from extauthz import server
from extauthz.config import Server
from extauthz.envoy_worker import SCRATCH, _parsed
from tests.e2e.certificates import issue
from tests.extauthz.processes import Client, Process, Start, waited
from tests.extauthz.test_tls import CLIENT, NAME, asked, break_files, replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def start() -> Iterator[Start]:
    starting = Start("envoy")
    yield starting
    starting.end()


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Issue a server's and a client's certificate, and the same from two other CAs."""
    for place in ("now", "next", "stranger"):
        issue(tmp_path / place, NAME, CLIENT)
    return tmp_path


def with_tls(start: Start, directory: Path, *, client_ca: bool = False) -> str:
    """Start a server with the certificate in *directory*; return its address."""
    tls = {"cert": str(directory / f"{NAME}.crt"), "key": str(directory / f"{NAME}.key")}
    ca = {"caCert": str(directory / "ca.crt")} if client_ca else {}
    return start(more={"tls": {**tls, **ca}}).grpc


def outcome(address: str, ca: Path, client: Path | None = None) -> str:
    return asyncio.run(asked(address, ca, client))


def wait_for(wanted: str, address: str, ca: Path, client: Path | None = None) -> None:
    waited(lambda: outcome(address, ca, client) == wanted)


ANSWERED = "wrong"
"""An answer came: to :func:`asked` it is wrong, as it begins with the number of the process."""


def test_a_client_certificate_is_demanded(start: Start, pki: Path) -> None:
    """With a CA, a client must show a certificate that it signed: none and a stranger's are refused."""
    address = with_tls(start, pki / "now", client_ca=True)
    wait_for(ANSWERED, address, pki / "now", pki / "now")
    assert outcome(address, pki / "now") == "UNAVAILABLE"
    assert outcome(address, pki / "now", pki / "stranger") == "UNAVAILABLE"
    assert outcome(address, pki / "stranger", pki / "now") == "UNAVAILABLE"


def test_changed_files_are_used_for_new_connections(start: Start, pki: Path) -> None:
    """When certificate, key and CA change, so do the connections; files that do not fit change nothing."""
    now = pki / "now"
    shutil.copytree(now, pki / "issued")
    address = with_tls(start, now, client_ca=True)
    wait_for(ANSWERED, address, pki / "issued", pki / "issued")
    break_files(now, pki / "next", "other key")
    start.running[0].wait_for_log("the certificate read before stays in use")
    assert outcome(address, pki / "issued", pki / "issued") == ANSWERED
    replace(now, pki / "next")
    wait_for(ANSWERED, address, pki / "next", pki / "next")
    assert outcome(address, pki / "issued", pki / "issued") == "UNAVAILABLE"
    assert outcome(address, pki / "next", pki / "issued") == "UNAVAILABLE"


def with_certificate(certificate: Path) -> list[Path]:
    """Find the directories of servers that hold *certificate*; other tests have theirs beside them."""
    line = certificate.read_text(encoding="ascii").splitlines()[-3]  # of the signature
    return [file.parent for file in SCRATCH.glob("extauthz-*/server") if line in _text(file)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:  # just gone
        return ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to leave", "killed"])
def test_nothing_is_left_behind(start: Start, pki: Path, number: int) -> None:
    """Sockets and keys are gone with the server, also when the supervising process is killed."""
    address = with_tls(start, pki / "now")
    wait_for(ANSWERED, address, pki / "now")
    (made,) = with_certificate(pki / "now" / f"{NAME}.crt")
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / "server").stat().st_mode & 0o777 == 0o600
    start.running[0].signal(number)
    waited(lambda: not made.exists())


def crashed(process: Process) -> None:
    (worker,) = process.workers()
    os.kill(worker, signal.SIGSEGV)
    process.wait_for_log("Envoy ended by a signal: SIGSEGV")


def test_all_that_is_logged_has_one_form(start: Start) -> None:
    """Envoy's lines, its last cries too, and those of the Python inside are JSON with level and logger."""
    process = start()
    process.wait_until_ready()
    with Client(process.grpc) as client:
        client.ask()
        assert client.asking(b"raise").exception() is not None
    crashed(process)
    process.wait_for_log("starting it again")
    process.wait_until_ready()
    assert {"extauthz.transport.asgi", "extauthz.supervisor"} <= {line["logger"] for line in process.lines}
    assert any(line["logger"].startswith("envoy") for line in process.lines)
    assert all({"time", "level", "logger", "pid"} <= line.keys() for line in process.lines)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b'{"envoy":"main","level":"critical","message":"x"}', ("envoy.main", logging.CRITICAL, "x")),
        (b'{"envoy":"main","level":"unheard of","message":"x"}', ("envoy.main", logging.INFO, "x")),
        (b'{"message":"x"}', ("envoy", logging.ERROR, '{"message":"x"}')),
        (b"[1, 2]", ("envoy", logging.ERROR, "[1, 2]")),
        (b"Traceback \xff", ("envoy", logging.ERROR, "Traceback \ufffd")),
    ],
)
def test_a_line_of_envoy(line: bytes, read: tuple[str, int, str]) -> None:
    """A line that is not as we told Envoy to write it is an error: pyvoy or the C library printed it."""
    assert _parsed(line) == read


@pytest.mark.parametrize("absent", ["envoy", "pyvoy"])
def test_without_the_extra_the_start_is_refused(
    absent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where pyvoy or its Envoy is not installed, the server does not start, and says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == absent]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    settings = {"transport": "envoy", "grpcListenAddr": "127.0.0.1:0", "httpListenAddr": "127.0.0.1:0"}

    def never() -> NoReturn:
        raise AssertionError

    assert server.serve(Server.model_validate(settings), never) == 1
    assert "pip install 'extauthz[envoy]'" in caplog.text
