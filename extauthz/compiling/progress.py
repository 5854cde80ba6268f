"""A bar for runs that take long: on a terminal, on standard error, and only after a while."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds that nothing is shown."""


@contextlib.contextmanager
def progress_display() -> Iterator[Callable[[int, int], object] | None]:
    """Return what is told how many suites are done, ``None`` where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """Appears with the first news after the first second, and leaves no trace."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._shown is None:
            if time.monotonic() - self._since < PATIENCE:
                return
            self._shown = _started(total)
        progress, task = self._shown
        progress.update(task, completed=done, refresh=True)

    def close(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()


def _started(total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console  # noqa: PLC0415 - most runs are over before anything is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("suites"), BarColumn(), MofNCompleteColumn())
    # Updated by hand, without a thread of its own: other processes may have to be forked.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    progress.start()
    return progress, progress.add_task("suites", total=total)
