"""OpenTelemetry: reads the numbers of :mod:`extauthz.figures` when they are exported, and only then.

This is the one module that knows OpenTelemetry. It is imported when the first scrape comes or when metrics
are to be pushed, as it takes a while and most processes never need it.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from extauthz.export import EXPORTER, ExportError
from extauthz.figures import FAMILIES, Family, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import CallbackOptions, CallbackT
    from opentelemetry.sdk.metrics.export import MetricReader

    from extauthz.figures import Figures

    Read = Callable[[], Figures]
    """Tells the numbers now; called from threads."""

SERVICE_NAME: Final = "extauthz"
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.metric_exporter",
}
"""Modules by protocol, of the extra `otlp`."""
DEFAULT_PROTOCOL: Final = "grpc"
"""As Cerbos has it."""


OPENMETRICS: Final = "application/openmetrics-text;version=1.0.0"


class Scraped:
    """The metrics in Prometheus's text."""

    def __init__(self, read: Read) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=self._registry
        )
        self._read = read
        self._now: Figures = {}
        self._provider = _provider(lambda: self._now, reader)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text, and its media type: OpenMetrics if *accept* has it. One call at a time."""
        # Not *accept* itself: what it calls a version is repeated in the answer, or ends in a TypeError.
        encode, media_type = choose_encoder(OPENMETRICS if OPENMETRICS.partition(";")[0] in accept else "")
        self._now = self._read()  # once, not for each instrument
        return encode(self._registry), media_type


class Pushed:
    """The metrics, sent to a collector at an interval (``OTEL_METRIC_EXPORT_INTERVAL``) until stopped."""

    def __init__(self, read: Read, exporter: MetricExporter) -> None:
        self._provider = _provider(read, PeriodicExportingMetricReader(exporter))

    def stop(self, timeout: float) -> None:
        """Send what there is a last time; give that up after *timeout* seconds."""
        # A collector that does not answer is tried again for longer than we may wait.
        ending = threading.Thread(
            target=self._provider.shutdown, args=(timeout * 1000,), name="last metrics", daemon=True
        )
        ending.start()
        ending.join(timeout)


def otlp_exporter(environment: Mapping[str, str] = os.environ) -> MetricExporter:
    """Make the exporter of the protocol that the environment names; the rest it reads there itself.

    Raises:
        ExportError: there is no such protocol, or its package is not installed.

    """
    protocol = next((found for name in PROTOCOLS if (found := environment.get(name))), DEFAULT_PROTOCOL)
    if protocol not in EXPORTERS:
        raise ExportError(f"`{PROTOCOLS[1]}`: `{protocol}` is none of {', '.join(EXPORTERS)}")
    try:
        module: Any = import_module(EXPORTERS[protocol])
    except ImportError as error:
        raise ExportError(
            f"`{EXPORTER}=otlp` needs `{error.name}`; install `extauthz[otlp]`, or unset the variable"
        ) from error
    exporter: MetricExporter = module.OTLPMetricExporter()
    return exporter


def _provider(read: Read, reader: MetricReader) -> MeterProvider:
    """Make an instrument of each family, which asks *read* when it is exported."""
    provider = MeterProvider([reader], _resource(), shutdown_on_exit=False)
    meter = provider.get_meter(SERVICE_NAME)
    for family in FAMILIES:
        create = (
            meter.create_observable_counter if family.kind is Kind.COUNTER else meter.create_observable_gauge
        )
        create(family.name, [_observing(family, read)], family.unit, family.meaning)
    return provider


def _observing(family: Family, read: Read) -> CallbackT:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        rows = read()[family.name].items()
        return [Observation(value, dict(zip(family.labels, labels, strict=True))) for labels, value in rows]

    return observe


def _resource() -> Resource:
    """Tell who we are, unless the environment says it."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Resource.create({} if named else {"service.name": SERVICE_NAME})
