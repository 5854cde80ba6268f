"""Cerbos's tables, and what their rows hold.

The tables are those of Cerbos (``internal/storage/db``), so that either of us works with a database of the
other. ``policy.id`` is the hash of the policy's full name as a signed integer of 64 bits; ``definition`` is
the serialized ``cerbos.policy.v1.Policy``. Triggers write each change of ``policy`` to ``policy_revision``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import xxhash
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import NullType, UserDefinedType

from engine import policy_messages
from engine.policy_messages import Coordinates, NotAPolicyError
from engine.storage import RefusedError

UPDATED: Final = "update_ts"
"""The source attribute in which Cerbos keeps when a policy was put; the audit trail shows it."""


class JsonText(UserDefinedType[str]):
    """JSON as it was written: no driver is to take it apart."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type."""
        return "JSON"


METADATA: Final = MetaData()

POLICY: Final = Table(
    "policy",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(128), nullable=False),
    Column("name", String(1024), nullable=False),
    Column("version", String(128), nullable=False),
    Column("scope", String(512)),
    Column("description", Text),
    Column("disabled", Boolean),
    Column("definition", LargeBinary),
)
DEPENDENCY: Final = Table(
    "policy_dependency",
    METADATA,
    Column("policy_id", BigInteger, primary_key=True),
    Column("dependency_id", BigInteger, primary_key=True),
)
ANCESTOR: Final = Table(
    "policy_ancestor",
    METADATA,
    Column("policy_id", BigInteger, primary_key=True),
    Column("ancestor_id", BigInteger, primary_key=True),
)
REVISION: Final = Table(
    "policy_revision",
    METADATA,
    Column("revision_id", Integer, primary_key=True),
    Column("action", String(64)),
    Column("id", BigInteger),
    Column("kind", String(128)),
    Column("name", String(1024)),
    Column("version", String(128)),
    Column("scope", String(512)),
    Column("description", Text),
    Column("disabled", Boolean),
    Column("definition", LargeBinary),
    Column("update_timestamp", NullType),
)
SCHEMA: Final = Table(
    "attr_schema_defs",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("definition", JsonText),
)
TABLES: Final = (POLICY, DEPENDENCY, ANCESTOR, REVISION, SCHEMA)

LISTED: Final = (POLICY.c.id, POLICY.c.kind, POLICY.c.name, POLICY.c.version, POLICY.c.scope)
"""The columns of :class:`Listed`."""


def module_id(key: str) -> int:
    """Return the id of the policy with this key: Cerbos's hash of ``cerbos.<key>``, as a signed integer."""
    hashed = xxhash.xxh64_intdigest(f"cerbos.{key}".encode())
    return hashed - (1 << 64) if hashed >> 63 else hashed


class Listed(NamedTuple):
    """A row of ``policy`` without its definition; *digest* is SHA-256 of that."""

    id: int
    kind: str
    name: str
    version: str
    scope: str | None
    digest: bytes | str | None = None

    @property
    def key(self) -> str:
        """The policy key."""
        return Coordinates(self.kind, self.name, self.version, self.scope or "").key

    @property
    def order(self) -> tuple[str, str, str, str]:
        """What policies are sorted by: the collations of databases differ."""
        return self.kind, self.name, self.version, self.scope or ""


@dataclass(frozen=True, slots=True)
class NewPolicy:
    """A policy to be written: its row, and the ids of those that it needs."""

    key: str
    row: dict[str, Any]
    dependencies: tuple[int, ...]
    ancestors: tuple[int, ...]

    @property
    def id(self) -> int:
        """The id of its row."""
        found: int = self.row["id"]
        return found


def new_policy(definition: bytes, updated: str) -> NewPolicy:
    """Make the rows of a policy; *updated* is when it is put.

    Raises:
        RefusedError: it is no policy.

    """
    try:
        policy = policy_messages.decode(definition)
        found = policy_messages.coordinates(policy)
        policy_messages.to_json(policy)  # what cannot be read back is not taken in
    except NotAPolicyError as error:
        raise RefusedError(str(error)) from None
    policy.metadata.source_attributes.attributes[UPDATED].string_value = updated
    key = found.key
    row = {
        "id": module_id(key),
        "kind": found.kind,
        "name": found.name,
        "version": found.version,
        "scope": found.scope,
        "description": policy.description,
        "disabled": policy.disabled,
        "definition": policy_messages.encode(policy),
    }
    return NewPolicy(
        key,
        row,
        tuple(map(module_id, policy_messages.dependencies(policy))),
        tuple(map(module_id, policy_messages.ancestors(found))),
    )


def with_disabled(definition: bytes, *, disabled: bool) -> bytes:
    """Return a stored definition that says what its row says.

    Raises:
        NotAPolicyError: it is no policy.

    """
    policy = policy_messages.decode(definition)
    policy.disabled = disabled
    return policy_messages.encode(policy)
