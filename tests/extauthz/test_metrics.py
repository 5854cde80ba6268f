"""Metrics of serving processes, asked for over HTTP: whoever answers speaks for all workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.extauthz.processes import Client, Process, Start, answering_process, waited
from tests.extauthz.scraped import Samples, scrape, value

if TYPE_CHECKING:
    from collections.abc import Iterator

_openmetrics: Any = text_string_to_metric_families  # it has no types
DECISIONS = "extauthz_decisions_total"


@pytest.fixture(params=["grpcio", "envoy"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start servers with each of the transports."""
    starting = Start(request.param)
    yield starting
    starting.end()


def allowed(samples: Samples) -> float:
    return value(samples, DECISIONS, outcome="allow", reason="policy.allowed")


def ask_until_both_answered(server: Process) -> tuple[int, set[int]]:
    """Ask over many connections until two processes have answered; return how often, and which."""
    asked, answering = 0, set[int]()
    while len(answering) < 2:
        assert asked < 200
        with Client(server.grpc) as client:
            answering.add(answering_process(client.ask()))
        asked += 1
    return asked, answering


def test_one_answer_is_that_of_all_workers(start: Start) -> None:
    """Counters are the sums over the workers, each of which is listed; both paths tell the same."""
    server = start(workers=2)
    server.wait_until_ready()
    asked, _ = ask_until_both_answered(server)
    for path in ("/metrics", "/_cerbos/metrics"):
        waited(lambda path=path: allowed(scrape(server.http, path)) == asked)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    samples = scrape(server.http)
    assert value(samples, "extauthz_workers", state="ready") == 2
    assert value(samples, "extauthz_worker_starts_total") == 2
    assert len(samples["extauthz_worker_start_time_seconds"]) == 2
    assert value(samples, "extauthz_ready", component="policies") == 1
    assert value(samples, "extauthz_ready", component="server") == 1


def test_counters_survive_a_worker(start: Start) -> None:
    """When a worker is killed and started again the counters go on; nothing that was told is lost."""
    server = start(workers=2)
    server.wait_until_ready()
    asked, answering = ask_until_both_answered(server)
    waited(lambda: allowed(scrape(server.http)) == asked)
    os.kill(min(answering), signal.SIGKILL)
    lowest = asked

    def both_are_back() -> bool:
        nonlocal lowest
        samples = scrape(server.http)
        assert allowed(samples) >= lowest
        lowest = int(allowed(samples))
        return (
            value(samples, "extauthz_worker_starts_total") == 3
            and value(samples, "extauthz_workers", state="ready") == 2
        )

    waited(both_are_back)
    more, _ = ask_until_both_answered(server)
    waited(lambda: allowed(scrape(server.http)) == asked + more)


def test_metrics_say_what_is_not_ready(start: Start) -> None:
    """A part of one worker that is not ready is told by whichever worker is asked."""
    server = start(workers=2)
    server.wait_until_ready()
    with Client(server.grpc) as client:
        client.ask(b"not ready")
        waited(lambda: value(scrape(server.http), "extauthz_ready", component="policies") == 0)
        waited(lambda: value(scrape(server.http), "extauthz_workers", state="waiting") == 1)
        client.ask(b"ready")
        waited(lambda: value(scrape(server.http), "extauthz_ready", component="policies") == 1)


def test_metrics_can_be_switched_off(start: Start) -> None:
    """With ``metricsEnabled: false`` there are none."""
    server = start(more={"metricsEnabled": False})
    server.wait_until_ready()
    assert [httpx.get(f"{server.http}{path}").status_code for path in ("/metrics", "/_cerbos/metrics")] == [
        404,
        404,
    ]


def test_openmetrics_is_answered_to_those_who_ask_for_it() -> None:
    """Prometheus asks for OpenMetrics first, and gets it."""
    starting = Start("grpcio")
    try:
        server = starting()
        server.wait_until_ready()
        answer = httpx.get(
            f"{server.http}/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}
        )
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        families = {family.name for family in _openmetrics(answer.text)}
        assert "extauthz_decisions" in families
    finally:
        starting.end()


def test_an_exporter_that_is_not_known_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that cannot be obeyed is an error at the start, in words."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "statsd")
    starting = Start("grpcio")
    try:
        server = starting()
        assert server.exit_code() == 1
        line = server.wait_for_log("cannot start")
        assert line["message"].endswith("`OTEL_METRICS_EXPORTER`: `statsd` is none of otlp, prometheus, none")
    finally:
        starting.end()
