"""Phase ``load``: how long it takes until policies are in force, and how much memory they take.

Each measurement is a process of its own, timed from its start until a check is answered, as an operator sees
it; processes that are compared take turns. The real Cerbos starts with the same files where it is installed
(``make oracle``), from its start until it says that it is healthy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.measure import Measurement
from tests.bench.processes import compile_modules
from tests.differential import oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SIZES = (10, 1_000, 10_000)

STARTS = 3
"""How often each kind of start is measured; the median counts."""

MEBIBYTE = 1024 * 1024

COLD_SHARE = 1 / 3
CACHED_SHARE = 1 / 10
"""The parts of Cerbos's time that a start may take, without and with the cache."""

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: kind{number}
  version: default
  rules:
    - name: owners
      actions: [read, update]
      effect: EFFECT_ALLOW
      roles: [user]
      condition:
        match:
          expr: R.attr.ownerId == P.id && R.attr.project == "project-{number}"
    - name: managers
      actions: [read, approve]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition:
        match:
          expr: R.attr.amount < {amount}.0 && R.attr.region in ["EMEA", "APAC", "region-{number}"]
    - name: closed
      actions: [update, delete]
      effect: EFFECT_DENY
      roles: ["*"]
      condition:
        match:
          expr: R.attr.status == "CLOSED" || (has(R.attr.lock) && R.attr.lock.exists(l, l == "lock-{number}"))
"""
"""Three rules with three conditions; no two policies have a condition in common."""


def write_policies(directory: Path, count: int) -> None:
    """Write *count* policies, a hundred to a folder."""
    for number in range(count):
        folder = directory / f"team{number // 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"kind{number}.yaml").write_text(policy(number))


def policy(number: int, amount: int | None = None) -> str:
    """Return the text of one policy; with another *amount* it is a changed one."""
    return POLICY.format(number=number, amount=1000 + number if amount is None else amount)


def load(rounds: int) -> Iterator[Measurement]:
    """Measure starts, one change, and memory, for stores of several sizes."""
    del rounds  # a start takes seconds, not microseconds
    compile_modules()
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="policies-") as folder:
            directory = Path(folder)
            write_policies(directory, size)
            yield from _measured(directory, size)


def _measured(directory: Path, size: int) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="cache-") as cache:
        starts: dict[str, Callable[[], Mapping[str, float]]] = {
            "cold": lambda: _start(directory),
            "with the cache": lambda: _start(directory, cache),
        }
        if oracle.find_binary() is not None:
            starts["Cerbos"] = lambda: {"seconds": _cerbos_start(directory)}
        _start(directory, cache)  # fills the cache
        found = _taking_turns(starts)
    peer = statistics.median(each["seconds"] for each in found["Cerbos"]) if "Cerbos" in found else None
    shares = {"cold": COLD_SHARE, "with the cache": CACHED_SHARE}
    for name, results in found.items():
        seconds = sorted(each["seconds"] for each in results)
        share = shares.get(name)
        yield Measurement(
            "load",
            f"{size:,} policies: start, {name}",
            statistics.median(seconds),
            "s",
            seconds[0],
            seconds[-1],
            ratio=None if peer is None else statistics.median(seconds) / peer,
            budget=None if share is None or peer is None or size < SIZES[-1] else share * peer,
        )
    yield from _besides(size, found["cold"], budgets=size == SIZES[-1])


def _besides(size: int, results: list[Mapping[str, float]], *, budgets: bool) -> Iterator[Measurement]:
    for key, name, unit, budget in (
        ("change", "one change, until it decides", "ms", 100.0),
        ("memory", "memory", "MiB", 300.0),
    ):
        values = sorted(each[key] for each in results)
        yield Measurement(
            "load",
            f"{size:,} policies: {name}",
            statistics.median(values),
            unit,
            values[0],
            values[-1],
            budget=budget if budgets else None,
        )


def _taking_turns(
    starts: Mapping[str, Callable[[], Mapping[str, float]]],
) -> dict[str, list[Mapping[str, float]]]:
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in starts}
    for _ in range(STARTS):
        for name, start in starts.items():
            found[name].append(start())
    return found


def _cerbos_start(directory: Path) -> float:
    begun = time.perf_counter()
    with oracle.cerbos(directory):
        return time.perf_counter() - begun


def _start(directory: Path, cache: str = "") -> Mapping[str, float]:
    """Start a process that loads the policies; return the seconds until it answers, and what it measured."""
    arguments = [sys.executable, "-m", "tests.bench.loading", os.fspath(directory), cache]
    begun = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - begun
        measured: dict[str, float] = json.loads(process.stdout.readline())
    return {"seconds": seconds, **measured}


# -- in the process that is measured -----------------------------------------------------------------------

CHANGES = 10
"""Even: the last one leaves the file as it was, for the next process that is measured."""


def _main(directory: Path, cache: str) -> None:
    from engine import Effect, Engine  # noqa: PLC0415 - what is imported counts as part of the start

    options: dict[str, Any] = {"cache": cache} if cache else {}
    engine = Engine.from_directory(directory, watch=True, **options)
    assert _decide(engine, 500.0) is Effect.ALLOW
    _tell("ready")
    memory = resident()
    changes = [_change(engine, directory, number) for number in range(CHANGES)]
    _tell(json.dumps({"memory": memory, "change": statistics.median(changes)}))
    engine.close()


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _change(engine: Any, directory: Path, number: int) -> float:
    """Return the milliseconds from the writing of a file to the first decision by it."""
    lowered = number % 2 == 0
    before = engine.table
    time.sleep(0.2)  # the last change and its watch are over
    begun = time.perf_counter()
    (directory / "team0" / "kind0.yaml").write_text(policy(0, 1 if lowered else 1000))
    while engine.table is before:
        time.sleep(0.0005)
    taken = time.perf_counter() - begun
    assert (_decide(engine, 500.0).name == "DENY") is lowered
    return taken * 1e3


def _decide(engine: Any, amount: float) -> Any:
    from engine import CheckInput, Principal, Resource  # noqa: PLC0415 - as above

    asked = CheckInput(
        Principal("ann", ("manager",)),
        Resource("kind0", "1", {"amount": amount, "region": "EMEA"}),
        ("approve",),
    )
    return engine.check(asked).actions["approve"].effect


def resident(process: int | str = "self") -> float:
    """Return how much memory a process holds, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
