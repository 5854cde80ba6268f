"""Loading with help: a cache, other processes; and what happens when these fail."""

from __future__ import annotations

import marshal
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from engine import CheckInput, Effect, Engine, PolicyError, Principal, Resource, Settings, Snapshot
from engine.artefacts import bench, crew, workshop
from engine.artefacts.bench import Bench
from engine.artefacts.cache import FEW
from engine.artefacts.crew import make_together
from engine.artefacts.edition import edition
from engine.cel import Environment
from engine.compile import _Waiting, environment_of
from engine.engine import Loader
from engine.load import load_policy
from engine.policy import expressions_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.rules import CompiledPolicy, RuleTable

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: kind{number}
  version: default
  variables: {{local: {{high: R.attr.amount > 1000.0 + {number}.0}}}}
  rules:
    - actions: [approve]
      effect: EFFECT_ALLOW
      roles: [manager]
      condition: {{match: {{all: {{of: [{{expr: '!V.high'}}, {{expr: R.attr.region.matches('^EM.A$')}}]}}}}}}
      output: {{when: {{ruleActivated: '"approved " + R.id', conditionNotMet: 'string({number}u)'}}}}
"""
COUNT = 60


@pytest.fixture
def files() -> dict[str, bytes]:
    return {f"kind{number}.yaml": POLICY.format(number=number).encode() for number in range(COUNT)}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is read in this process, and not taken from elsewhere."""
    found: list[str] = []

    def noting(content: str | bytes, file: str) -> object:
        found.append(file)
        return load_policy(content, file)

    monkeypatch.setattr(bench, "load_policy", noting)
    return found


@pytest.fixture
def help_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes help with few files too."""
    monkeypatch.setattr(workshop, "VERY_MANY", 1)
    monkeypatch.setattr(crew, "CHUNK", 5)


def decides(loader: Loader, files: dict[str, bytes]) -> None:
    """Make sure that the table of *files* decides as they say."""
    engine = Engine(loader.table(Snapshot(files)))
    assert len(engine.table.policies) == len(files)
    for amount, region, effect in (
        (900.0, "EMEA", Effect.ALLOW),
        (2000.0, "EMEA", Effect.DENY),
        (1.0, "A", Effect.DENY),
    ):
        resource = Resource("kind7", "4", {"amount": amount, "region": region})
        decision = engine.check(CheckInput(Principal("ann", ("manager",)), resource, ("approve",)))
        assert decision.actions["approve"].effect is effect
        assert [output.value for output in decision.outputs] == [
            "approved 4" if effect is Effect.ALLOW else "7"
        ]


def test_what_is_kept_is_not_made_again(tmp_path: Path, files: dict[str, bytes], compiled: list[str]) -> None:
    """A second loader takes everything from the cache; after a change, all but what has changed."""
    cache = tmp_path / "cache"
    decides(Loader(Settings(), cache=cache, processes=1), files)
    assert len(compiled) == COUNT
    compiled.clear()
    decides(Loader(Settings(), cache=cache, processes=1), files)
    assert compiled == []
    files["kind3.yaml"] = POLICY.format(number=103).encode()
    decides(Loader(Settings(), cache=cache, processes=1), files)
    assert compiled == ["kind3.yaml"]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the expressions that are compiled in this process, and not taken from elsewhere."""
    found: list[str] = []
    compile_ = Environment._compiled

    def noting(self: Environment, text: str) -> object:
        found.append(text)
        return compile_(self, text)

    monkeypatch.setattr(Environment, "_compiled", noting)
    return found


def waiting(table: RuleTable) -> int:
    return sum(
        isinstance(policy, _Waiting) and policy._unit is not None for policy in table.policies.values()
    )


def test_what_is_sound_waits_until_it_is_asked(
    tmp_path: Path, files: dict[str, bytes], texts: list[str]
) -> None:
    """A second start compiles a policy when it is asked about its kind, with what was kept."""
    cache = tmp_path / "cache"
    assert waiting(Loader(Settings(), cache=cache).table(Snapshot(files))) == 0
    texts.clear()
    engine = Engine(Loader(Settings(), cache=cache).table(Snapshot(files)))
    assert waiting(engine.table) == COUNT
    resource = Resource("kind7", "4", {"amount": 1.0, "region": "EMEA"})
    for _ in range(2):
        decision = engine.check(CheckInput(Principal("ann", ("manager",)), resource, ("approve",)))
        assert decision.actions["approve"].effect is Effect.ALLOW
        assert waiting(engine.table) == COUNT - 1
    assert texts == []


def test_what_waits_is_compiled_once_for_all_who_ask(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Threads that ask at the same time get the same rules."""
    cache = tmp_path / "cache"
    Loader(Settings(), cache=cache).table(Snapshot(files))
    for policy in Loader(Settings(), cache=cache).table(Snapshot(files)).policies.values():
        together = threading.Barrier(4)

        def ask(policy: CompiledPolicy = policy, together: threading.Barrier = together) -> tuple[int, int]:
            together.wait()
            return id(policy.rules), id(policy.derived_roles)

        with ThreadPoolExecutor(4) as pool:
            assert len({asked.result() for asked in [pool.submit(ask) for _ in range(4)]}) == 1


def test_what_waits_is_compiled_when_a_passing_failure_has_passed(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    """An attempt that was interrupted leaves nothing behind that the next one would stumble over."""
    cache = tmp_path / "cache"
    Loader(Settings(), cache=cache).table(Snapshot(files))
    policy = next(iter(Loader(Settings(), cache=cache).table(Snapshot(files)).policies.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.compile.selector", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            policy.rules  # noqa: B018  # asking is what counts
    assert len(policy.rules) == 1


def test_nothing_is_decided_by_what_was_not_sound_after_all(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A judgement that is wrong, however that came about, ends in an exception and not in a decision."""
    cache = tmp_path / "cache"
    files["kind7.yaml"] = files["kind7.yaml"].replace(b"!V.high", b"!V.height")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bench, "is_sound", lambda *_: True)
        engine = Engine(Loader(Settings(), cache=cache).table(Snapshot(files)))
    with pytest.raises(PolicyError, match="height"):
        engine.check(CheckInput(Principal("ann", ("manager",)), Resource("kind7", "4"), ("approve",)))


