"""What ``extauthz compile`` does beyond ``cerbos compile`` with the questions of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from engine.coverage import Coverage
    from engine.cross_check import CrossCheckReport
    from extauthz.compiling.stages import Compiled

POLICY_SUFFIXES: Final = frozenset((".yaml", ".yml", ".json"))

FORMATS: Final = ("text", "json", "html")


@dataclass(frozen=True, slots=True)
class Report:
    """A coverage report: its format, and the file that it goes to; none for the terminal."""

    format: str
    file: Path | None = None


class ReportType(click.ParamType[Report]):
    """``text``, ``json:FILE``, ``html:FILE``."""

    name = "report"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Report:
        """Read the text of an option."""
        if isinstance(value, Report):
            return value
        form, colon, file = str(value).partition(":")
        if form not in FORMATS:
            self.fail(f"`{form}` is no format: there are {', '.join(FORMATS)}", param, context)
        if form != "text" and not file:
            self.fail(f"say where to put it: `{form}:FILE`", param, context)
        if colon and not file:
            self.fail(f"`{value}` names no file", param, context)
        return Report(form, Path(file) if file else None)


@dataclass(frozen=True, slots=True)
class Extras:
    """What to do after the tests have run."""

    reports: tuple[Report, ...] = ()
    fail_under: float | None = None
    """The least coverage that is good enough, in percent."""

    cross_check: bool = False

    @property
    def wanted(self) -> bool:
        """There is anything to do."""
        return bool(self.reports) or self.fail_under is not None or self.cross_check

    def check(self, directory: Path, *, skip_tests: bool) -> None:
        """Refuse what cannot be done with the policies of *directory*.

        Raises:
            click.UsageError: tests are needed and not run, cel-python is not there, or a report would be read
                as a policy the next time.

        """
        from engine import cross_check  # noqa: PLC0415 - most runs do not ask for it

        if skip_tests and self.wanted:
            raise click.UsageError("`--coverage`, `--fail-under` and `--cross-check` need the tests")
        if self.cross_check and not cross_check.is_available():
            raise click.UsageError(cross_check.MISSING)

        for file in self.files:
            if file.suffix in POLICY_SUFFIXES and file.is_relative_to(directory.resolve()):
                raise click.UsageError(f"`{file}` would be read as a policy: put it outside of `{directory}`")

    @property
    def files(self) -> frozenset[Path]:
        """The files that are written."""
        return frozenset(report.file.resolve() for report in self.reports if report.file is not None)

    def look(self, compiled: Compiled, files: Mapping[str, bytes], console: Console) -> list[str]:
        """Look at what the tests among *files* asked, report, and return why the command fails, if it does.

        Raises:
            OSError: a report cannot be written.

        """
        from extauthz.compiling.second_look import covered, cross_checked  # noqa: PLC0415 - takes a second

        complaints: list[str] = []
        if self.reports or self.fail_under is not None:
            coverage = covered(compiled, files)
            for report in self.reports:
                _write(report, coverage, compiled, console)
            complaints += _shortfall(coverage, self.fail_under)
        if self.cross_check:
            found = cross_checked(compiled, files)
            for line in _cross_check_lines(found):
                console.print(line)
            if not found.ok:
                number = len(found.disagreements)
                complaints.append(f"cel-python disagrees about {_counted(number, 'expression')}")
        return complaints


def _write(report: Report, coverage: Coverage, compiled: Compiled, console: Console) -> None:
    if report.format == "text" and report.file is None:
        _print(coverage, console)
        return
    if report.file is None:
        return
    report.file.parent.mkdir(parents=True, exist_ok=True)
    report.file.write_bytes(_FORMS[report.format](coverage, compiled))


def _print(coverage: Coverage, console: Console) -> None:
    from extauthz.coverage_report.text import coverage_text  # noqa: PLC0415 - most runs report nothing

    console.print()
    for shown in coverage_text(coverage):
        console.print(shown)


def _text(coverage: Coverage, _compiled: Compiled) -> bytes:
    from io import StringIO  # noqa: PLC0415 - the same

    from rich.console import Console  # noqa: PLC0415 - the same

    written = StringIO()
    _print(coverage, Console(file=written, width=WIDTH, highlight=False, soft_wrap=True))
    return written.getvalue().lstrip("\n").encode()


def _json(coverage: Coverage, _compiled: Compiled) -> bytes:
    from extauthz.coverage_report.json_form import coverage_json  # noqa: PLC0415 - the same

    return orjson.dumps(coverage_json(coverage), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _html(coverage: Coverage, compiled: Compiled) -> bytes:
    from extauthz.coverage_report.html import coverage_page  # noqa: PLC0415 - the same

    files = compiled.snapshot.files
    sources = {policy.file: files[policy.file].decode("utf-8-sig") for policy in coverage.policies}
    title = f"Coverage of {compiled.request.directory}"
    return coverage_page(coverage, sources, title=title).encode()


_FORMS = {"text": _text, "json": _json, "html": _html}

WIDTH: Final = 200
"""Of a table where no terminal says how wide it is."""


def _shortfall(coverage: Coverage, wanted: float | None) -> Iterator[str]:
    """Yield the complaint about too little coverage; what is missing first is named."""
    total = coverage.total
    if wanted is None or total.percent >= wanted:
        return
    first = next(((policy, item) for policy, item in coverage.gaps if not item.implied), None)
    missing = ""
    if first is not None:
        from extauthz.coverage_report.words import named  # noqa: PLC0415 - the same

        policy, item = first
        missing = f"; first of what is missing: {policy.file}:{item.line}: {named(item)}: {item.gap}"
    yield f"coverage is {int(total.percent * 100) / 100:g} %, not {wanted:g} %{missing}"


def _cross_check_lines(found: CrossCheckReport) -> Iterator[str]:
    yield ""
    compared, expressions = _counted(found.compared, "evaluation"), _counted(found.expressions, "expression")
    disagreements = _counted(len(found.disagreements), "disagreement")
    yield f"cross-check: {compared} of {expressions} compared with cel-python, {disagreements}"
    for reason, count in found.not_compared.items():
        yield f"  not compared: {count} ({reason})"
    for disagreement in found.disagreements:
        yield ""
        yield str(disagreement)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + 's'}"
