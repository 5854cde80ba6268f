"""What every store has to do, whatever it is made of; a driver's test file is a fixture and this class."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from engine.storage import Watchable

if TYPE_CHECKING:
    from engine.storage import Store

POLICY = b"apiVersion: api.cerbos.dev/v1\nresourcePolicy: {resource: doc, version: default}\n"


class Changer(Protocol):
    """Changes what a store holds, from outside of it."""

    def put(self, path: str, content: bytes) -> None:
        """Add or replace a file."""

    def remove(self, path: str) -> None:
        """Take a file away."""


class StoreContract:
    """Tests for a fixture ``store`` and a fixture ``changer`` of the same place, which begins empty."""

    def test_it_begins_empty(self, store: Store) -> None:
        """A store without policies is a state like any other."""
        assert dict(store.read().files) == {}

    def test_files_are_read(self, store: Store, changer: Changer) -> None:
        """Contents come as they are, by path."""
        changer.put("a.yaml", POLICY)
        changer.put("deep/er/b.json", b"{}")
        assert dict(store.read().files) == {"a.yaml": POLICY, "deep/er/b.json": b"{}"}

    def test_changes_are_read(self, store: Store, changer: Changer) -> None:
        """Another reading sees what has changed, even if size and time look the same."""
        changer.put("a.yaml", POLICY)
        changer.put("b.yaml", POLICY)
        assert store.read().files["a.yaml"] == POLICY
        changed = POLICY.replace(b"doc", b"cod")
        changer.put("a.yaml", changed)
        changer.remove("b.yaml")
        assert dict(store.read().files) == {"a.yaml": changed}

    def test_unchanged_files_keep_their_object(self, store: Store, changer: Changer) -> None:
        """The same content is the same object, so that nobody has to compare."""
        changer.put("a.yaml", POLICY)
        before = store.read().files["a.yaml"]
        changer.put("b.yaml", POLICY)
        assert store.read().files["a.yaml"] is before

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

    def test_changes_are_noticed(self, store: Store, changer: Changer) -> None:
        """A store that can be watched calls after a change, and only a few times for a burst of them."""
        if not isinstance(store, Watchable):
            return
        calls = Calls()
        store.watch(calls)
        time.sleep(0.5)
        before = calls.count
        for number in range(200):
            changer.put(f"{number}.yaml", POLICY)
        calls.wait_for_more_than(before)
        time.sleep(0.7)
        assert 1 <= calls.count - before <= 6
        store.close()
        time.sleep(0.2)
        after = calls.count
        changer.put("late.yaml", POLICY)
        time.sleep(0.5)
        assert calls.count == after


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
            assert self._condition.wait_for(lambda: self.count > count, timeout=10)
