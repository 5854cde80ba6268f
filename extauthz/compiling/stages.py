"""What ``extauthz compile`` does, stage by stage: read, compile, test. Nothing here writes to a terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.engine import Loader
from engine.load import PolicyError
from engine.rules import Settings
from engine.storage import open_store
from engine.verify import Config, Filter, Runner, Selection, SuiteLoader, suite_files
from engine.verify.parallel import Recipe, run_files
from extauthz.compiling.problems import problems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from engine.document import Fault
    from engine.rules import RuleTable
    from engine.storage import Snapshot
    from engine.verify import Question, TestResults
    from extauthz.compiling.problems import Problems


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile and which tests to run, as the command line says it."""

    directory: Path
    tests: Path | None = None
    """Where the tests are, if not among the policies."""

    ignore_schemas: bool = False
    skip_tests: bool = False
    batching: bool = True
    strict: bool = False
    filters: tuple[str, ...] = ()
    pattern: str = ""
    traced: Literal["none", "failures", "all"] = "none"

    @property
    def settings(self) -> Settings:
        """The engine of a test is one as it comes, but what a schema does not allow is denied."""
        return Settings(schema_enforcement="none" if self.ignore_schemas else "reject")

    @property
    def config(self) -> Config:
        """How the tests are to be run.

        Raises:
            FilterError: a filter cannot be read.

        """
        selection = Selection(Filter.parse(self.filters), self.pattern)
        return Config(selection, batching=self.batching, strict=self.strict, traced=self.traced)


class CompileError(Exception):
    """The policies do not compile."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("failed to compile")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Compiled:
    """Policies that compile."""

    request: Request
    snapshot: Snapshot
    table: RuleTable

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What looks like a mistake in the policies, although they can be used."""
        return self.table.warnings

    def test_files(self) -> Mapping[str, bytes]:
        """Return the suites and fixtures.

        Raises:
            OSError: they cannot be read.

        """
        return suite_files(self.request.tests or self.request.directory)

    def run_tests(
        self, files: Mapping[str, bytes], progress: Callable[[int, int], object] | None = None
    ) -> TestResults:
        """Run the suites among *files*.

        Raises:
            FilterError: the filter or the pattern cannot be read.

        """
        recipe = Recipe(self.snapshot, self.table.settings)
        return run_files(self.table, files, self.request.config, recipe, progress=progress)

    def questions(self, files: Mapping[str, bytes]) -> Iterator[Question]:
        """Yield every question that :meth:`run_tests` asks; each can be asked again, and explained."""
        loader = SuiteLoader(files)
        runner = Runner(self.table, self.request.config)
        for path in loader.paths:
            yield from runner.questions(loader.load(path))


def compile_directory(request: Request) -> Compiled:
    """Read and compile the policies of a directory.

    Raises:
        CompileError: something is wrong with them.
        StoreError: they cannot be read.

    """
    store = open_store("disk", {"directory": os.fspath(request.directory)})
    try:
        snapshot = store.read()
    finally:
        store.close()
    try:
        table = Loader(request.settings).table(snapshot)
    except PolicyError as error:
        raise CompileError(problems_of(error, snapshot)) from None
    return Compiled(request, snapshot, table)
