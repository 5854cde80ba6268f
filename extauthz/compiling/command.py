"""The command line of ``extauthz compile``: Cerbos's options, output formats and exit codes.

0: all is well; 3: policies do not compile; 4: tests failed or were in error; 1: policies or tests cannot be
read; 2: the command line is wrong.
"""

# ruff: noqa: PLC0415  # what takes long to import is imported when the command runs

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from extauthz.compiling.colours import LEVELS, coloured, painter, printable
from extauthz.compiling.extras import Extras, Report, ReportType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from engine.verify import TestResults
    from extauthz.compiling.problems import Problems
    from extauthz.compiling.stages import Compiled, Request

CANNOT_READ: Final = 1
NOT_COMPILED: Final = 3
TESTS_FAILED: Final = 4

OUTPUTS = ("tree", "list", "pretty", "json")
TEST_OUTPUTS = ("tree", "list", "pretty", "json", "junit")


def _tree(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Take a directory, or an archive of one."""
    from engine.storage.archive import SUFFIXES, is_archive

    if path is None or path.is_dir() or is_archive(path):
        return path
    raise click.BadParameter(
        f"`{path}` is no directory and no archive ({', '.join(SUFFIXES)})", context, parameter
    )


_TREE = click.Path(exists=True, path_type=Path)


@click.command("compile")
@click.argument("directory", type=_TREE, callback=_tree)
@click.option("--ignore-schemas", is_flag=True, help="Do without the schemas of attributes.")
@click.option("--skip-tests", is_flag=True, help="Compile only.")
@click.option("--skip-batching", is_flag=True, help="Ask for each action of a test by itself.")
@click.option(
    "--strict-evaluation", is_flag=True, help="An error in a condition denies at once, in all tests."
)
@click.option(
    "--test-filter",
    "filters",
    multiple=True,
    metavar="FILTER",
    help="Run only some tests: `suite=A*;test=t1,t2;principal=p;resource=r;action=view:*`; "
    "globs, several of a kind with commas. Repeatable.",
)
@click.option(
    "--run", "pattern", default="", metavar="REGEX", help="Run only tests whose SUITE/TEST matches."
)
@click.option("--tests", type=_TREE, callback=_tree, help="Where the tests are.  [default: DIRECTORY]")
@click.option(
    "-o",
    "--output",
    type=click.Choice(OUTPUTS),
    default="tree",
    show_default=True,
    help="How faults of policies are shown, and test results.",
)
@click.option("--test-output", type=click.Choice(TEST_OUTPUTS), help="How test results are shown.")
@click.option("--verbose", is_flag=True, help="Show tests that passed too, and why each decision came about.")
@click.option(
    "--color", type=click.Choice(LEVELS), default="auto", show_default=True, help="Whether to use colours."
)
@click.option("--no-color", is_flag=True, help="Use no colours.")
@click.option(
    "--coverage",
    "reports",
    type=ReportType(),
    multiple=True,
    metavar="FORMAT[:FILE]",
    help="Report what the tests reach: `text`, `json:FILE`, `html:FILE`. Repeatable.",
)
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Fail when the tests reach less than this.",
)
@click.option("--cross-check", is_flag=True, help="Have cel-python evaluate everything too, and compare.")
@click.option("--watch", is_flag=True, help="Do it again after each change, until Ctrl-C.")
def compile_policies(
    *,
    directory: Path,
    ignore_schemas: bool,
    skip_tests: bool,
    skip_batching: bool,
    strict_evaluation: bool,
    filters: tuple[str, ...],
    pattern: str,
    tests: Path | None,
    output: str,
    test_output: str | None,
    verbose: bool,
    color: str,
    no_color: bool,
    reports: tuple[Report, ...],
    fail_under: float | None,
    cross_check: bool,
    watch: bool,
) -> None:
    """Compile the policies in DIRECTORY, or in an archive of one, and run their tests.

    Exits with 0 when all is well, with 3 when policies do not compile, with 4 when tests fail, with 1 when
    something cannot be read.
    """
    from extauthz.compiling.stages import Request

    tests_shown = test_output or output
    request = Request(
        directory,
        tests,
        ignore_schemas=ignore_schemas,
        skip_tests=skip_tests,
        batching=not skip_batching,
        strict=strict_evaluation,
        filters=filters,
        pattern=pattern,
        traced="all" if verbose else "failures" if tests_shown == "pretty" else "none",
    )
    shown = Shown(output, tests_shown, colours=coloured(color, refused=no_color), verbose=verbose)
    extras = Extras(reports, fail_under, cross_check=cross_check)
    extras.check(directory, skip_tests=skip_tests)
    if not watch:
        sys.exit(perform(request, shown, extras))
    from extauthz.compiling.watch import repeat

    directories = [directory] if tests is None else [directory, tests]
    repeat(lambda: perform(request, shown, extras), directories, written=extras.files)


def perform(request: Request, shown: Shown, extras: Extras) -> int:
    """Compile and test; returns the exit code."""
    from engine.storage import StoreError
    from engine.verify import FilterError, PatternError
    from extauthz.compiling.stages import CompileError, compile_directory

    try:
        compiled = compile_directory(request)
        for warning in compiled.warnings:
            click.echo(f"warning: {printable(str(warning))}", err=True)
        if request.skip_tests:
            shown.policies(len(compiled.table.policies))
            return 0
        return _test(compiled, shown, extras)
    except CompileError as error:
        shown.problems(error.problems)
        complain(str(error))
        return NOT_COMPILED
    except PatternError as error:
        complain(str(error))
    except FilterError as error:
        complain(f"invalid test filter: {error}")
    except BrokenPipeError:  # `| head` has seen enough
        raise
    except (StoreError, OSError) as error:
        complain(str(error))
    return CANNOT_READ


def _test(compiled: Compiled, shown: Shown, extras: Extras) -> int:
    """Run the tests, and look at what they asked."""
    from extauthz.compiling.progress import progress_display

    files = compiled.test_files()
    with progress_display() as progress:
        results = compiled.run_tests(files, progress)
    shown.results(results)
    complaints = extras.look(compiled, files, shown.console()) if extras.wanted else []
    if not results.ok:
        complaints.append("tests failed")
    for complaint in complaints:
        complain(complaint)
    return TESTS_FAILED if complaints else 0


def complain(message: str) -> None:
    """Say what is wrong on standard error, as the last line."""
    click.echo(f"extauthz: error: {printable(message)}", err=True)


class Shown:
    """Writes to standard output what was found, in the format that was asked for."""

    def __init__(self, output: str, test_output: str, *, colours: bool, verbose: bool) -> None:
        self._output = output
        self._test_output = test_output
        self._colours = colours
        self._verbose = verbose
        self._paint = painter(on=colours)

    def console(self) -> Console:
        """Return what more is printed to: standard error where standard output is read by a machine."""
        from rich.console import Console

        machine_reads = self._test_output in ("json", "junit")
        forced = None if self._colours else False
        return Console(
            stderr=machine_reads, force_terminal=forced, markup=False, highlight=False, soft_wrap=True
        )

    def policies(self, number: int) -> None:
        """Say how many policies there are, to people."""
        if self._output != "json":
            self._lines([f"{number} {'policy' if number == 1 else 'policies'}"])

    def problems(self, found: Problems) -> None:
        """Show what is wrong with the policies."""
        from extauthz.compiling.problem_text import problem_lines

        if self._output == "json":
            self._json(found.to_json())
        else:
            self._lines(problem_lines(found, self._paint))

    def results(self, found: TestResults) -> None:
        """Show what became of the tests."""
        if self._test_output == "json":
            self._json(found.to_json())
        elif self._test_output == "junit":
            from engine.verify import junit

            self._lines([junit(found, verbose=self._verbose)])
        else:
            from extauthz.compiling.results_text import FORMATS

            self._lines(FORMATS[self._test_output](found, self._paint, self._verbose))

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            click.echo(line, color=self._colours)

    def _json(self, value: dict[str, Any]) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        if not self._colours:
            click.echo(text)
            return
        from rich.console import Console
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        Console(force_terminal=True, soft_wrap=True).print(JSONHighlighter()(Text(text)))
