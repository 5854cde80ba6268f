"""Everything that the tests asked is asked once more, of a table that is observed: coverage, cross-check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.check import check
from engine.load import load_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.coverage import Coverage
    from engine.cross_check import CrossCheckReport
    from engine.policy import Policy
    from engine.rules import RuleTable
    from engine.verify import Question
    from extauthz.compiling.stages import Compiled


def covered(compiled: Compiled, files: Mapping[str, bytes]) -> Coverage:
    """Measure what the tests among *files* reach of the policies.

    Each action is asked for by itself, so that what is counted is an action's own.
    """
    from engine.coverage import Recorder, measure  # noqa: PLC0415 - most runs measure nothing

    recorder = Recorder()
    observed = _Tables(recorder.table(compiled.table))
    for question in compiled.questions(files):
        table = observed(question)
        for action in question.input.actions:
            recorder.ask(table, question.input._replace(actions=(action,)), now=question.time)
    return measure(_policies(compiled), compiled.table, recorder)


def cross_checked(compiled: Compiled, files: Mapping[str, bytes]) -> CrossCheckReport:
    """Evaluate everything that the tests among *files* evaluate with cel-python too."""
    from engine.cross_check import CrossCheck  # noqa: PLC0415 - an extra

    second = CrossCheck()
    observed = _Tables(second.table(compiled.table))
    for question in compiled.questions(files):
        check(observed(question), question.input, now=question.time)
    return second.report


class _Tables:
    """One observed table under the settings of each test."""

    def __init__(self, observed: RuleTable) -> None:
        self._observed = observed
        self._known: dict[int, tuple[RuleTable, RuleTable]] = {}

    def __call__(self, question: Question) -> RuleTable:
        found = self._known.get(id(question.table))
        if found is None:
            table = self._observed.with_settings(question.table.settings)
            # The question's own table is kept too: another one may not get its identity.
            found = self._known[id(question.table)] = (question.table, table)
        return found[1]


def _policies(compiled: Compiled) -> Iterable[Policy]:
    read = (load_policy(content, file) for file, content in compiled.snapshot.files.items())
    return [policy for policy in read if policy is not None]
