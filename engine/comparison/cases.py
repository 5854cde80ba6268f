"""Questions for a comparison, and where each of them comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.cel import Timestamp
from engine.verify import Runner, SuiteLoader
from engine.verify.run import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.model import CheckInput
    from engine.rules import RuleTable
    from engine.verify.suites import Options

Origin = Literal["log", "test", "generated"]

A_MOMENT = Timestamp(1_767_225_600 * 1_000_000_000)
"""What ``now()`` says where a question does not say it: 2026-01-01, so that a comparison can be repeated."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One question for both sides."""

    origin: Origin
    name: str
    """What leads a person to it: the suite and the test, the line of the log."""

    input: CheckInput
    now: Timestamp = A_MOMENT
    options: Options | None = None
    """How a test wants the engine to be set up."""


def from_suites(table: RuleTable, files: Mapping[str, bytes]) -> Iterator[Case]:
    """Yield what the test suites among *files* ask; what they expect does not matter here.

    A suite that cannot be run asks nothing: running the tests tells why.
    """
    runner = Runner(table, Config())
    loader = SuiteLoader(files)
    for path in loader.paths:
        for question in runner.questions(loader.load(path)):
            test = question.test
            name = f"{path}: {test.table.name}, {test.principal}, {test.resource}"
            yield Case("test", name, question.input, question.now or A_MOMENT, test.options)
