"""How metrics leave a worker: over HTTP when somebody asks, and by OTLP when the environment says so.

OpenTelemetry is imported here when it is first used, as it takes a while.
"""

# ruff: noqa: PLC0415  # see above

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from extauthz.tally import Tally
    from extauthz.telemetry import Pushed, Scraped

EXPORTER: Final = "OTEL_METRICS_EXPORTER"
KNOWN: Final = ("otlp", "prometheus", "none")
LAST_PUSH: Final = 2.0
"""Seconds for the last numbers to be sent when the service stops."""


class ExportError(Exception):
    """Metrics cannot be exported as the environment says; worded for the person who can mend it."""


class Export:
    """Exports what a tally holds: the numbers of all workers."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._one_at_a_time = asyncio.Lock()
        self._scraped: Scraped | None = None
        self._pushed: Pushed | None = None

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Write the metrics in Prometheus's text; with its media type as chosen from *accept*."""
        async with self._one_at_a_time:
            self._tally.tell()
            return await asyncio.to_thread(self._text, accept)

    def _text(self, accept: str) -> tuple[bytes, str]:
        from extauthz.telemetry import Scraped

        if self._scraped is None:
            self._scraped = Scraped(self._tally.everything)
        return self._scraped.text(accept)

    def start_pushing(self, environment: Mapping[str, str] = os.environ) -> None:
        """Push from now on, if *environment* says so. One worker does so for all.

        Raises:
            ExportError: what it says cannot be.

        """
        if not pushes(environment):
            return
        from extauthz.telemetry import Pushed, otlp_exporter

        self._pushed = Pushed(self._tally.everything, otlp_exporter(environment))

    async def stop(self) -> None:
        """Push a last time, if at all."""
        if self._pushed is not None:
            await asyncio.to_thread(self._pushed.stop, LAST_PUSH)


def pushes(environment: Mapping[str, str]) -> bool:
    """Tell whether metrics are to be pushed (``OTEL_METRICS_EXPORTER``, a list).

    Raises:
        ExportError: the variable names what is not known.

    """
    names = [name.strip() for name in environment.get(EXPORTER, "").lower().split(",") if name.strip()]
    for name in names:
        if name not in KNOWN:
            raise ExportError(f"`{EXPORTER}`: `{name}` is none of {', '.join(KNOWN)}")
    return "otlp" in names
