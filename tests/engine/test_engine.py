"""The engine: what is in force, and how it changes."""

from __future__ import annotations

import gc
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from engine import (
    AuxData,
    CheckInput,
    Effect,
    Engine,
    Fault,
    PolicyError,
    Principal,
    Reload,
    Resource,
    Settings,
    Snapshot,
    StoreError,
)
from engine.cel import Timestamp
from engine.engine import Loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: {kind}
  version: default
  rules:
    - actions: [read]
      effect: EFFECT_{effect}
      roles: [user]
      output: {{when: {{ruleActivated: '"{word}"'}}}}
"""


class Store:
    """A store in memory that a test changes."""

    def __init__(self, **files: str) -> None:
        self.files = files
        self.error: StoreError | None = None
        self.closed = False

    def read(self) -> Snapshot:
        """Return the files, or raise."""
        if self.error:
            raise self.error
        return Snapshot({f"{name}.yaml": text.encode() for name, text in self.files.items()})

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


def policy(effect: str = "ALLOW", kind: str = "doc", word: str = "x") -> str:
    return POLICY.format(kind=kind, effect=effect, word=word)


def ask(engine: Engine, kind: str = "doc") -> Effect:
    asked = CheckInput(Principal("ann", ("user",)), Resource(kind, "1"), ("read",))
    return engine.check(asked).actions["read"].effect


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_change_takes_effect() -> None:
    """After a reload the new policies decide, and listeners hear of it."""
    heard: list[Reload] = []
    store = Store(a=policy())
    engine = Engine.from_store(store, on_reload=heard.append)
    assert ask(engine) is Effect.ALLOW
    store.files["a"] = policy("DENY")
    result = engine.reload()
    assert result.ok
    assert result.changed
    assert engine.status is result
    assert heard == [result]
    assert ask(engine) is Effect.DENY


def test_a_broken_change_changes_nothing_and_is_reported() -> None:
    """The old table stays, the faults are kept and told once; when they are mended, all is well."""
    heard: list[Reload] = []
    store = Store(a=policy())
    engine = Engine.from_store(store, on_reload=heard.append)
    table = engine.table
    store.files["a"] = policy("DENY") + "nonsense"
    assert not engine.reload().ok
    assert not engine.reload().ok
    assert engine.table is table
    assert ask(engine) is Effect.ALLOW
    assert [fault.file for fault in engine.status.faults] == ["a.yaml"]
    assert len(heard) == 1
    store.files["a"] = policy("DENY")
    assert engine.reload().ok
    assert [result.ok for result in heard] == [False, True]
    assert ask(engine) is Effect.DENY


def test_a_store_that_is_gone_changes_nothing() -> None:
    """The last good policies stay in force, and the status says why."""
    store = Store(a=policy())
    engine = Engine.from_store(store)
    store.error = StoreError("the disk is on fire")
    result = engine.reload()
    assert result.faults == (Fault("", 0, 0, "the disk is on fire"),)
    assert str(result.faults[0]) == "the disk is on fire"
    assert ask(engine) is Effect.ALLOW
    store.error = None
    assert engine.reload().ok


def test_a_bug_changes_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in a reload, it does not end the thread that asked, and the old table stays."""
    store = Store(a=policy())
    engine = Engine.from_store(store)
    monkeypatch.setattr(Loader, "table", lambda *_: 1 / 0)
    result = engine.reload()
    assert not result.ok
    assert "ZeroDivisionError" in result.faults[0].message
    assert ask(engine) is Effect.ALLOW
    assert "reloading policies failed" in caplog.text


def test_nothing_new_is_not_told() -> None:
    """A reload that finds the same state keeps the table and calls nobody."""
    heard: list[Reload] = []
    engine = Engine.from_store(Store(a=policy()), on_reload=heard.append)
    table = engine.table
    assert not engine.reload().changed
    assert engine.table is table
    assert heard == []


