"""What is in a store, policy by policy, in the words of the admin API.

A database lists what it holds, disabled policies too, by their keys. A store of files is shown as the engine
last read it: there the id of a policy is the path of its file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from engine import policy_messages
from engine.document import parse
from engine.load import PolicyError, load_policy
from engine.policy_messages import NotAPolicyError
from engine.storage import Listing
from engine.storage.tree import SCHEMAS
from extauthz.pdp.admin_messages import Policy
from extauthz.pdp.errors import Code, PdpError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from engine.engine import Engine
    from engine.policy import Policy as Written
    from engine.storage import PolicyFilter, Store, StoredPolicy

PREFIX: Final = f"{SCHEMAS}/"
"""Before the id of a schema, in the state of a store."""


class Catalogue(Protocol):
    """Shows policies and schemas. What is not there is left out."""

    def list_policies(self, chosen: PolicyFilter) -> list[str]:
        """Return the ids of policies.

        Raises:
            PdpError: the store cannot be asked this.
            RefusedError: a regular expression is none.
            StoreError: the store cannot be reached.

        """
        ...

    def get_policies(self, ids: Sequence[str]) -> list[Policy]:
        """Return policies with what the store knows of them; raises StoreError."""
        ...

    def written(self, chosen: PolicyFilter) -> tuple[list[Written], frozenset[str]]:
        """Return all policies that others may refer to, and the keys of those that were chosen.

        Raises what :meth:`list_policies` raises.
        """
        ...

    def list_schemas(self) -> list[str]:
        """Return the ids of schemas; raises StoreError."""
        ...

    def get_schemas(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """Return schemas; raises StoreError."""
        ...


def catalogue(engine: Engine, store: Store, driver: str) -> Catalogue:
    """Make what shows the contents of *store*; *driver* is its name."""
    return _Database(engine, store, driver) if isinstance(store, Listing) else _Tree(engine, driver)


# --- stores that list what they hold ----------------------------------------------------------------------


class _Database:
    def __init__(self, engine: Engine, store: Listing, driver: str) -> None:
        self._engine = engine
        self._store = store
        self._driver = driver

    def list_policies(self, chosen: PolicyFilter) -> list[str]:
        return sorted(self._store.list_policies(chosen))

    def get_policies(self, ids: Sequence[str]) -> list[Policy]:
        return [self._shown(each) for each in self._store.get_policies(ids)]

    def _shown(self, stored: StoredPolicy) -> Policy:
        policy = policy_messages.decode(stored.definition)
        return _described(policy, stored.id, {"driver": self._driver})

    def written(self, chosen: PolicyFilter) -> tuple[list[Written], frozenset[str]]:
        listed = self.list_policies(chosen)
        known = dict(self._engine.policies)
        missing = [key for key in listed if key not in known]
        known.update(_read(self._store.get_policies(missing)))
        return list(known.values()), frozenset(listed)

    def list_schemas(self) -> list[str]:
        return self._store.list_schemas()

    def get_schemas(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        return self._store.get_schemas(ids)


def _read(stored: Iterable[StoredPolicy]) -> Iterator[tuple[str, Written]]:
    """Read policies as they are written; those that cannot be read refer to nothing."""
    for each in stored:
        try:
            document = policy_messages.to_json(policy_messages.decode(each.definition))
            found = load_policy(json.dumps(document), each.id)
        except (NotAPolicyError, PolicyError):
            continue
        if found is not None:
            yield each.id, found


# --- stores of files --------------------------------------------------------------------------------------


class _Tree:
    def __init__(self, engine: Engine, driver: str) -> None:
        self._engine = engine
        self._driver = driver

    def list_policies(self, chosen: PolicyFilter) -> list[str]:
        return sorted(self._chosen(chosen))

    def _chosen(self, chosen: PolicyFilter) -> dict[str, Written]:
        if chosen.name or chosen.scope or chosen.version:
            raise PdpError(Code.UNIMPLEMENTED, "Store does not support regexp filters")
        wanted = frozenset(chosen.ids)
        return {
            path: policy
            for path, policy in self._engine.policies.items()
            if (not wanted or path in wanted) and (chosen.include_disabled or not policy.disabled)
        }

    def get_policies(self, ids: Sequence[str]) -> list[Policy]:
        policies, files = self._engine.policies, self._engine.snapshot.files
        return [self._shown(path, files[path]) for path in ids if path in policies and path in files]

    def _shown(self, path: str, content: bytes) -> Policy:
        policy = policy_messages.from_json(parse(content, path).value)
        policy.metadata.source_file = path
        return _described(policy, path, {"driver": self._driver, "source": path})

    def written(self, chosen: PolicyFilter) -> tuple[list[Written], frozenset[str]]:
        keys = frozenset(policy.key for policy in self._chosen(chosen).values())
        return list(self._engine.policies.values()), keys

    def list_schemas(self) -> list[str]:
        return sorted(path.removeprefix(PREFIX) for path in self._engine.snapshot.schemas)

    def get_schemas(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        schemas = self._engine.snapshot.schemas
        return {each: schemas[f"{PREFIX}{each}"] for each in ids if f"{PREFIX}{each}" in schemas}


def _described(policy: Any, identifier: str, attributes: Mapping[str, str]) -> Policy:
    """Add what Cerbos tells of a policy: how to ask for it again, and where it came from."""
    metadata = policy.metadata
    metadata.store_identifier = metadata.store_identifer = (
        identifier  # the second is how Cerbos once spelt it
    )
    for name, value in attributes.items():
        metadata.source_attributes.attributes[name].string_value = value
    return Policy(policy_messages.encode(policy))
