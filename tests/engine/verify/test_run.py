"""Running suites: judging, options, time, batches, selections, and the same over several processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import Settings
from engine.engine import Loader
from engine.storage import Snapshot
from engine.verify import Config, Filter, Result, Runner, Selection, junit, load_suites, parallel, run
from engine.verify.parallel import Recipe, run_files

if TYPE_CHECKING:
    from engine.verify import Details, TestResults

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - actions: [view]
      effect: EFFECT_ALLOW
      roles: [user]
      output: {when: {ruleActivated: '{"who": P.id, "n": 2}'}}
    - {actions: [broken], effect: EFFECT_ALLOW, roles: [user], output: {expr: 1 / 0}}
    - actions: [wait]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: "now() > timestamp('2024-01-01T00:00:00Z')"}}
    - actions: [since]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: "timeSince(R.attr.at) > duration('1h')"}}
    - actions: [fail]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {any: {of: [{expr: R.attr.missing}, {expr: "true"}]}}}
    - {actions: [frozen], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: G.thaw}}}
"""
SNAPSHOT = Snapshot({"doc.yaml": POLICY.encode()})
ROOT = Path(__file__).resolve().parents[3]

TABLE = Loader(Settings()).table(SNAPSHOT)
ACTIONS = ("view", "broken", "wait", "since", "fail", "frozen", "none")


def suite(**changes: Any) -> dict[str, Any]:
    """Return a suite that asks for everything and expects nothing."""
    test = {
        "name": "T",
        "input": {"principals": ["ann"], "resources": ["doc"], "actions": list(ACTIONS)},
        "expected": [{"principal": "ann", "resource": "doc", "actions": {"none": "EFFECT_DENY"}}],
    }
    return {
        "name": "S",
        "principals": {"ann": {"id": "ann", "roles": ["user"]}},
        "resources": {"doc": {"kind": "doc", "id": "1", "attr": {"at": "2024-01-01T00:00:00Z"}}},
        "tests": [test | changes.pop("test", {})],
    } | changes


def results(content: dict[str, Any], config: Config | None = None) -> TestResults:
    return run(TABLE, load_suites({"it_test.yaml": yaml.safe_dump(content).encode()}), config)


def details(found: TestResults) -> dict[str, Details]:
    """Return the details of each action of the only test."""
    assert not found.suites[0].error, found.suites[0].error
    return {action.name: action.details for _, _, action in found.suites[0].cases[0].actions()}


def words(found: TestResults) -> dict[str, str]:
    return {action: what.result.name for action, what in details(found).items()}


