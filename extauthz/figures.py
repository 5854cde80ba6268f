"""The metrics: what each is called, what it means, and how the numbers of several workers become one.

Nothing here knows OpenTelemetry, which reads these numbers when it exports (:mod:`extauthz.telemetry`). A
worker's own numbers are :data:`Figures`: plain integers and floats by metric and labels.
"""

from __future__ import annotations

import enum
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Labels = tuple[str, ...]
"""Values of the labels, in the order of :attr:`Family.labels`."""
Figures = dict[str, dict[Labels, float]]
"""Numbers by metric and labels."""


class Kind(enum.Enum):
    """What a number is."""

    COUNTER = "counter"
    """Only ever grows, beyond the life of a worker too."""
    GAUGE = "gauge"
    """How it is now; that of a worker that is not there counts for nothing."""


class Over(enum.Enum):
    """How the numbers of several workers become one."""

    SUM = "the sum over the workers"
    LEAST = "the least of the workers"
    MOST = "the most of the workers"
    EACH = "one for each worker"
    """The last label is the worker's number, from 1."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. A counter's name gets `_total` in Prometheus's text, and *unit* (`s`) `_seconds`."""

    name: str
    kind: Kind
    meaning: str
    labels: Labels = ()
    over: Over = Over.SUM
    unit: str = ""


DECISIONS: Final = "extauthz_decisions"
PDP_REQUESTS: Final = "extauthz_pdp_requests"
POLICIES: Final = "extauthz_policies"
POLICIES_CURRENT: Final = "extauthz_policies_current"
RELOADS: Final = "extauthz_policy_reloads"
READY: Final = "extauthz_ready"
KEYS: Final = "extauthz_key_set_keys"
KEYS_FAILING: Final = "extauthz_key_set_failing"
KEYS_CONFIRMED: Final = "extauthz_key_set_last_success_timestamp"
WORKERS: Final = "extauthz_workers"
WORKER_STARTS: Final = "extauthz_worker_starts"
WORKER_START_TIME: Final = "extauthz_worker_start_time"
BUILD: Final = "extauthz_build_info"
# Cerbos's names, for dashboards that are there (its `internal/observability/metrics`).
ENTRIES: Final = "cerbos_dev_index_entry_count"
REFRESHED: Final = "cerbos_dev_store_last_successful_refresh"
POLLS: Final = "cerbos_dev_store_poll_count"
SYNC_ERRORS: Final = "cerbos_dev_store_sync_error_count"

FAMILIES: Final = (
    Family(DECISIONS, Kind.COUNTER, "Answers to Envoy by outcome and reason.", ("outcome", "reason")),
    Family(PDP_REQUESTS, Kind.COUNTER, "Answers of the PDP API by call and outcome.", ("call", "outcome")),
    Family(
        POLICIES,
        Kind.GAUGE,
        "Policies in force, with the revision that the store calls them by.",
        ("revision", "worker"),
        Over.EACH,
    ),
    Family(
        POLICIES_CURRENT,
        Kind.GAUGE,
        "1 when what the store held last is in force, 0 when the policies of before are.",
        over=Over.LEAST,
    ),
    Family(RELOADS, Kind.COUNTER, "Attempts to bring the policies up to date.", ("result",)),
    Family(ENTRIES, Kind.GAUGE, "Policies in force.", over=Over.LEAST),
    Family(
        REFRESHED,
        Kind.GAUGE,
        "When the store was last read or asked for news without an error, in milliseconds since the epoch.",
        ("driver",),
        Over.LEAST,
    ),
    Family(POLLS, Kind.COUNTER, "How often the store was asked whether there is news.", ("driver",)),
    Family(SYNC_ERRORS, Kind.COUNTER, "How often the store could not be reached or read.", ("driver",)),
    Family(READY, Kind.GAUGE, "1 when a part of the service is ready, else 0.", ("component",), Over.LEAST),
    Family(KEYS, Kind.GAUGE, "Keys in use of a key set.", ("key_set",), Over.LEAST),
    Family(
        KEYS_FAILING,
        Kind.GAUGE,
        "1 while a key set cannot be read again, else 0.",
        ("key_set",),
        Over.MOST,
    ),
    Family(
        KEYS_CONFIRMED,
        Kind.GAUGE,
        "When a key set was last read, in seconds since the epoch; 0 for never.",
        ("key_set",),
        Over.LEAST,
        "s",
    ),
    Family(WORKERS, Kind.GAUGE, "Workers by their state.", ("state",)),
    Family(WORKER_STARTS, Kind.COUNTER, "How often workers have started."),
    Family(
        WORKER_START_TIME,
        Kind.GAUGE,
        "When a worker started, in seconds since the epoch.",
        ("worker",),
        Over.EACH,
        "s",
    ),
    Family(BUILD, Kind.GAUGE, "1; which version this is.", ("version",), Over.MOST),
)
"""Every metric, in the order in which they are exported."""

COUNTERS: Final = frozenset(each.name for each in FAMILIES if each.kind is Kind.COUNTER)

_TWO_BECOME_ONE: Final[Mapping[Over, Callable[[float, float], float]]] = {
    Over.SUM: operator.add,
    Over.LEAST: min,
    Over.MOST: max,
}


def continued(before: Figures, own: Figures) -> Figures:
    """Return the numbers of a worker that goes on from where the process *before* it had come to."""
    counted = {name: dict(before[name]) for name in COUNTERS & before.keys()}
    result = {**counted, **own}
    for name, earlier in counted.items():
        mine = own.get(name, {})
        result[name] = {**earlier, **{key: earlier.get(key, 0) + value for key, value in mine.items()}}
    return result


def together(told: Mapping[int, Figures], serving: Iterable[int]) -> Figures:
    """Return the numbers of all workers as one; gauges only of those that are *serving*."""
    counting, gauging = list(told.items()), [(worker, told[worker]) for worker in serving if worker in told]
    return {
        family.name: _joined(family, counting if family.kind is Kind.COUNTER else gauging)
        for family in FAMILIES
    }


def _joined(family: Family, told: Iterable[tuple[int, Figures]]) -> dict[Labels, float]:
    if family.over is Over.EACH:
        return {
            (*labels, str(worker + 1)): value
            for worker, figures in told
            for labels, value in figures.get(family.name, {}).items()
        }
    join = _TWO_BECOME_ONE[family.over]
    joined: dict[Labels, float] = {}
    for _, figures in told:
        for labels, value in figures.get(family.name, {}).items():
            joined[labels] = join(joined[labels], value) if labels in joined else value
    return joined
