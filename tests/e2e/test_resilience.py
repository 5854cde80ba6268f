"""What happens when something goes away, is replaced or is edited while requests run: through a real Envoy.

A request that is not allowed never gets a 2xx and never reaches the API, whatever else happens.
"""

from __future__ import annotations

import http.server
import threading
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from stack import Configuration, Stack
from tests.e2e.harness import Gateway, Traffic, eventually, ext_authz, marked_log, running, traffic
from tests.ports import free_port
from tokens import EMEA_MANAGER, SALES, Issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALLOWED = ("GET /api/expenses/1", SALES)
DENIED = ("GET /api/expenses/2", SALES)
REGIONAL = ("GET /api/expenses/2", EMEA_MANAGER)

FAST = 1.0
"""Seconds within which an edited policy has to be in force."""


@pytest.fixture
def own(tmp_path: Path, policies: Path) -> Iterator[Stack]:
    """Servers of one test's own, which it may break; their policies may be edited."""
    with running(Stack(tmp_path, gateway=marked_log, policies=policies)) as started:
        yield started


def readiness(stack: Stack) -> httpx.Response:
    return httpx.get(stack.readyz(), timeout=5)


def never_let_through(stack: Stack, flow: Traffic) -> bool:
    """Whether nothing of *flow*, which is not allowed, got a 2xx or reached the API."""
    client = Gateway(stack)
    try:
        answered = any(isinstance(status, int) and 200 <= status < 300 for status in flow.statuses)
        return not answered and client.arrivals(flow.request) == ()
    finally:
        client.close()


def test_killed_and_restarted(own: Stack) -> None:
    """While extauthz is dead every request gets a 503; when it is back, so are the answers."""
    with traffic(own, ALLOWED, ("GET /api/expenses/3", SALES)) as (allowed, denied):
        eventually(lambda: len(allowed.answers) > 20)
        own.extauthz.kill()
        killed = time.monotonic()
        eventually(lambda: len(allowed.since(killed)) > 10)
        dead = time.monotonic()
        own.restart_extauthz()
        eventually(lambda: allowed.statuses[-5:] == [200] * 5 and denied.statuses[-5:] == [403] * 5, 10)
    assert set(allowed.statuses) == {200, 503}
    assert set(denied.statuses) == {403, 503}
    between = [status for when, status in allowed.answers if killed + 0.1 < when < dead]
    assert set(between) == {503}
    assert never_let_through(own, denied)


def test_policy_edited_while_requests_run(own: Stack) -> None:
    """An edited policy is in force within a second: the old answers, then the new ones, none lost."""
    file = own.policies / "expense.yaml"
    original = file.read_text(encoding="utf-8")
    with traffic(own, REGIONAL, ALLOWED) as (regional, untouched):
        eventually(lambda: len(regional.answers) > 20)
        edited = time.monotonic()
        file.write_text(
            original.replace("expr: V.same_region", "expr: V.same_region && false"), encoding="utf-8"
        )
        assert eventually(lambda: regional.statuses[-1] == httpx.codes.FORBIDDEN) < FAST
        eventually(lambda: len(regional.since(edited)) > 100)
        restored = time.monotonic()
        file.write_text(original, encoding="utf-8")
        assert eventually(lambda: regional.statuses[-1] == httpx.codes.OK) < FAST
        eventually(lambda: len(regional.since(restored)) > 100)
    assert changes(regional) == [200, 403, 200]
    assert changes(untouched) == [200]


def changes(flow: Traffic) -> list[int | str]:
    """List the answers, each only where it differs from the one before."""
    statuses = flow.statuses
    return [status for index, status in enumerate(statuses) if index == 0 or status != statuses[index - 1]]


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("expr: V.same_regoin", "same_regoin"),
        ("expr: [", "expense.yaml:"),
    ],
    ids=["unknown variable", "not YAML"],
)
def test_broken_edit_changes_nothing(own: Stack, broken: str, fault: str) -> None:
    """A policy that does not compile changes no answer; the fault is reported with its place until mended."""
    file = own.policies / "expense.yaml"
    original = file.read_text(encoding="utf-8")
    with traffic(own, REGIONAL, DENIED) as (regional, denied):
        file.write_text(original.replace("expr: V.same_region", broken), encoding="utf-8")
        eventually(lambda: fault in own.extauthz.output())
        reported = readiness(own)
        seen = time.monotonic()
        eventually(lambda: len(regional.since(seen)) > 50 and len(denied.since(seen)) > 50)
        file.write_text(original, encoding="utf-8")
        eventually(lambda: "expense.yaml" not in readiness(own).text)
    assert "expense.yaml" in reported.text
    assert reported.status_code == httpx.codes.OK, "it still serves the last good policies"
    assert changes(regional) == [200]
    assert changes(denied) == [403]


