"""Databases as places that the contract of all stores is tried on."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import yaml
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from engine import policy_messages
from engine.storage import IntegrityError, PolicyFilter, RefusedError, StoreError, open_store
from engine.storage.sql.tables import POLICY, module_id
from tests.engine.storage.contract import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.storage.sql.store import DatabaseStore

POLL_INTERVAL = 0.2
"""Seconds: tests do not wait for ten."""

RETRIES = {"maxAttempts": 12, "initialInterval": 0.1, "maxInterval": 0.5}


def message(content: bytes) -> bytes:
    """Turn a policy as YAML into a serialized message."""
    return policy_messages.encode(policy_messages.from_json(yaml.load(content, yaml.CSafeLoader)))


def key_of(content: bytes) -> str:
    """Return the key of a policy as YAML."""
    return policy_messages.coordinates(policy_messages.decode(message(content))).key


class Database:
    """Changes a database through a store of its own, as another replica or the Admin API does."""

    def __init__(
        self,
        driver: str,
        settings: Mapping[str, Any],
        *,
        stop: Callable[[], object],
        start: Callable[[], object],
    ) -> None:
        self.driver = driver
        self.settings = {**settings, "updatePollInterval": POLL_INTERVAL}
        self._stop, self._start = stop, start
        self._keys: dict[str, str] = {}
        self._writer: DatabaseStore | None = None
        self._away = threading.Lock()

    @property
    def writer(self) -> Any:
        """The store that makes the changes."""
        if self._writer is None:
            self._writer = self.open()
        return self._writer

    def put(self, path: str, content: bytes) -> None:
        """Put a policy."""
        self.together({path: content})

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Put policies in one transaction."""
        self._keys |= {path: key_of(content) for path, content in contents.items()}
        self.writer.put_policies([message(content) for content in contents.values()])

    def remove(self, path: str) -> None:
        """Delete a policy."""
        assert self.writer.delete_policies([self._keys[path]]) == 1

    def disable(self, path: str) -> None:
        """Disable a policy."""
        assert self.writer.disable_policies([self._keys[path]]) == 1

    def enable(self, path: str) -> None:
        """Enable a policy."""
        assert self.writer.enable_policies([self._keys[path]]) == 1

    def open(self) -> Any:
        """Open the database once more."""
        return open_store(self.driver, self.settings)

    def go_away(self) -> None:
        """Stop the server."""
        with self._away:
            self._stop()

    def come_back(self) -> None:
        """Start it again."""
        with self._away:
            self._start()

    def close(self) -> None:
        """Close the store that makes the changes."""
        if self._writer is not None:
            self._writer.close()


def rule_policy(kind: str, scope: str = "", **more: Any) -> bytes:
    """Write a policy that lets a user read a *kind*, as a message; *more* stands beside the rule."""
    rule = {"actions": ["read"], "effect": "EFFECT_ALLOW", "roles": ["user"]}
    body = {"resource": kind, "version": "default", "scope": scope, "rules": [rule], **more}
    return policy_messages.encode(
        policy_messages.from_json({"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": body})
    )


def derived_roles(name: str, **more: Any) -> bytes:
    """Write a set of one derived role, as a message."""
    body = {"name": name, "definitions": [{"name": "owner", "parentRoles": ["user"]}], **more}
    document = {"apiVersion": "api.cerbos.dev/v1", "derivedRoles": body}
    return policy_messages.encode(policy_messages.from_json(document))


def _failing() -> NoReturn:
    raise OperationalError("", {}, Exception("the connection broke in between"))


