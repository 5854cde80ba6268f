"""Metrics of a server, read by Prometheus's own parser."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Samples = dict[str, dict[Labels, float]]
"""Values by name and labels."""


def parsed(text: str) -> Samples:
    """Read Prometheus's text; no sample stands there twice, and each has its help."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            rows = found.setdefault(sample.name, {})
            assert labels not in rows, sample
            rows[labels] = sample.value
    return found


def scrape(http: str, path: str = "/metrics") -> Samples:
    """Ask a server for its metrics."""
    answer = httpx.get(f"{http}{path}", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one value; 0 when it is not there."""
    return samples.get(name, {}).get(frozenset(labels.items()), 0.0)
