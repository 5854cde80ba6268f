"""The command line of ``extauthz explain``: a request, the decisions, and the way to each.

Exit codes: 0 everything is allowed; 1 something is denied; 2 there is no answer, as the command line, the
request or the configuration is wrong or cannot be read; 3 the policies do not compile.
"""

# ruff: noqa: PLC0415  # what takes long to import is imported when the command runs

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from extauthz.compiling.colours import LEVELS, coloured, painter, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from engine.cel import Timestamp
    from engine.explain.explanation import Explanation
    from engine.explain.text import Tone
    from engine.model import CheckInput, Evaluation, ValidationError
    from engine.rules import RuleTable, Settings
    from engine.storage import Store
    from extauthz.compiling.problems import Problems
    from extauthz.explain_request import ExplainRequest

    Paint = Callable[[str, str], str]

ALL_ALLOWED: Final = 0
DENIED: Final = 1
NO_ANSWER: Final = 2
NOT_COMPILED: Final = 3

OUTPUTS = ("text", "json")
EVALUATIONS = ("lenient", "strict", "safe")
ENFORCEMENTS = ("none", "warn", "reject")
STANDARD_INPUT: Final = "-"
ROLES: Mapping[Tone, str] = {
    "plain": "text",
    "allowed": "good",
    "denied": "error",
    "failed": "action",
    "aside": "hint",
}
"""The colours of lines, by what they say."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("explain")
@click.argument("arguments", nargs=-1, metavar="[DIRECTORY] REQUEST")
@click.option("-c", "--config", type=_FILE, help="Take the policies and settings of a configuration file.")
@click.option(
    "--evaluation",
    type=click.Choice(EVALUATIONS),
    help="What a condition that fails means.  [default: lenient, or what the configuration says]",
)
@click.option("--now", metavar="TIME", help="What `now()` says: `2030-01-31T09:00:00Z`.  [default: the time]")
@click.option("--default-policy-version", metavar="VERSION", help="For those that name no version.")
@click.option("--default-scope", metavar="SCOPE", help="For those that name no scope.")
@click.option(
    "--lenient-scope-search",
    is_flag=True,
    default=None,
    help="Begin in the nearest scope above when there are no policies in a scope.",
)
@click.option(
    "--schemas", type=click.Choice(ENFORCEMENTS), help="Whether attributes have to keep to their schemas."
)
@click.option(
    "-o", "--output", type=click.Choice(OUTPUTS), default="text", show_default=True, help="How it is shown."
)
@click.option(
    "--color", type=click.Choice(LEVELS), default="auto", show_default=True, help="Whether to use colours."
)
@click.option("--no-color", is_flag=True, help="Use no colours.")
def explain_decisions(
    *,
    arguments: tuple[str, ...],
    config: Path | None,
    evaluation: Evaluation | None,
    now: str | None,
    default_policy_version: str | None,
    default_scope: str | None,
    lenient_scope_search: bool | None,
    schemas: str | None,
    output: str,
    color: str,
    no_color: bool,
) -> None:
    """Decide a REQUEST by the policies in DIRECTORY, and tell why.

    REQUEST is a YAML or JSON file with the body of a CheckResources request, `-` for standard input; in its
    `auxData` stand claims, as in test fixtures, not tokens.

    Exits with 0 when everything is allowed, with 1 when something is denied, with 2 when there is no answer,
    with 3 when the policies do not compile.
    """
    directory, file = _arguments(arguments, config)
    changes = {
        "default_policy_version": default_policy_version,
        "default_scope": default_scope,
        "lenient_scope_search": lenient_scope_search,
        "schema_enforcement": schemas,
        "evaluation": evaluation,
    }
    wanted = Wanted(directory, config, {name: value for name, value in changes.items() if value is not None})
    moment = _moment(now)
    shown = Shown(output, colours=coloured(color, refused=no_color))
    sys.exit(perform(wanted, file, moment, shown))


def _arguments(arguments: tuple[str, ...], config: Path | None) -> tuple[Path | None, str]:
    """Tell the directory from the request."""
    if config is not None and len(arguments) == 1:
        return None, arguments[0]
    if config is not None or len(arguments) != 2:
        raise click.UsageError("give a directory of policies and a request, or `--config` and a request")
    directory = Path(arguments[0])
    if not directory.is_dir():
        raise click.UsageError(f"`{directory}` is not a directory")
    return directory, arguments[1]


def _moment(text: str | None) -> Timestamp:
    from engine.cel import Timestamp
    from engine.verify.timestamps import parse_time

    if text is None:
        return Timestamp(time.time_ns())
    try:
        return parse_time(text)
    except ValueError as error:
        raise click.BadParameter(f"{error} (a time is `2030-01-31T09:00:00Z`)", param_hint="--now") from None


# -- policies ----------------------------------------------------------------------------------------------


class RefusedError(Exception):
    """There is no answer; the message has a line for each fault."""


class NotCompiledError(Exception):
    """The policies do not compile."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("failed to compile")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which policies are asked, and how, as the command line says it."""

    directory: Path | None
    config: Path | None
    changes: Mapping[str, Any]
    """Settings of the engine that the command line names."""

    def table(self) -> RuleTable:
        """Load the policies.

        Raises:
            RefusedError: the configuration is wrong, or something cannot be read.
            NotCompiledError: something is wrong with the policies.

        """
        from engine.engine import Loader
        from engine.load import PolicyError
        from engine.storage import StoreError
        from extauthz.compiling.problems import problems_of

        try:
            store, settings = self._store_and_settings()
            try:
                snapshot = store.read()
            finally:
                store.close()
        except (StoreError, OSError) as error:
            raise RefusedError(str(error)) from None
        try:
            return Loader(replace(settings, **self.changes)).table(snapshot)
        except PolicyError as error:
            raise NotCompiledError(problems_of(error, snapshot)) from None

    def _store_and_settings(self) -> tuple[Store, Settings]:
        from engine.rules import Settings
        from engine.storage import open_store

        if self.config is None:
            return open_store("disk", {"directory": os.fspath(cast("Path", self.directory))}), Settings()
        from extauthz.app import engine_settings
        from extauthz.config import ConfigError, load

        try:
            config = load(self.config).config
        except ConfigError as error:
            raise RefusedError(str(error)) from None
        mode = config.pdp_evaluation if config.serves_pdp else config.engine.mode
        settings = replace(engine_settings(config.engine, config.attribute_schemas), evaluation=mode)
        return open_store(config.storage.driver, config.storage.options()), settings


