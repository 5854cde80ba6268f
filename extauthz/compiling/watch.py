"""``--watch``: the same again after each change of a policy, a schema or a test, until Ctrl-C."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from watchfiles import watch

from extauthz.compiling.extras import POLICY_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from watchfiles import Change

QUIET: Final = 300
"""Milliseconds without a change after which a group of changes is taken for complete, at least."""

LONGEST: Final = 2_000
"""Milliseconds after which a group of changes that does not end is taken up all the same."""

TICK: Final = 100
"""Milliseconds after which the watcher lets us look around."""

ABSENT: Final = 0.5
"""Seconds between two looks for a directory that is not there."""


def repeat(run: Callable[[], int], directories: Collection[Path], *, written: Collection[Path] = ()) -> None:
    """Call *run* now and after each change in *directories*; files that it has *written* itself do not count.

    Returns when Ctrl-C is pressed. What *run* raises is shown, and the next change is waited for.
    """
    try:
        for _ in _occasions(directories, frozenset(written)):
            _announce()
            _attempt(run)
            click.echo(click.style("\nwaiting for changes; Ctrl-C ends", dim=sys.stdout.isatty()))
            sys.stdout.flush()
    except KeyboardInterrupt:
        click.echo()


def _attempt(run: Callable[[], int]) -> None:
    try:
        run()
    except Exception as error:  # a bug of ours must not end the watch
        click.echo(f"extauthz: error: internal error: {error!r}", err=True)


def _announce() -> None:
    """Begin a clean page on a terminal; elsewhere, draw a line."""
    at = datetime.datetime.now().astimezone().strftime("%H:%M:%S")
    if sys.stdout.isatty():
        click.clear()
        click.echo(click.style(at, dim=True))
    else:
        click.echo(f"--- {at}")


def _occasions(directories: Collection[Path], written: frozenset[Path]) -> Iterator[None]:
    """Yield at once, and after each group of changes; a directory that is replaced is found again."""
    while True:
        identities = _identities(directories)
        if None in identities:
            time.sleep(ABSENT)
            continue
        yield from _until_replaced(directories, written, identities)


def _until_replaced(
    directories: Collection[Path], written: frozenset[Path], identities: list[int | None]
) -> Iterator[None]:
    # The watcher runs before the first look at the files: a change in between is not lost.
    groups = watch(
        *directories,
        watch_filter=lambda change, path: _counts(change, path, written),
        debounce=LONGEST,
        step=QUIET,
        rust_timeout=TICK,
        yield_on_timeout=True,
        raise_interrupt=True,
    )
    first = True
    for changes in groups:
        if first or changes:
            first = False
            yield
        if _identities(directories) != identities:
            return


def _counts(_change: Change, path: str, written: frozenset[Path]) -> bool:
    changed = Path(path)
    # What has no suffix may be a directory that came or went, with everything in it.
    return (changed.suffix in POLICY_SUFFIXES or not changed.suffix) and changed.resolve() not in written


def _identities(directories: Collection[Path]) -> list[int | None]:
    return [_identity(directory) for directory in directories]


def _identity(directory: Path) -> int | None:
    try:
        return directory.stat().st_ino
    except OSError:
        return None