class DatabaseContract:
    """What stores in databases have to do beyond what all stores do; fixtures as in the contract of all."""

    def test_ids_are_policy_keys(self, store: Any, changer: Database) -> None:
        """A policy is called by its key, in whatever spelling its kind is written."""
        changer.writer.put_policies([rule_policy("leave-request"), rule_policy("leave-request", "acme.hr")])
        keys = ["resource.leave_request.vdefault", "resource.leave_request.vdefault/acme.hr"]
        assert list(store.read().files) == keys
        assert store.list_policies() == keys

    def test_what_is_put_can_be_got(self, store: Any) -> None:
        """Policies and schemas come back, disabled ones too, in the order in which they are asked for."""
        store.put_policies([rule_policy("a"), rule_policy("b")])
        store.put_schemas({"common/address.json": b'{ "type":  "object" }', "a.json": b"{}"})
        assert store.disable_policies(["resource.b.vdefault", "resource.nowhere.vdefault"]) == 1
        got = store.get_policies(["resource.b.vdefault", "resource.nowhere.vdefault", "resource.a.vdefault"])
        assert [(each.id, each.disabled) for each in got] == [
            ("resource.b.vdefault", True),
            ("resource.a.vdefault", False),
        ]
        said = [policy_messages.decode(each.definition) for each in got]
        assert [(each.resource_policy.resource, each.disabled) for each in said] == [
            ("b", True),
            ("a", False),
        ]
        assert store.list_schemas() == ["a.json", "common/address.json"]
        assert store.get_schemas(["common/address.json", "b.json"]) == {
            "common/address.json": b'{ "type":  "object" }'
        }
        assert list(store.read().schemas) == ["_schemas/a.json", "_schemas/common/address.json"]
        assert store.delete_schemas(["a.json", "b.json"]) == 1
        assert list(store.read().schemas) == ["_schemas/common/address.json"]

    def test_it_lists_what_is_asked_for(self, store: Any) -> None:
        """Lists are by name, scope and version (regular expressions), by ids, with disabled ones or not."""
        store.put_policies([rule_policy("doc"), rule_policy("doc", "acme"), derived_roles("roles")])
        store.put_policies([rule_policy("file", "acme")])
        store.disable_policies(["resource.file.vdefault/acme"])
        acme, file = "resource.doc.vdefault/acme", "resource.file.vdefault/acme"
        assert store.list_policies() == ["derived_roles.roles", "resource.doc.vdefault", acme]
        assert store.list_policies(PolicyFilter(scope="^acme$")) == [acme]
        assert store.list_policies(PolicyFilter(scope="^acme$", include_disabled=True)) == [acme, file]
        assert store.list_policies(PolicyFilter(name="^DOC")) == []
        assert store.list_policies(PolicyFilter(name="o", version="^$")) == ["derived_roles.roles"]
        assert store.list_policies(PolicyFilter(ids=(acme, file))) == [acme]

    def test_what_others_need_stays(self, store: Any) -> None:
        """A policy that stands above others or is imported by them goes only together with them."""
        variables = {"apiVersion": "api.cerbos.dev/v1", "exportVariables": {"name": "vars"}}
        store.put_policies(
            [
                rule_policy("doc", importDerivedRoles=["roles"]),
                rule_policy("doc", "acme"),
                derived_roles("roles", variables={"import": ["vars"]}),
                policy_messages.encode(policy_messages.from_json(variables)),
            ]
        )
        with pytest.raises(IntegrityError) as above:
            store.disable_policies(["resource.doc.vdefault"])
        assert above.value.descendants == {"resource.doc.vdefault": ["resource.doc.vdefault/acme"]}
        with pytest.raises(IntegrityError) as needed:
            store.delete_policies(["export_variables.vars"])
        assert needed.value.dependents == {
            "export_variables.vars": ["derived_roles.roles", "resource.doc.vdefault"]
        }
        assert len(store.list_policies()) == 4
        store.put_policies([rule_policy("doc")])  # imports nothing any more
        assert store.delete_policies(["export_variables.vars", "derived_roles.roles"]) == 2
        assert store.delete_policies(["resource.doc.vdefault", "resource.doc.vdefault/acme"]) == 2
        assert store.list_policies() == []

    def test_nothing_is_put_by_halves(self, store: Any) -> None:
        """When one of several policies is refused, none is put."""
        for wrong in (b"\xff", b"", rule_policy("doc"), rule_policy("")):
            with pytest.raises(RefusedError):
                store.put_policies([rule_policy("doc"), wrong])
        for wrong_schemas in (
            {"a.json": b"{}", "b.json": b"{"},
            {"/a.json": b"{}"},
            {"../a": b"{}"},
            {"a": b"\xff"},
        ):
            with pytest.raises(RefusedError):
                store.put_schemas(wrong_schemas)
        assert store.list_policies() == []
        assert store.list_schemas() == []

    def test_no_policy_takes_the_place_of_another(self, store: Any) -> None:
        """Ids are hashes: one that is taken by another policy is refused; the same key replaces."""
        store.put_policies([rule_policy("a-b")])
        store.put_policies([rule_policy("a:b")])
        assert store.list_policies() == ["resource.a_b.vdefault"]
        with store.engine.begin() as connection:
            connection.execute(update(POLICY).values(name="other"))
        with pytest.raises(RefusedError, match=r"`resource\.a_b\.vdefault` has the id of `resource\.other\."):
            store.put_policies([rule_policy("new"), rule_policy("a-b")])
        assert store.list_policies() == ["resource.other.vdefault"]

    def test_revisions_are_purged(self, store: Any) -> None:
        """The newest of each policy can be kept, and nothing that is in force depends on them."""
        for _ in range(3):
            store.put_policies([rule_policy("a"), rule_policy("b")])
        before = store.read()
        assert store.purge_revisions(2) == 2
        assert store.purge_revisions(2) == 0
        assert store.purge_revisions() == 4
        after = store.read()
        assert dict(after.files) == dict(before.files)

    def test_what_is_written_here_is_noticed(self, store: Any) -> None:
        """A change that this very store makes is told at once, to whoever watches it."""
        calls = Calls()
        store._poll_interval = 3600.0
        store.read()
        store.watch(calls)
        calls.wait_until_quiet(0.3)
        before = calls.count
        began = time.monotonic()
        store.put_schemas({"a.json": b"{}"})
        calls.wait_for_more_than(before)
        assert time.monotonic() - began < 10
        before = calls.count
        store.purge_revisions()
        store.put_policies([rule_policy("a")])
        calls.wait_for_more_than(before)

    def test_a_reading_that_failed_is_made_good(self, store: Any, changer: Database) -> None:
        """When a change was seen and could not be read, it is told again as soon as it can be."""
        store.read()
        calls = Calls()
        changer.writer.put_policies([rule_policy("a")])
        store._look(calls)
        store._look(calls)
        assert calls.count == 1
        reading, store.reading = store.reading, _failing
        with pytest.raises(StoreError, match="in between"):
            store.read()
        store.reading = reading
        store._look(calls)
        assert calls.count == 2
        assert list(store.read().files) == ["resource.a.vdefault"]
        store._look(calls)
        assert calls.count == 2

    def test_rows_that_do_not_fit_are_told(self, store: Any, changer: Database) -> None:
        """A definition that is no policy, or another policy than its row, is a fault."""
        store.put_policies([rule_policy("a"), rule_policy("b"), rule_policy("c"), rule_policy("d")])
        store.put_policies([rule_policy("e")])
        reader = changer.writer
        assert reader.read().faults == ()
        wrong: dict[str, dict[str, Any]] = {
            "resource.a.vdefault": {"definition": b"\xff"},
            "resource.b.vdefault": {"definition": rule_policy("c")},
            "resource.c.vdefault": {"name": "other"},
            "resource.e.vdefault": {"kind": "MYSTERY"},
        }
        with store.engine.begin() as connection:
            for key, values in wrong.items():
                connection.execute(update(POLICY).where(POLICY.c.id == module_id(key)).values(**values))
        snapshot = reader.read()
        assert [str(fault) for fault in snapshot.faults] == [
            "mystery.e: the row's definition is that of `resource.e.vdefault`",
            "resource.a.vdefault: the row's definition cannot be read: not a `cerbos.policy.v1.Policy`",
            "resource.b.vdefault: the row's definition is that of `resource.c.vdefault`",
            "resource.other.vdefault: the row's definition is that of `resource.c.vdefault`",
        ]
        assert list(snapshot.files) == ["resource.d.vdefault"]
