"""Suites over several processes: results in order, as if they had been run one after the other.

Where a fork is safe the processes share the compiled table; elsewhere each compiles the policies again. Small
runs stay in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.engine import Loader
from engine.verify.loading import SuiteLoader
from engine.verify.results import TestResults
from engine.verify.run import Config, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.rules import RuleTable, Settings
    from engine.storage import Snapshot
    from engine.verify.results import SuiteResult

WORTHWHILE = 256 * 1024
"""Bytes of suites and fixtures from which on several processes are faster than one."""

Progress = "Callable[[int, int], object]"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What it takes to compile a table again in another process."""

    snapshot: Snapshot
    settings: Settings

    def table(self) -> RuleTable:
        """Compile it."""
        return Loader(self.settings, processes=1).table(self.snapshot)


@dataclass(frozen=True, slots=True)
class Job:
    """What each process needs: the files of the tests, how to run them, and on what."""

    files: Mapping[str, bytes]
    config: Config
    recipe: Recipe
    table: RuleTable | None = None

    def forkable(self, table: RuleTable) -> Job:
        """Return the job with a table that a forked process shares."""
        return Job(self.files, self.config, self.recipe, table)


class Worker:
    """Runs suites by their paths."""

    def __init__(self, job: Job) -> None:
        self._loader = SuiteLoader(job.files)
        self._runner = Runner(job.table or job.recipe.table(), job.config)
        self.paths = self._loader.paths

    def run(self, path: str) -> SuiteResult:
        """Read and run one suite."""
        return self._runner.run(self._loader.load(path))


def run_files(
    table: RuleTable,
    files: Mapping[str, bytes],
    config: Config,
    recipe: Recipe,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> TestResults:
    """Run all suites among *files* on *table*, which *recipe* makes again where it has to be.

    *processes* says how many to use, by default as many as there are processors when it is worthwhile.
    *progress* is called after each suite with how many are done, and how many there are.

    Raises:
        FilterError: the pattern of the selection is no regular expression.

    """
    job = Job(files, config, recipe)
    here = Worker(job.forkable(table))
    wanted = processes if processes is not None else _processes(files, len(here.paths))
    if wanted <= 1:
        results: Iterable[SuiteResult] = map(here.run, here.paths)
    else:
        results = _spread(job, table, here.paths, wanted)
    return TestResults(tuple(_counted(results, len(here.paths), progress)))


def _counted(
    results: Iterable[SuiteResult], total: int, progress: Callable[[int, int], object] | None
) -> Iterator[SuiteResult]:
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result


def _processes(files: Mapping[str, bytes], suites: int) -> int:
    if sum(map(len, files.values())) < WORTHWHILE:
        return 1
    return min(_available_processors(), suites)


def _available_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spread(job: Job, table: RuleTable, paths: list[str], processes: int) -> Iterator[SuiteResult]:
    method, argument = ("fork", job.forkable(table)) if fork_is_safe() else ("spawn", job)
    context: Any = multiprocessing.get_context(method)
    chunk = max(1, len(paths) // (processes * 8))
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(argument,)) as pool:
        yield from pool.map(_run, paths, chunksize=chunk)


def fork_is_safe() -> bool:
    """Tell whether this process may be forked: on Linux, while it has but one thread."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


_worker: Worker | None = None


def _begin(job: Job) -> None:
    """Make this process ready to run suites."""
    global _worker  # noqa: PLW0603 - a pool has no other place to keep what a process works with
    _worker = Worker(job)


def _run(path: str) -> SuiteResult:
    assert _worker is not None  # noqa: S101 - `_begin` has run
    return _worker.run(path)