def test_packs_do_not_pile_up(
    tmp_path: Path, files: dict[str, bytes], compiled: list[str], texts: list[str]
) -> None:
    """After many starts, each with something new, there are few files, and all is still known."""
    cache = tmp_path / "cache"
    for number in range(20):
        files["kind3.yaml"] = POLICY.format(number=100 + number).encode()
        Loader(Settings(), cache=cache, processes=1).table(Snapshot(files))
    assert len(list(cache.glob("*.pack"))) <= FEW + 1
    compiled.clear()
    texts.clear()
    table = Loader(Settings(), cache=cache, processes=1).table(Snapshot(files))
    assert all(policy.rules for policy in table.policies.values())
    assert compiled == texts == []


def test_a_cache_that_cannot_be_used_is_not_needed(
    tmp_path: Path, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that others may write to is left alone, with a word in the log."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with caplog.at_level("INFO"):
        decides(Loader(Settings(), cache=cache, processes=1), files)
    assert "can be used by other users" in caplog.text
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("nonsense", [b"(", marshal.dumps((b"(", None)), marshal.dumps(([], 1))])
def test_an_expression_that_makes_no_sense_is_made_again(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    """What is sound as a file of the cache and no expression is ignored."""

    def put(self: Bench, text: str, *_: object) -> None:
        self.made[self._key_of_program(text)] = nonsense

    with monkeypatch.context() as patched:
        patched.setattr(Bench, "put", put)
        Loader(Settings(), cache=tmp_path / "cache", processes=1).table(Snapshot(files))
    decides(Loader(Settings(), cache=tmp_path / "cache", processes=1), files)


def test_a_policy_that_makes_no_sense_is_made_again(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sound as a file of the cache and no policy is ignored."""
    with monkeypatch.context() as patched:
        patched.setattr(bench, "policy_form", lambda _: b"[")
        Loader(Settings(), cache=tmp_path / "cache", processes=1).table(Snapshot(files))
    decides(Loader(Settings(), cache=tmp_path / "cache", processes=1), files)


def test_mistakes_are_said_again(tmp_path: Path, files: dict[str, bytes]) -> None:
    """What is wrong is found at every start, though all else is kept; nothing of it is kept."""
    files["wrong.yaml"] = POLICY.format(number=7_000).replace("R.id", "R.id +").encode()
    files["worse.yaml"] = b"a: [b"
    told = []
    for _ in range(3):
        with pytest.raises(PolicyError) as error:
            Loader(Settings(), cache=tmp_path / "cache", processes=1).table(Snapshot(files))
        told.append(error.value.faults)
    assert [fault.file for fault in told[0]] == ["worse.yaml", "wrong.yaml"]
    assert told[0] == told[1] == told[2]


@pytest.mark.usefixtures("help_for_few")
def test_processes_work_together(files: dict[str, bytes]) -> None:
    """What other processes make decides like what is made here, in a program that has threads."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        decides(Loader(Settings(), processes=3), files)
        decides(Loader(Settings(runtime_action=True, schema_enforcement="warn"), processes=2), files)
    finally:
        stop.set()
        thread.join()


def test_a_process_delivers_everything(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies and expressions come back from another process, and need not be made here."""
    known = edition(Settings())
    assert known is not None
    taken = Bench(known)
    monkeypatch.setattr(Bench, "make", lambda *_: [])  # here, nothing is made
    monkeypatch.setattr(crew, "CHUNK", 20)
    waited = crew._Chunks.take

    def for_helpers_only(chunks: crew._Chunks) -> dict[str, bytes] | None:
        return None if threading.current_thread() is threading.main_thread() else waited(chunks)

    monkeypatch.setattr(crew._Chunks, "take", for_helpers_only)
    make_together(taken, Settings(), environment_of(Settings()), files, 2)
    assert all(taken.knows(content) for content in files.values())
    for file, content in files.items():
        policy = taken.policy(content, file)
        assert policy is not None
        assert policy.file == file
        texts = list(expressions_of(policy))
        assert len(texts) == 5
        assert all(taken.get(text) is not None for text in texts)


def _dead(tmp_path: Path) -> str:
    return os.fspath(tmp_path / "no-python")


def _mute(tmp_path: Path) -> str:
    script = tmp_path / "mute"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o700)
    return os.fspath(script)


def _babbling(tmp_path: Path) -> str:
    script = tmp_path / "babbling"
    script.write_text("#!/bin/sh\nexec head -c 100000 /dev/zero\n")
    script.chmod(0o700)
    return os.fspath(script)


def _hanging(tmp_path: Path) -> str:
    script = tmp_path / "hanging"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o700)
    return os.fspath(script)


@pytest.mark.usefixtures("help_for_few")
@pytest.mark.parametrize("python", [_dead, _mute, _babbling, _hanging, lambda _: ""])
def test_processes_that_fail_are_not_needed(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: object
) -> None:
    """Without an interpreter to start, or with one that ends, babbles or hangs, all is done here."""
    assert callable(python)
    monkeypatch.setattr(crew, "PATIENCE", 1.0)
    monkeypatch.setattr(sys, "executable", python(tmp_path))
    decides(Loader(Settings(), processes=2), files)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread of a crew outlives a load."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "policy-compiler"]
