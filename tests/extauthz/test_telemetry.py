"""OpenTelemetry reads the numbers: what is pushed to a collector, and what is documented."""

from __future__ import annotations

import queue
import re
import sys
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from extauthz import figures
from extauthz.board import Board, State
from extauthz.export import Export, ExportError, pushes
from extauthz.figures import FAMILIES, Figures, Kind
from extauthz.readiness import Status
from extauthz.tally import Tally
from extauthz.telemetry import Scraped, otlp_exporter
from tests.extauthz.processes import Client, Start, waited
from tests.extauthz.scraped import parsed, scrape, value

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ALLOWED = {"outcome": "allow", "reason": "policy.allowed"}
_Servicer: Any = metrics_service_pb2_grpc.MetricsServiceServicer  # the package has no types
_serve: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
_Response: Any = metrics_service_pb2.ExportMetricsServiceResponse


class Collector(_Servicer):  # type: ignore[misc]  # as above
    """What an OpenTelemetry collector is to us."""

    def __init__(self) -> None:
        self.received: queue.Queue[Any] = queue.Queue()
        self.senders: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the method's name in the protocol
        self.senders.add(context.peer())
        self.received.put(request)
        return _Response()

    def numbers(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return what came next: values by metric and values of labels."""
        (resource,) = self.received.get(timeout=60).resource_metrics
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert names["service.name"] == "extauthz"
        return {
            metric.name: {
                tuple(sorted(each.value.string_value for each in point.attributes)): point.as_int
                or point.as_double
                for point in getattr(metric, metric.WhichOneof("data")).data_points
            }
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def listening(collector: Collector) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    _serve(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(0).wait(10)


def tally(own: Figures) -> Tally:
    board = Board(1)
    board[0] = State.READY
    made = Tally(board, 0, Status)
    made.count(lambda: own)
    made.tell()
    return made


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_one_worker_pushes_for_all(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector is sent the numbers of all workers by one of them, and the last ones at the end."""
    collector = Collector()
    starting = Start(transport)
    with listening(collector) as endpoint:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "400")
        try:
            server = starting(workers=2)
            server.wait_until_ready()
            waited(lambda: collector.numbers().get("extauthz_workers", {}).get(("ready",)) == 2)
            for _ in range(5):
                with Client(server.grpc) as client:
                    client.ask()
            asked = ("allow", "policy.allowed")
            waited(lambda: collector.numbers()["extauthz_decisions"].get(asked) == 5)
            server.signal()
            assert server.exit_code() == 0
            assert len(collector.senders) == 1
        finally:
            starting.end()


def test_a_collector_that_is_not_there_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its collector the service answers, and stops with 0 before the last push is given up."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")  # longer than the test may take
    starting = Start("grpcio")
    try:
        server = starting()
        server.wait_until_ready()
        with Client(server.grpc) as client:
            assert client.ask()
        assert value(scrape(server.http), "extauthz_decisions_total", **ALLOWED) == 1
        server.signal()
        assert server.exit_code() == 0
    finally:
        starting.end()


def test_http_protobuf_is_the_other_protocol() -> None:
    """The environment chooses the protocol, the one for metrics before the one for all; else it is gRPC."""
    general, metrics = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
    assert "proto.grpc" in type(otlp_exporter({})).__module__
    assert "proto.http" in type(otlp_exporter({general: "http/protobuf"})).__module__
    assert "proto.grpc" in type(otlp_exporter({general: "http/protobuf", metrics: "grpc"})).__module__
    with pytest.raises(ExportError, match=r"`http/json` is none of grpc, http/protobuf"):
        otlp_exporter({general: "http/json"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the exporter's package the error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.metric_exporter", None)
    with pytest.raises(ExportError, match=r"install `extauthz\[otlp\]`, or unset the variable"):
        Export(tally({})).start_pushing({"OTEL_METRICS_EXPORTER": "otlp"})


def test_what_the_environment_may_name() -> None:
    """The variable is a list; nothing is pushed unless it says so."""
    assert [pushes({"OTEL_METRICS_EXPORTER": said}) for said in ("", "none", "prometheus", " OTLP,none")] == [
        False,
        False,
        False,
        True,
    ]
    assert not pushes({})


def test_labels_are_escaped() -> None:
    """A revision or the id of a key set may be any text; it stays one label."""
    odd = 'a"b\\c\nd{e="f"} 1'
    made = tally({figures.POLICIES: {(odd,): 3}, figures.KEYS: {(odd,): 2}})
    text, _ = Scraped(made.everything).text("")
    samples = parsed(text.decode())
    assert value(samples, "extauthz_policies", revision=odd, worker="1") == 3
    assert value(samples, "extauthz_key_set_keys", key_set=odd) == 2


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/plain;version=x", "application/openmetrics-text;version=x\xe9", "a;version=2.x,,;=;"],
)
def test_whatever_is_accepted_there_is_an_answer(accept: str) -> None:
    """A header ``accept`` of any kind is answered, and nothing of it is in the answer."""
    _, media_type = Scraped(tally({}).everything).text(accept)
    plain, openmetrics = "text/plain; version=0.0.4;", "application/openmetrics-text; version=1.0.0;"
    assert media_type.startswith(openmetrics if "openmetrics" in accept else plain)
    assert "x" not in media_type.replace("text", "").partition("version")[2]


def test_what_is_gone_is_not_told_any_more() -> None:
    """The revision of before has no sample once another one is in force."""
    own: Figures = {figures.POLICIES: {("a1",): 3}}
    made = tally(own)
    scraped = Scraped(made.everything)
    scraped.text("")
    own[figures.POLICIES] = {("b2",): 4}
    made.tell()
    samples = parsed(scraped.text("")[0].decode())
    assert samples["extauthz_policies"] == {frozenset({("revision", "b2"), ("worker", "1")}): 4}


def test_every_metric_is_documented() -> None:
    """``docs/metrics.md`` lists each metric by its name in Prometheus, with its labels, and no other."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge) \| ([^|]*)\|", text, re.MULTILINE)
    written = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    unit = {"": "", "s": "_seconds"}
    assert written == {
        f"{family.name}{unit[family.unit]}{'_total' if family.kind is Kind.COUNTER else ''}": (
            family.kind.value,
            family.labels,
        )
        for family in FAMILIES
    }
    assert set(re.findall(r"(?:extauthz|cerbos_dev)_\w+", text)) <= written.keys()
