"""The settings that drivers of databases share: connections, retries, time limits. Seconds throughout."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from engine.document import did_you_mean
from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

POLL_INTERVAL: Final = 10.0
QUERY_TIMEOUT: Final = 30.0
WAIT_FOR_CONNECTION: Final = 10.0
"""Seconds that a call waits for one of the pool's connections."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How the database is waited for at the start: Cerbos's ``connRetry``."""

    attempts: int = 4
    """The first one included: ``maxAttempts`` counts those after it."""

    first_delay: float = 0.5
    longest_delay: float = 60.0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> Retries:
        """Read the block.

        Raises:
            StoreError: a setting does not fit.

        """
        settings, default = settings or {}, cls()
        check_known("connRetry", settings, ("maxAttempts", "initialInterval", "maxInterval"))
        first = float(settings.get("initialInterval") or default.first_delay)
        longest = float(settings.get("maxInterval") or max(default.longest_delay, first))
        retried = int(_or(settings.get("maxAttempts"), default.attempts - 1))
        if retried < 0 or first < 0 or longest < first:
            raise StoreError(
                "`connRetry`: numbers are not negative, and `maxInterval` not below `initialInterval`"
            )
        return cls(retried + 1, first, longest)


@dataclass(frozen=True, slots=True)
class Pool:
    """Which connections are kept: Cerbos's ``connPool``. 0 stands for no limit."""

    life: float = 0.0
    idle: float = 0.0
    max_open: int = 0
    max_idle: int = 2

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> Pool:
        """Read the block.

        Raises:
            StoreError: a setting does not fit.

        """
        settings, default = settings or {}, cls()
        check_known("connPool", settings, ("maxLifeTime", "maxIdleTime", "maxOpen", "maxIdle"))
        found = cls(
            float(_or(settings.get("maxLifeTime"), default.life)),
            float(_or(settings.get("maxIdleTime"), default.idle)),
            int(_or(settings.get("maxOpen"), default.max_open)),
            int(_or(settings.get("maxIdle"), default.max_idle)),
        )
        if min(found.life, found.idle, found.max_open, found.max_idle) < 0:
            raise StoreError("`connPool`: numbers are not negative")
        return found

    def options(self) -> dict[str, Any]:
        """Return what SQLAlchemy's engine takes."""
        kept = max(1, min(self.max_idle, self.max_open) if self.max_open else self.max_idle)
        return {
            "pool_size": kept,
            "max_overflow": self.max_open - kept if self.max_open else -1,
            "pool_recycle": self.life or -1,
            "pool_pre_ping": True,
            "pool_timeout": WAIT_FOR_CONNECTION,
        }

    def limit_idleness(self, engine: Engine) -> None:
        """Let no connection be used again that has not been used for too long."""
        if not self.idle:
            return

        def returned(_connection: Any, record: Any) -> None:
            record.info["idle since"] = time.monotonic()

        def taken(_connection: Any, record: Any, _proxy: Any) -> None:
            since = record.info.pop("idle since", None)
            if since is not None and time.monotonic() - since > self.idle:
                raise DisconnectionError("idle for too long")

        event.listen(engine, "checkin", returned)
        event.listen(engine, "checkout", taken)


SERVER_SETTINGS: Final = ("connPool", "connRetry", "skipSchemaCheck", "updatePollInterval", "queryTimeout")
"""What the drivers of servers have in common: Cerbos's keys, and the last two ours."""


@dataclass(frozen=True, slots=True)
class Server:
    """How a database server is used. Times in seconds; 0 is no limit, or never."""

    pool: Pool = Pool()
    retries: Retries = Retries()
    check_tables: bool = True
    poll_interval: float = POLL_INTERVAL
    query_timeout: float = QUERY_TIMEOUT

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Server:
        """Read :data:`SERVER_SETTINGS`.

        Raises:
            StoreError: a setting does not fit.

        """
        return cls(
            Pool.from_settings(settings.get("connPool")),
            Retries.from_settings(settings.get("connRetry")),
            not settings.get("skipSchemaCheck"),
            seconds(settings, "updatePollInterval", POLL_INTERVAL),
            seconds(settings, "queryTimeout", QUERY_TIMEOUT),
        )


def check_known(block: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse settings that are not known.

    Raises:
        StoreError: naming the first of them.

    """
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise StoreError(f"unknown setting `{unknown[0]}` of {block}{f' ({hint})' if hint else ''}")


def seconds(settings: Mapping[str, Any], name: str, default: float) -> float:
    """Return a setting in seconds; 0 for no limit, or never.

    Raises:
        StoreError: it is negative.

    """
    found = float(_or(settings.get(name), default))
    if found < 0:
        raise StoreError(f"`{name}` is not negative")
    return found


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