def test_faults_at_the_start_are_raised() -> None:
    """An engine is not made from policies that cannot be used."""
    with pytest.raises(PolicyError, match=r"a\.yaml:10:1"):
        Engine.from_store(Store(a=policy() + "nonsense"))


def test_replace_puts_another_table_in_force() -> None:
    """A table can be swapped in directly."""
    engine = Engine.from_store(Store(a=policy()))
    engine.replace(Loader(Settings()).table(Store(a=policy("DENY")).read()))
    assert ask(engine) is Effect.DENY
    assert engine.status.ok
    assert engine.status.policies == 1


def test_reloads_are_counted() -> None:
    """What became of attempts is counted, and whether it was the store that could not be read."""
    store = Store(doc=POLICY.format(kind="doc", effect="ALLOW", word="a"))
    engine = Engine.from_store(store)
    first = engine.reloads.last_read
    assert (engine.reloads.ok, engine.reloads.failed, engine.reloads.unreadable) == (0, 0, 0)
    assert first > 0
    engine.reload()
    store.error = StoreError("gone")
    engine.reload()
    last_read = engine.reloads.last_read
    store.error = None
    store.files["doc"] = "resourcePolicy: 1"
    engine.reload()
    assert (engine.reloads.ok, engine.reloads.failed, engine.reloads.unreadable) == (1, 2, 1)
    assert engine.reloads.last_read > last_read > first


def test_an_engine_without_a_store_cannot_reload() -> None:
    """Reloading tells that there is nothing to reload from."""
    engine = Engine(Loader(Settings()).table(Store(a=policy()).read()))
    assert "no store" in engine.reload().faults[0].message
    assert ask(engine) is Effect.ALLOW


def test_closing_closes_the_store() -> None:
    """The store is let go, and checks are still answered."""
    store = Store(a=policy())
    engine = Engine.from_store(store)
    with engine:
        states = [store.closed]
    assert [*states, store.closed] == [False, True]
    assert ask(engine) is Effect.ALLOW


def test_check_many_has_one_time_and_one_table() -> None:
    """Questions asked together see the same `now()`."""
    text = policy().replace("'\"x\"'", "now()")
    engine = Engine.from_store(Store(a=text))
    asked = CheckInput(Principal("ann", ("user",)), Resource("doc", "1"), ("read",))
    moments = {found.outputs[0].value for found in engine.check_many([asked] * 50)}
    assert len(moments) == 1
    fixed = engine.check(asked, now=Timestamp.parse("2026-01-02T03:04:05Z"))
    assert fixed.outputs[0].value == "2026-01-02T03:04:05Z"


def test_plain_data_is_accepted() -> None:
    """Attributes and claims that are no dicts are converted, numbers included, and roles in a list too."""
    expression = "R.attr.n / 2.0 == 1.5 && request.auxData.jwt.a.b[0] == 1"
    condition = f"condition: {{match: {{expr: '{expression}'}}}}"
    text = policy().replace("roles: [user]", f"roles: [user]\n      {condition}")
    engine = Engine.from_store(Store(a=text))
    attr: Any = MappingProxyType({"n": 3})
    claims: Any = MappingProxyType({"a": {"b": (1,)}})
    roles: Any = ["user"]
    asked = CheckInput(Principal("ann", roles), Resource("doc", "1", attr), ("read",), AuxData(claims))
    assert engine.check(asked).actions["read"].effect is Effect.ALLOW


def wait_until(engine: Engine, kind: str, effect: Effect) -> None:
    wait_for(lambda: ask(engine, kind) is effect)


# -- while the directory changes ---------------------------------------------------------------------------


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)


