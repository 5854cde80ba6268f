"""The command line of ``extauthz diff``.

0: no decision changes; 1: some do; 2: the command line is wrong, or something cannot be read; 3: policies do
not compile.
"""

# ruff: noqa: PLC0415  # what takes long to import is imported when the command runs

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from extauthz.compiling.colours import LEVELS, coloured
from extauthz.compiling.command import complain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.comparison import Case, Comparison
    from extauthz.diffing.sides import Side

CHANGED: Final = 1
CANNOT_READ: Final = 2
NOT_COMPILED: Final = 3

WIDTH: Final = 160
"""Columns of the table where there is no terminal to ask."""

OUTPUTS = ("table", "markdown", "json")


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option(
    "--repo",
    "repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The git repository of revisions.  [default: the current directory]",
)
@click.option("--dir", "directory", default="", metavar="PATH", help="Where in a revision the policies are.")
@click.option(
    "--generated",
    "limit",
    type=click.IntRange(0, 1_000_000),
    default=2000,
    show_default=True,
    help="How many questions to make up from what the policies speak of.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Other numbers make up other questions.")
@click.option("--skip-tests", is_flag=True, help="Do not ask what the test suites ask.")
@click.option(
    "--log",
    "logs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A decision log in Cerbos's form, one entry a line: ask what was asked then. Repeatable.",
)
@click.option(
    "-o", "--output", type=click.Choice(OUTPUTS), default="table", show_default=True, help="How to report."
)
@click.option(
    "--color", type=click.Choice(LEVELS), default="auto", show_default=True, help="Whether to use colours."
)
def diff_policies(
    *,
    old: str,
    new: str,
    repository: Path,
    directory: str,
    limit: int,
    seed: int,
    skip_tests: bool,
    logs: tuple[Path, ...],
    output: str,
    color: str,
) -> None:
    """Tell which decisions change from OLD to NEW.

    Each is a directory of policies, an archive, a bundle, or a revision of a git repository (`main`,
    `HEAD~1`, `v1.2:policies`). Both are asked the same: what the test suites of either ask, what the
    decision logs say was asked, and questions made of the attributes, roles and constants in the policies.

    Exits with 0 when no decision changes, with 1 when some do, with 2 when something cannot be read, with 3
    when policies do not compile.
    """
    from engine.comparison import LogError, compare
    from extauthz.diffing.sides import SideError

    try:
        before, after = (_loaded(name, repository, directory, color) for name in (old, new))
        cases = _cases(before, after, skip_tests=skip_tests, logs=logs, limit=limit, seed=seed)
        comparison = compare(before.table, after.table, cases)
    except (SideError, LogError, OSError) as error:
        complain(str(error))
        sys.exit(CANNOT_READ)
    _show(comparison, old, new, output, colours=coloured(color, refused=False))
    sys.exit(CHANGED if comparison.changes else 0)


def _loaded(name: str, repository: Path, directory: str, color: str) -> Side:
    from extauthz.compiling.colours import painter
    from extauthz.compiling.problem_text import problem_lines
    from extauthz.diffing.sides import NotCompiledError, load_side

    try:
        return load_side(name, repository, directory)
    except NotCompiledError as error:
        for line in problem_lines(error.problems, painter(on=coloured(color, refused=False))):
            click.echo(line, err=True)
        complain(str(error))
        sys.exit(NOT_COMPILED)


def _cases(
    old: Side, new: Side, *, skip_tests: bool, logs: tuple[Path, ...], limit: int, seed: int
) -> Iterator[Case]:
    from engine.comparison import from_decision_log, from_suites, generated

    for log in logs:
        with log.open("rb") as lines:
            yield from from_decision_log(lines, str(log))
    if not skip_tests:
        yield from from_suites(new.table, new.suites)
        if old.suites != new.suites:
            yield from from_suites(old.table, old.suites)
    yield from generated(old.table, new.table, limit=limit, seed=seed)


def _show(comparison: Comparison, old: str, new: str, output: str, *, colours: bool) -> None:
    from extauthz.diffing import report

    if output == "json":
        click.echo(json.dumps(report.document(comparison, old, new), indent=2))
    elif output == "markdown":
        click.echo(report.markdown(comparison, old, new))
    else:
        from rich.console import Console

        console = Console(no_color=not colours, highlight=False, markup=False)
        if not console.is_terminal:
            console.width = WIDTH
        if comparison.changes:
            console.print(report.table(comparison))
            console.print(report.examples(comparison), soft_wrap=True)
        console.print(report.summary(comparison), soft_wrap=True)