def expecting(effect: str, action: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    entry = {"principal": "ann", "resource": "doc", "actions": {action: effect}}
    said = {"outputs": [{"action": action, "expected": list(outputs)}]} if outputs else {}
    return {"input": suite()["tests"][0]["input"] | {"actions": [action]}, "expected": [entry | said]}


SOURCE = "resource.doc.vdefault#rule-001"


@pytest.mark.parametrize(
    ("effect", "action", "outputs", "wanted"),
    [
        ("EFFECT_ALLOW", "view", (), "passed"),
        ("EFFECT_DENY", "view", ({"src": "x#y", "val": 1},), "failed"),
        ("EFFECT_ALLOW", "view", ({"src": SOURCE, "val": {"n": 2, "who": "ann"}},), "passed"),
        ("EFFECT_ALLOW", "view", ({"src": SOURCE, "val": {"n": "2", "who": "ann"}},), "mismatched"),
        ("EFFECT_ALLOW", "view", ({"src": "x#y", "val": 1},), "missing"),
        ("EFFECT_ALLOW", "broken", ({"src": "resource.doc.vdefault#rule-002"},), "errored"),
        ("EFFECT_ALLOW", "view", ({"src": SOURCE},), "mismatched"),
    ],
)
def test_judging(effect: str, action: str, outputs: tuple[dict[str, Any], ...], wanted: str) -> None:
    """The effect counts first; outputs are looked at where it is right, those alone that are expected."""
    found = details(results(suite(test=expecting(effect, action, *outputs))))[action]
    if wanted == "passed":
        assert found.success is not None
    else:
        assert found.failure is not None
        assert [output.kind for output in found.failure.outputs] == ([] if wanted == "failed" else [wanted])


def test_a_test_that_needs_the_time_has_to_say_it() -> None:
    """All actions asked together are in error, as Cerbos has it; one by one only those that ask the time."""
    together = results(suite())
    assert set(words(together).values()) == {"ERRORED"}
    assert "`now` was not provided" in details(together)["view"].error
    alone = words(results(suite(), Config(batching=False)))
    assert [action for action, word in alone.items() if word == "ERRORED"] == ["wait"]


def test_a_condition_that_fails_before_it_asks_the_time_does_not_need_it() -> None:
    """``timeSince`` of a string is an error by itself: the time was never asked."""
    found = words(results(suite(test=expecting("EFFECT_DENY", "since"))))
    assert found == {"since": "PASSED"}


def test_options_set_the_engine_up() -> None:
    """The time, globals and strictness of a test are its own; those of a test replace those of the suite."""
    options = {"now": "2024-06-01T00:00:00Z", "globals": {"thaw": True}}
    found = words(results(suite(options=options)))
    assert [action for action, word in found.items() if word == "FAILED"] == [
        "view",
        "broken",
        "wait",
        "fail",
        "frozen",
    ]
    own = {"options": {"now": "2023-06-01T00:00:00Z", "strictEvaluation": True}}
    found = words(results(suite(options=options, test=own)))
    assert [action for action, word in found.items() if word == "FAILED"] == ["view", "broken"]
    assert words(results(suite(options=options), Config(strict=True)))["fail"] == "PASSED"


def test_skipped_and_left_out() -> None:
    """What is skipped is counted; what was not asked for is shown in the results and not counted."""
    skipped = results(suite(test={"skip": True, "skipReason": "later"}))
    assert skipped.summary.counts == {Result.SKIPPED: len(ACTIONS)}
    only_view = Config(Selection(Filter.parse(["action=view"])))
    found = results(suite(options={"now": "2024-06-01T00:00:00Z"}), only_view)
    assert found.summary.counts == {Result.FAILED: 1}
    assert [name for name, what in details(found).items() if what.skip_reason] == list(
        ACTIONS[:0] + ACTIONS[1:]
    )
    other = results(suite(), Config(Selection(Filter.parse(["suite=other"]))))
    assert (other.summary.tests, other.summary.overall) == (0, Result.SKIPPED)


@pytest.mark.parametrize(("pattern", "runs"), [("^S/T$", True), ("principal_key:.ann", True), ("^T", False)])
def test_patterns(pattern: str, runs: bool) -> None:
    """A pattern is searched in the name as people write it, and in Cerbos's."""
    found = results(suite(test=expecting("EFFECT_ALLOW", "view")), Config(Selection(pattern=pattern)))
    assert words(found) == {"view": "PASSED" if runs else "SKIPPED"}


def test_questions_are_those_that_a_run_asks() -> None:
    """Each question can be asked again, and explained, with the same decision."""
    (one,) = load_suites(
        {"it_test.yaml": yaml.safe_dump(suite(options={"now": "2024-06-01T00:00:00Z"})).encode()}
    )
    questions = list(Runner(TABLE, Config(batching=False)).questions(one))
    assert [question.input.actions for question in questions] == [(action,) for action in ACTIONS]
    for question in questions:
        assert question.explain().decision == question.check()[0]


def test_traces_are_made_where_they_are_asked_for() -> None:
    """Explanations come with all results, with failures, or not at all."""
    content = suite(options={"now": "2024-06-01T00:00:00Z"}, test=expecting("EFFECT_DENY", "view"))
    assert details(results(content))["view"].trace is None
    trace = details(results(content, Config(traced="failures")))["view"].trace
    assert trace is not None
    assert "rule-001" in trace.text
    passing = suite(test=expecting("EFFECT_ALLOW", "view"))
    assert details(results(passing, Config(traced="failures")))["view"].trace is None
    assert details(results(passing, Config(traced="all")))["view"].trace is not None


def test_a_broken_suite_does_not_stop_the_others() -> None:
    """Its error is part of the results, and makes the whole run not ok."""
    files = {"a_test.yaml": b"name: 1\ntests: []\n", "b_test.yaml": yaml.safe_dump(suite(skip=True)).encode()}
    found = run(TABLE, load_suites(files))
    assert [one.summary.overall for one in found.suites] == [Result.ERRORED, Result.SKIPPED]
    assert not found.ok
    assert 'errors="1"' in junit(found)


def test_started_processes_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start anew give the same results in the same order as one."""
    monkeypatch.setattr(parallel, "fork_is_safe", lambda: False)
    compare_processes()


def test_forked_processes_find_the_same() -> None:
    """Forked processes do so, too; a process without threads, as this one may not be, is forked."""
    call = (
        "from engine.verify import parallel; from tests.engine.verify.test_run import compare_processes; "
        "assert parallel.fork_is_safe(); compare_processes()"
    )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def compare_processes() -> None:
    options = {"now": "2024-06-01T00:00:00Z"}
    files = {
        f"s{number}_test.yaml": yaml.safe_dump(suite(name=f"S{number}", options=options)).encode()
        for number in range(7)
    }
    recipe, seen = Recipe(SNAPSHOT, TABLE.settings), []
    alone = run_files(TABLE, files, Config(), recipe, processes=1)
    spread = run_files(
        TABLE, files, Config(), recipe, processes=2, progress=lambda done, total: seen.append((done, total))
    )
    assert spread.to_json() == alone.to_json()
    assert seen == [(number, 7) for number in range(1, 8)]


def test_no_fork_with_threads() -> None:
    """A process with threads is not forked: a lock that one of them holds would stay locked."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not parallel.fork_is_safe()
    finally:
        done.set()
        thread.join()