# -- the command -------------------------------------------------------------------------------------------


def perform(wanted: Wanted, file: str, now: Timestamp, shown: Shown) -> int:
    """Decide and explain; returns the exit code."""
    try:
        request = _request(file)
        explanations = _explained(wanted.table(), request.questions, now)
    except RefusedError as error:
        click.echo(printable(str(error)), err=True)
        return NO_ANSWER
    except NotCompiledError as error:
        shown.problems(error.problems)
        click.echo(f"extauthz: error: {error}", err=True)
        return NOT_COMPILED
    shown.explanations(request, explanations)
    return DENIED if _counts(explanations)[1] else ALL_ALLOWED


def _request(file: str) -> ExplainRequest:
    from engine.document import DocumentError
    from extauthz.explain_request import read_request

    name = "standard input" if file == STANDARD_INPUT else file
    try:
        return read_request(_content(file), name)
    except OSError as error:
        raise RefusedError(f"{name}: cannot be read: {error.strerror}") from None
    except DocumentError as error:
        raise RefusedError(str(error)) from None


def _content(file: str) -> bytes:
    """Read what there is, but not much more than a document may have."""
    from engine.document import MAX_BYTES

    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(file).open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _explained(table: RuleTable, questions: Iterable[CheckInput], now: Timestamp) -> list[Explanation]:
    from engine.explain import explain

    return [explain(table, question, now=now) for question in questions]


def _counts(explanations: Iterable[Explanation]) -> tuple[int, int]:
    """Count what is allowed and what is denied."""
    from engine.model import Effect

    decided = [action.decision.effect for each in explanations for action in each.actions]
    allowed = decided.count(Effect.ALLOW)
    return allowed, len(decided) - allowed


# -- output ------------------------------------------------------------------------------------------------


class Shown:
    """Writes what was found, in the format that was asked for."""

    def __init__(self, output: str, *, colours: bool) -> None:
        self._output = output
        self._colours = colours

    def problems(self, found: Problems) -> None:
        """Show what is wrong with the policies, on standard error."""
        from extauthz.compiling.problem_text import problem_lines

        for line in problem_lines(found, painter(on=False)):
            click.echo(line, err=True)

    def explanations(self, request: ExplainRequest, explanations: Sequence[Explanation]) -> None:
        """Show decisions and the ways to them."""
        if self._output == "json":
            click.echo(_json(request, explanations))
            return
        for line in _lines(explanations, painter(on=self._colours)):
            click.echo(line, color=self._colours)


def _json(request: ExplainRequest, explanations: Sequence[Explanation]) -> bytes:
    """Write what the API's ExplainResources would answer."""
    from extauthz.pdp import protojson
    from extauthz.pdp.explain_messages import ExplainResourcesResponse
    from extauthz.pdp.explaining import explained

    resources = [entry.resource for entry in request.resources]
    results = explained(resources, explanations, include_meta=request.include_meta)
    return protojson.encode(ExplainResourcesResponse(request.request_id, results), pretty=True)


def _lines(explanations: Sequence[Explanation], paint: Paint) -> Iterator[str]:
    from engine.explain.text import lines

    for each in explanations:
        each.find_places()
        yield paint("header", _title(each.question))
        yield from (f"  {paint('error', _invalid(error))}" for error in each.decision.validation_errors)
        yield from (f"  {paint(ROLES[line.tone], line.text)}" for line in lines(each))
        yield ""
    allowed, denied = _counts(explanations)
    yield f"{paint('good', f'{allowed} allowed')}, {paint('error' if denied else 'text', f'{denied} denied')}"


def _title(question: CheckInput) -> str:
    principal, resource = question.principal, question.resource
    return f"{resource.kind} {resource.id}, asked for by {principal.id} ({', '.join(principal.roles)})"


_WHOSE = {"SOURCE_PRINCIPAL": "principal", "SOURCE_RESOURCE": "resource"}


def _invalid(error: ValidationError) -> str:
    return f"attributes of the {_WHOSE[error.source]}: {error.path}: {error.message}"
