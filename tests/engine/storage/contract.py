"""What every store has to do, whatever it is made of; a driver's test file is its fixtures and one class.

:class:`StoreContract` is for all stores, those too that hold policies by key and not by path. A path in it
is how a test calls a policy: the same path always holds the same policy (kind, name, version and scope), and
what a store makes of it, the driver's :class:`Changer` knows. :class:`FilesContract` is the same for stores
of files by path, and more. The other classes are for what only some stores can: a driver's test class has all
of them as bases that it has to meet. Fixtures: ``changer`` (the place, empty at first), ``store`` (of it).
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import pytest
import yaml

from engine import CheckInput, Effect, Engine, Principal, Resource, StoreError
from engine.storage import Watchable
from engine.storage.polling import Looking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.storage import Store

AnyStore = TypeVar("AnyStore", bound="Store")

PATIENCE = 20.0
"""Seconds that something which has to happen is waited for: the machine may be busy."""

FEW_CALLS = 6
"""How often a store may call for one burst of changes."""

THOUSANDS = 3000


class Changer(Protocol):
    """Changes what a store holds, from outside of it, as its users do."""

    def put(self, path: str, content: bytes) -> None:
        """Add or replace a policy."""

    def remove(self, path: str) -> None:
        """Take a policy away."""

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Add or replace many policies in such a way that nobody need see one without the others."""

    def open(self) -> Store:
        """Make one more store of the same place; it may wait for the place to come back, a second or two."""

    def go_away(self) -> None:
        """Let the place be unreachable."""

    def come_back(self) -> None:
        """Let it be reachable again, as it was."""


class Disabling(Changer, Protocol):
    """A changer of a store in which policies are disabled without being changed."""

    def disable(self, path: str) -> None:
        """Let a policy be as if it were not there."""

    def enable(self, path: str) -> None:
        """Let it be there again."""


def policy(kind: str = "doc", action: str = "read", *, disabled: bool = False, **more: Any) -> bytes:
    """Write a policy with one rule: a user may do *action* to a *kind*. *more* stands beside the rule."""
    rule = {"actions": [action], "effect": "EFFECT_ALLOW", "roles": ["user"]}
    body = {"resource": kind, "version": "default", "rules": [rule]}
    top = {"apiVersion": "api.cerbos.dev/v1", "disabled": disabled}
    document = {**top, "resourcePolicy": {**body, **more}}
    return yaml.safe_dump(document, sort_keys=False).encode()


POLICY = policy()

INCOMPLETE = policy(importDerivedRoles=["nowhere"])
"""A policy that can be read and stored, and does not compile."""