def test_answers_belong_to_the_old_or_the_new_policies(tmp_path: Path) -> None:
    """While files are replaced, all answers together are those of the old files or those of the new ones."""
    states = [
        {f"p{n}": policy(effect, f"k{n}", word) for n in range(5)}
        for effect, word in (("ALLOW", "old"), ("DENY", "new"))
    ]
    folder, beside = tmp_path / "policies", tmp_path / "beside"
    folder.mkdir()
    beside.mkdir()
    write(folder, states[0])
    asked = [CheckInput(Principal("ann", ("user",)), Resource(f"k{n}", "1"), ("read",)) for n in range(5)]
    answers: set[tuple[Any, ...]] = set()
    done = threading.Event()

    def keep_asking(engine: Engine) -> None:
        while not done.wait(0.0005):  # else whoever writes the files gets no turn in between
            decisions = engine.check_many(asked)
            answers.add(
                tuple((d.actions["read"].effect, *(out.value for out in d.outputs)) for d in decisions)
            )

    with Engine.from_directory(folder, watch=True) as engine:
        thread = threading.Thread(target=keep_asking, args=(engine,))
        thread.start()
        try:
            for turn in range(1, 5):
                write(beside, states[turn % 2])
                for file in sorted(beside.iterdir()):  # at once: a store cannot know of what is still to come
                    file.replace(folder / file.name)
                expected = (Effect.ALLOW, Effect.DENY)[turn % 2]
                wait_until(engine, "k4", expected)
        finally:
            done.set()
            thread.join()
    old = tuple((Effect.ALLOW, "old") for _ in range(5))
    new = tuple((Effect.DENY, "new") for _ in range(5))
    assert answers == {old, new}


def test_a_broken_edit_while_watching(tmp_path: Path) -> None:
    """A watched directory that breaks is reported, and nothing else happens until it is mended."""
    write(tmp_path, {"a": policy()})
    heard: list[Reload] = []
    with Engine.from_directory(tmp_path, watch=True, on_reload=heard.append) as engine:
        time.sleep(0.3)
        write(tmp_path, {"a": policy("DENY")[:120]})
        started = time.monotonic()
        wait_for(lambda: not engine.status.ok)
        assert time.monotonic() - started < 5
        assert ask(engine) is Effect.ALLOW
        assert str(engine.status.faults[0]).startswith("a.yaml:")
        write(tmp_path, {"a": policy("DENY")})
        wait_for(lambda: engine.status.ok)
        assert ask(engine) is Effect.DENY
    assert [result.ok for result in heard] == [False, True]


def test_a_state_is_tried_out_and_not_put_in_force() -> None:
    """What is wrong with a state that may come is told, and what is in force stays so."""
    store = Store(doc=POLICY.format(kind="doc", effect="ALLOW", word="one"))
    with Engine.from_store(store) as engine:
        before = engine.snapshot
        better = {**before.files, "b.yaml": POLICY.format(kind="b", effect="ALLOW", word="x").encode()}
        assert engine.try_out(Snapshot(better)) == ()
        broken = {"doc.yaml": POLICY.format(kind="doc", effect="MAYBE", word="one").encode()}
        assert {fault.file for fault in engine.try_out(Snapshot(broken))} == {"doc.yaml"}
        assert engine.status.ok
        assert engine.snapshot is before
        assert list(engine.policies) == ["doc.yaml"]
        assert engine.policies["doc.yaml"].key == "resource.doc.vdefault"
        assert not engine.reload().faults
        assert set(engine.table.policies) == {"resource.doc.vdefault"}


@pytest.mark.parametrize("cached", [False, True])
def test_loading_leaves_no_garbage_in_cycles(tmp_path: Path, cached: bool) -> None:
    """However many policies there are, the collector finds nothing: so nobody has to call it for them."""
    policies, cache = tmp_path / "policies", tmp_path / "cache"
    policies.mkdir()
    write(policies, {f"p{number}": policy(kind=f"k{number}") for number in range(50)})
    Engine.from_directory(policies, cache=cache if cached else None).close()
    gc.collect()
    gc.disable()
    try:
        engine = Engine.from_directory(policies, cache=cache if cached else None)
        found = gc.collect()
    finally:
        gc.enable()
    assert len(engine.table.policies) == 50
    assert found < 50, "less than one object for each policy"