def test_source_down(own: Stack) -> None:
    """Without the record there is no decision: 503 with Retry-After, and not from the API, which is gone."""
    own.api.kill()
    with httpx.Client(
        base_url=own.url, headers={"authorization": f"Bearer {own.issuer.token(SALES)}"}
    ) as client:
        reply = client.get("/api/expenses/4")
    assert reply.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert "source.unavailable" in reply.text


def with_remote_keys(url: str, **more: object) -> Callable[[Configuration], Configuration]:
    def changed(settings: Configuration) -> Configuration:
        settings["auxData"]["jwt"]["keySets"] = [{"id": "company", "remote": {"url": url, **more}}]
        return settings

    return changed


def test_key_set_unreachable(tmp_path: Path) -> None:
    """Without keys nobody is known: 503 with Retry-After; once they can be fetched, answers come."""
    port = free_port()
    settings = with_remote_keys(f"http://127.0.0.1:{port}/jwks.json", cooldown="100ms", timeout="200ms")
    issuer = Issuer()
    with running(Stack(tmp_path, settings=settings, issuer=issuer, alive="healthz")) as started:
        assert readiness(started).status_code == httpx.codes.SERVICE_UNAVAILABLE
        client = Gateway(started)
        reply = client.send("GET /api/expenses/1", SALES)
        assert reply.status == httpx.codes.SERVICE_UNAVAILABLE
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.arrivals == ()
        with key_server(port, issuer):
            eventually(lambda: client.send("GET /api/expenses/1", SALES).status == httpx.codes.OK)
        assert client.send("GET /api/expenses/4", SALES).status == httpx.codes.OK, (
            "known keys outlive the outage"
        )
        client.close()


@contextmanager
def answering(port: int, answer: bytes, delay: float = 0) -> Iterator[list[str]]:
    """Serve *answer* to every GET after *delay* seconds; yields the list of paths that are asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            asked.append(self.path)
            time.sleep(delay)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def key_server(port: int, issuer: Issuer) -> AbstractContextManager[list[str]]:
    return answering(port, issuer.jwks().encode())


def test_requests_under_way_finish_after_sigterm(tmp_path: Path) -> None:
    """A check that has begun when SIGTERM comes is answered, and the process then goes with exit code 0."""
    port = free_port()

    def slow_source(settings: Configuration) -> Configuration:
        source = settings["extAuthz"]["sources"]["expense"]["http"]
        source |= {"url": f"http://127.0.0.1:{port}/{{id}}", "timeout": "3s"}
        return settings

    def patient(gateway: Configuration) -> Configuration:
        ext_authz(gateway)["grpc_service"] |= {"timeout": "5s"}
        ext_authz(gateway)["grpc_service"].pop("retry_policy")  # a lost check must show
        return gateway

    record = b'{"id": "1", "ownerId": "sally", "region": "EMEA"}'
    with (
        answering(port, record, 0.7) as asked,
        running(Stack(tmp_path, gateway=patient, settings=slow_source)) as started,
    ):
        statuses: list[int] = []
        client = Gateway(started)
        asking = threading.Thread(target=lambda: statuses.append(client.send(*ALLOWED).status))
        asking.start()
        eventually(lambda: len(asked) == 1)
        started.extauthz.terminate()
        asking.join()
        client.close()
        assert statuses == [httpx.codes.OK]
        assert started.extauthz.wait(10) == 0


def test_rolling_update_loses_nothing(tmp_path: Path) -> None:
    """With a successor on the same port, SIGTERM to the old process costs no request."""

    def hasty(settings: Configuration) -> Configuration:
        settings["server"]["drainTimeout"] = "4s"
        return settings

    with running(Stack(tmp_path, gateway=marked_log, settings=hasty)) as started:
        replace_under_load(started, free_port())


def replace_under_load(own: Stack, health: int) -> None:
    """Start a successor, whose own HTTP port is *health*, and let the old process go, while requests run."""
    successor = own.another_extauthz("successor", health)
    with traffic(own, ALLOWED, DENIED) as (allowed, denied):
        eventually(lambda: len(allowed.answers) > 20)
        successor.start()
        try:
            own.await_ready(successor, own.readyz(health))
            own.extauthz.terminate()
            assert own.extauthz.wait(10) == 0
            stopped = time.monotonic()
            eventually(lambda: len(allowed.since(stopped)) > 50 and len(denied.since(stopped)) > 50)
        finally:
            allowed.stop()
            denied.stop()
            time.sleep(0.1)
            successor.stop()
    assert changes(allowed) == [200]
    assert changes(denied) == [403]


def test_gateway_alone_lets_nothing_through(own: Stack) -> None:
    """When extauthz is not there at all, even an open route answers 503."""
    own.extauthz.stop()
    client = Gateway(own)
    for request in ("GET /healthz", "GET /api/expenses/1"):
        reply = client.send(request, SALES)
        assert reply.status == httpx.codes.SERVICE_UNAVAILABLE
        assert reply.arrivals == ()
    client.close()