def actions(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return what policies are about: kind of resource to the action of its rule."""
    found = (yaml.load(content, yaml.CSafeLoader)["resourcePolicy"] for content in files.values())
    return {each["resource"]: each["rules"][0]["actions"][0] for each in found}


def allows(engine: Engine, action: str = "read", kind: str = "doc") -> bool:
    """Tell whether a user may do *action* to a *kind*."""
    asked = CheckInput(Principal("ann", ("user",)), Resource(kind, "1"), (action,))
    return engine.check(asked).actions[action].effect is Effect.ALLOW


def eventually(holds: Callable[[], object]) -> None:
    """Wait until *holds*."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE} s"
        time.sleep(0.02)


class StoreContract:
    """What all stores have to do."""

    has_revision: ClassVar[bool] = False
    """Whether the store has a name for each of its states."""

    unreachable: ClassVar[str] = ""
    """What the message about a place that cannot be reached has to say: a regular expression."""

    # -- reading -------------------------------------------------------------------------------------------

    def test_it_begins_empty(self, store: Store) -> None:
        """A store without policies is a state like any other."""
        assert dict(store.read().files) == {}

    def test_policies_are_read(self, store: Store, changer: Changer) -> None:
        """What was put there is there."""
        changer.put("a.yaml", policy("a", "read"))
        changer.put("deep/er/b.json", policy("b", "write"))
        assert actions(store.read().files) == {"a": "read", "b": "write"}

    def test_changes_are_read(self, store: Store, changer: Changer) -> None:
        """Another reading sees what has changed and what has gone, even if size and time look the same."""
        changer.put("a.yaml", policy("a", "read"))
        changer.put("b.yaml", policy("b", "read"))
        assert actions(store.read().files) == {"a": "read", "b": "read"}
        changer.put("a.yaml", policy("a", "edit"))
        changer.remove("b.yaml")
        assert actions(store.read().files) == {"a": "edit"}

    def test_unchanged_policies_keep_their_object(self, store: Store, changer: Changer) -> None:
        """The same content is the same object, so that nobody has to compare."""
        changer.put("a.yaml", policy("a"))
        ((path, before),) = store.read().files.items()
        changer.put("b.yaml", policy("b"))
        after = store.read().files
        assert len(after) == 2
        assert after[path] is before

    def test_the_order_is_stable(self, store: Store, changer: Changer) -> None:
        """Policies come in the order of their paths or keys, in whatever order they were put there."""
        for kind in ("m", "a", "z", "b"):
            changer.put(f"{kind}.yaml", policy(kind))
        first = list(store.read().files)
        assert first == sorted(first)
        changer.put("z.yaml", policy("z", "edit"))
        changer.put("c.yaml", policy("c"))
        second = list(store.read().files)
        assert second == sorted(second)
        assert [path for path in second if path in first] == first

    def test_thousands_of_policies(self, store: Store, changer: Changer) -> None:
        """A large set is read whole, and one change in it is seen."""
        changer.together({f"{number}.yaml": policy(f"kind{number}") for number in range(THOUSANDS)})
        before = store.read()
        assert len(actions(before.files)) == THOUSANDS
        changer.put("7.yaml", policy("kind7", "edit"))
        after = store.read()
        assert len(after.files) == THOUSANDS
        changed = [path for path in after.files if after.files[path] is not before.files[path]]
        assert actions({path: after.files[path] for path in changed}) == {"kind7": "edit"}

    def test_revision(self, store: Store, changer: Changer) -> None:
        """A store that has names for its states tells them, a new one for a new state; another tells none."""
        changer.put("a.yaml", policy("a"))
        first = store.read().revision
        again = store.read().revision
        changer.put("a.yaml", policy("a", "edit"))
        second = store.read().revision
        assert again == first
        if self.has_revision:
            assert first
            assert second
            assert second != first
        else:
            assert first == second == ""

    # -- in an engine --------------------------------------------------------------------------------------

    def test_changes_reach_answers(self, store: Store, changer: Changer) -> None:
        """An engine decides by what the store holds: what is there, what has changed, what has gone."""
        changer.put("doc.yaml", policy("doc", "read"))
        changer.put("other.yaml", policy("other"))
        with Engine.from_store(store) as engine:
            assert allows(engine)
            assert bool(engine.status.revision) is self.has_revision
            changer.put("doc.yaml", policy("doc", "edit"))
            assert engine.reload().ok
            assert (allows(engine, "read"), allows(engine, "edit")) == (False, True)
            changer.remove("doc.yaml")
            assert engine.reload().ok
            assert (allows(engine, "edit"), allows(engine, kind="other")) == (False, True)

    def test_a_policy_can_be_disabled(self, store: Store, changer: Changer) -> None:
        """A policy that says that it is disabled is none; it is one again when it says so no more."""
        changer.put("doc.yaml", policy())
        with Engine.from_store(store) as engine:
            changer.put("doc.yaml", policy(disabled=True))
            assert engine.reload().ok
            assert not allows(engine)
            assert engine.status.policies == 0
            changer.put("doc.yaml", policy())
            assert engine.reload().ok
            assert allows(engine)

    def test_a_broken_change_changes_nothing(self, store: Store, changer: Changer) -> None:
        """What does not compile is not in force, nor what changed along with it; what mends it is."""
        changer.together({"doc.yaml": policy(), "other.yaml": policy("other")})
        with Engine.from_store(store) as engine:
            revision = engine.status.revision
            changer.together({"doc.yaml": INCOMPLETE, "other.yaml": policy("other", "edit")})
            told = engine.reload()
            assert not told.ok
            assert "nowhere" in str(told.faults[0])
            assert told.revision == revision, "what is in force is the state of before"
            assert allows(engine)
            assert allows(engine, "read", "other")
            changer.put("doc.yaml", policy("doc", "mended"))
            assert engine.reload().ok
            assert allows(engine, "mended")
            assert allows(engine, "edit", "other")

    # -- out of reach --------------------------------------------------------------------------------------

    def test_unreachable_at_start(self, changer: Changer) -> None:
        """A place that cannot be reached is an error that names it, and no empty set of policies."""
        changer.go_away()
        with pytest.raises(StoreError, match=self.unreachable), closed(changer.open()) as store:
            store.read()

    def test_unreachable_later(self, store: Store, changer: Changer) -> None:
        """When the place goes away, answers stay and the status says why; when it is back, so are changes."""
        changer.put("doc.yaml", policy())
        with Engine.from_store(store) as engine:
            revision = engine.status.revision
            changer.go_away()
            told = engine.reload()
            assert not told.ok
            assert told.revision == revision
            assert allows(engine)
            changer.come_back()
            changer.put("doc.yaml", policy("doc", "edit"))
            assert engine.reload().ok
            assert allows(engine, "edit")

    # -- while others act ----------------------------------------------------------------------------------

    def test_each_state_is_a_whole_one(self, store: Store, changer: Changer) -> None:
        """Whoever reads while changes are made gets all of a change or nothing of it."""
        kinds = [f"kind{number}" for number in range(8)]

        def change(action: str) -> None:
            changer.together({f"{kind}.yaml": policy(kind, action) for kind in kinds})

        change("state0")
        with reading(store) as read:
            for number in range(1, 12):
                change(f"state{number}")
                seen = len(read)
                eventually(lambda seen=seen: len(read) > seen)  # type: ignore[misc]  # bound to this round
            eventually(lambda: set(read[-1].values()) == {"state11"})
        mixed = [state for state in read if set(state) != set(kinds) or len(set(state.values())) != 1]
        assert mixed == []

    def test_closing_ends_readers(self, store: Store, changer: Changer) -> None:
        """A store can be closed while it is read: the reader gets a state or an error, and nobody hangs."""
        changer.together({f"{number}.yaml": policy(f"kind{number}") for number in range(200)})
        ended = threading.Event()
        began = threading.Event()
        failed: list[BaseException] = []

        def read_on() -> None:
            try:
                while not ended.is_set():
                    store.read()
                    began.set()
            except StoreError:
                pass  # closed
            except BaseException as error:  # whatever it is, it is what the test looks for
                failed.append(error)

        readers = [threading.Thread(target=read_on, daemon=True) for _ in range(3)]
        for reader in readers:
            reader.start()
        assert began.wait(PATIENCE)
        store.close()
        ended.set()
        for reader in readers:
            reader.join(PATIENCE)
        assert not any(reader.is_alive() for reader in readers)
        assert failed == []
        store.close()  # once more does no harm


class FilesContract(StoreContract):
    """What stores have to do that hold files by path."""

    def test_files_are_as_they_are(self, store: Store, changer: Changer) -> None:
        """Contents come byte by byte, by path."""
        changer.put("a.yaml", POLICY)
        changer.put("deep/er/b.json", b"{}")
        changer.put("grüße.yaml", b"\xff\x00 no text")
        assert dict(store.read().files) == {
            "a.yaml": POLICY,
            "deep/er/b.json": b"{}",
            "grüße.yaml": b"\xff\x00 no text",
        }

    def test_only_policies_count(self, store: Store, changer: Changer) -> None:
        """Test suites, hidden files, test data and files of other kinds are left out, schemas kept apart."""
        for path in (
            "a_test.yaml",
            "a_test.yml",
            "a_test.json",
            ".hidden.yaml",
            ".hidden/a.yaml",
            "testdata/a.yaml",
            "deep/testdata/a.yaml",
            "notes.txt",
            "yaml",
        ):
            changer.put(path, b"x")
        changer.put("UPPER.YAML", POLICY)
        changer.put("bar_schemas/a.yml", POLICY)
        changer.put("_schemas/person.json", b"{}")
        snapshot = store.read()
        assert sorted(snapshot.files) == ["UPPER.YAML", "bar_schemas/a.yml"]
        assert dict(snapshot.schemas) == {"_schemas/person.json": b"{}"}

    def test_schemas_stand_under_the_root(self, store: Store, changer: Changer) -> None:
        """A `_schemas` folder elsewhere is a fault."""
        changer.put("deep/_schemas/person.json", b"{}")
        (fault,) = store.read().faults
        assert (
            str(fault) == "deep/_schemas: _schemas directory must be under the root of the storage directory"
        )

    def test_a_file_that_is_no_policy_changes_nothing(self, store: Store, changer: Changer) -> None:
        """Text that cannot be read as a policy is a fault with its place, and not in force."""
        changer.put("doc.yaml", POLICY)
        with Engine.from_store(store) as engine:
            changer.put("new.yaml", b"resourcePolicy: [")
            told = engine.reload()
            assert [fault.file for fault in told.faults] == ["new.yaml"]
            assert allows(engine)
            changer.remove("new.yaml")
            assert engine.reload().ok


class LookingContract:
    """What stores have to do that look for changes at an interval."""

    def test_looks_are_counted(self, store: Store, changer: Changer) -> None:
        """A store that looks for changes by itself counts its looks, and knows the last good one."""
        assert isinstance(store, Looking)
        changer.put("a.yaml", POLICY)
        store.read()
        good = replace(store.looks)
        assert (good.made > 0, good.failed) == (True, 0)
        changer.go_away()
        with pytest.raises(StoreError):
            store.read()
        bad = replace(store.looks)
        assert bad.failed > 0
        assert bad.made > good.made
        assert bad.last_success == good.last_success > 0
        changer.come_back()
        store.read()
        assert store.looks.failed == bad.failed
        assert store.looks.last_success > good.last_success


class WatchedContract:
    """What stores have to do that notice changes by themselves."""

    def test_changes_are_noticed(self, store: Store, changer: Changer) -> None:
        """It calls after a change, only a few times for a burst of them, and not when it is closed."""
        assert isinstance(store, Watchable)
        store.read()
        calls = Calls()
        store.watch(calls)
        calls.wait_until_quiet()
        before = calls.count
        changer.together({f"{number}.yaml": policy(f"kind{number}") for number in range(200)})
        calls.wait_for_more_than(before)
        calls.wait_until_quiet()
        assert calls.count - before <= FEW_CALLS
        store.close()
        after = calls.count
        changer.put("late.yaml", policy("late"))
        time.sleep(0.5)
        assert calls.count == after

    def test_it_recovers_by_itself(self, store: Store, changer: Changer) -> None:
        """It tells that the place cannot be reached, and finds what is new when it can again."""
        changer.put("doc.yaml", policy())
        with Engine.from_store(store, watch=True) as engine:
            changer.go_away()
            eventually(lambda: not engine.status.ok)
            assert allows(engine)
            changer.come_back()
            eventually(lambda: engine.status.ok)
            changer.put("doc.yaml", policy("doc", "edit"))
            eventually(lambda: allows(engine, "edit"))


class RetryingContract:
    """What stores have to do that are reached over a network."""

    def test_it_tries_again_at_start(self, changer: Changer) -> None:
        """A place that comes back soon is waited for."""
        changer.put("doc.yaml", policy())
        changer.go_away()
        coming_back = threading.Timer(0.3, changer.come_back)
        coming_back.start()
        try:
            with closed(changer.open()) as store:
                assert actions(store.read().files) == {"doc": "read"}
        finally:
            coming_back.join()


class DisablingContract:
    """What stores have to do that keep a switch of their own beside each policy."""

    def test_the_store_can_disable_a_policy(self, store: Store, changer: Disabling) -> None:
        """Where the store itself keeps the switch, it counts too."""
        changer.put("doc.yaml", policy())
        with Engine.from_store(store) as engine:
            changer.disable("doc.yaml")
            assert engine.reload().ok
            assert not allows(engine)
            changer.enable("doc.yaml")
            assert engine.reload().ok
            assert allows(engine)


class Calls:
    """Counts calls, from any thread."""

    def __init__(self) -> None:
        self.count = 0
        self._condition = threading.Condition()

    def __call__(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait_for_more_than(self, count: int) -> None:
        """Wait until there are more calls than *count*."""
        with self._condition:
            assert self._condition.wait_for(lambda: self.count > count, timeout=PATIENCE)

    def wait_until_quiet(self, seconds: float = 0.7) -> None:
        """Wait until there was no call for some *seconds*."""
        end = time.monotonic() + PATIENCE
        with self._condition:
            while self._condition.wait_for(lambda seen=self.count: self.count > seen, timeout=seconds):  # type: ignore[misc]  # bound to this round
                assert time.monotonic() < end, "calls without end"


@contextmanager
def closed(store: AnyStore) -> Iterator[AnyStore]:
    """Close *store* at the end."""
    try:
        yield store
    finally:
        store.close()


@contextmanager
def reading(store: Store, threads: int = 3) -> Iterator[list[dict[str, str]]]:
    """Read all the time, in several threads; the states come into the list as they are read."""
    found: list[dict[str, str]] = []
    ended = threading.Event()
    failed: list[BaseException] = []

    def read_on() -> None:
        try:
            while not ended.is_set():
                found.append(actions(store.read().files))
        except BaseException as error:  # whatever it is, it fails the test
            failed.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(threads)]
    for reader in readers:
        reader.start()
    try:
        yield found
    finally:
        ended.set()
        for reader in readers:
            reader.join(PATIENCE)
    assert failed == []
