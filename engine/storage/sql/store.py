"""What the stores in databases have in common: reading, writing, listing, revisions, noticing changes.

A reading is one transaction that sees one state. The database digests the definitions, so that only those
that have changed travel; what has not changed keeps its ``bytes``.

Changes are noticed by the end of ``policy_revision`` and the digests of the schemas, whoever made them.
Revision ids are given out before a transaction commits, so a lower id may turn up after a higher one: the
last :data:`TAIL` ids are counted, not only the highest looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import orjson
import re2  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import (
    Connection,
    Engine,
    Text,
    cast,
    delete,
    false,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import IntegrityError as ConstraintError

from engine import policy_messages
from engine.document import Fault
from engine.policy_messages import NotAPolicyError
from engine.storage import (
    IntegrityError,
    PolicyFilter,
    RefusedError,
    Snapshot,
    StoredPolicy,
    StoreError,
)
from engine.storage.polling import Looks, with_retries
from engine.storage.sql.lookout import Lookout
from engine.storage.sql.tables import (
    ANCESTOR,
    DEPENDENCY,
    LISTED,
    POLICY,
    REVISION,
    SCHEMA,
    TABLES,
    Listed,
    NewPolicy,
    module_id,
    new_policy,
    with_disabled,
)
from engine.storage.tree import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.sql.dml import Insert

    from engine.storage.sql.settings import Retries

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

TAIL: Final = 1000
"""How many of the last revision ids are counted when looking for changes."""

BATCH: Final = 500
"""Rows that one statement asks for by id or writes."""


LONGEST_REASON: Final = 500
"""Characters of what a driver said that an error repeats."""

MYSQL_ABOUT_TABLES: Final = frozenset((1054, 1142, 1143, 1146))
"""MySQL's numbers for: no such column, no right to the table, nor to the column, no such table."""


class TablesError(StoreError):
    """The database can be reached, and has not what it needs: waiting does not help."""


class State(NamedTuple):
    """What tells one state of the database from another, for the price of a few short queries."""

    revision: int
    at: str
    """When that revision was made, in UTC."""

    recent: int
    """How many of the last ids are there."""

    policies: int
    schemas: tuple[tuple[str, str], ...]
    """Ids and digests."""

    @property
    def name(self) -> str:
        """What to call the state; empty where no revision is left to tell."""
        parts = [f"{self.revision}@{self.at}"] if self.revision else []
        if self.schemas:
            parts.append(f"schemas.{hashlib.sha256(repr(self.schemas).encode()).hexdigest()[:8]}")
        return "+".join(parts)


class _Read(NamedTuple):
    """A row that was read, its definition as the engine reads it, or what is wrong with it."""

    row: Listed
    content: bytes
    fault: Fault | None


class DatabaseStore(ABC):
    """A store in Cerbos's tables; a class for each database says what is its own."""

    driver: str

    def __init__(self, where: str, *, poll_interval: float, retries: Retries) -> None:
        """*where* is what errors call the database (never with a password); *poll_interval* in seconds."""
        self.where = where
        self.looks = Looks()
        self._poll_interval = poll_interval
        self._retries = retries
        self._opened = False
        self._opening = threading.Lock()
        self._one_reading = threading.Lock()
        self._read_before: dict[int, _Read] = {}
        self._schemas_before: tuple[tuple[tuple[str, str], ...], dict[str, bytes]] = ((), {})
        self._told: State | None = None
        self._unreachable = False
        self._read_failed = False
        self._lookout: Lookout | None = None
        self._closed = False

    # -- what is a database's own --------------------------------------------------------------------------

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The engine of SQLAlchemy."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure, before the first use, that the tables are there.

        Raises:
            StoreError: they are not.

        """

    @abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """Open a transaction that sees one state and changes nothing."""

    @abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        """Open a transaction that is committed in the end, and rolled back on an error."""

    @abstractmethod
    def digest(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the expression for SHA-256 of a column of bytes or text."""

    @abstractmethod
    def upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
        """Return the statement that inserts rows by their column ``id``, or replaces them."""

    def check_tables(self) -> None:
        """Make sure that all tables are there, with all columns.

        Raises:
            StoreError: naming each that is not, or may not be read.

        """
        missing = []
        for table in TABLES:
            try:
                with self.reading() as connection:
                    connection.execute(select(table).where(false()))
            except (ProgrammingError, OperationalError) as error:
                if error.connection_invalidated or not _is_about_tables(error):
                    raise
                missing.append(f"`{table.name}` ({_reason(error)})")
        if missing:
            raise TablesError(
                f"{self.where}: tables cannot be read: {', '.join(missing)}; "
                f"`python -m engine.storage.sql.ddl {self.driver}` prints what makes them"
            )

    # -- reading -------------------------------------------------------------------------------------------

    def read(self) -> Snapshot:
        """Return the policies in force and the schemas. The first reading waits for the database.

        Raises:
            StoreError: it cannot be reached, or has not the tables.

        """
        with self._one_reading:
            self._read_failed = True  # until it has not
            with self.looks.counted(), self._transaction(self.reading) as connection:
                snapshot = self._read(connection)
            self._read_failed = False
            return snapshot

    def _open(self) -> None:
        """Prepare the database on first use, with retries as a process at its start has them."""
        with self._opening:
            if not self._opened:
                lacking = with_retries(
                    self._prepared,
                    attempts=self._retries.attempts,
                    first_delay=self._retries.first_delay,
                    longest_delay=self._retries.longest_delay,
                )
                if lacking is not None:
                    raise lacking
                self._opened = True

    def _prepared(self) -> TablesError | None:
        """Prepare the database; what waiting does not mend is returned, and not tried again."""
        with self._errors():
            try:
                self.prepare()
            except TablesError as error:
                return error
        return None

    def _read(self, connection: Connection) -> Snapshot:
        state = self._state(connection)
        listed = self._enabled(connection)
        read = self._definitions(connection, listed)
        schemas = self._schemas(connection, state)
        files = {row.key: read[row.id].content for row in listed if read[row.id].fault is None}
        faults = tuple(fault for fault in (read[row.id].fault for row in listed) if fault is not None)
        self._read_before = read
        self._told = state
        return Snapshot(files, schemas, faults, state.name)

    def _enabled(self, connection: Connection) -> list[Listed]:
        query = select(*LISTED, self.digest(POLICY.c.definition)).where(POLICY.c.disabled == false())
        return sorted((Listed(*row) for row in connection.execute(query)), key=lambda row: row.key)

    def _definitions(self, connection: Connection, listed: Sequence[Listed]) -> dict[int, _Read]:
        """Return all definitions, with those that have changed fetched."""
        before = self._read_before
        changed = {row.id: row for row in listed if row.id not in before or before[row.id].row != row}
        read = {row.id: before[row.id] for row in listed if row.id not in changed}
        for id_, definition in self._fetch(connection, tuple(changed), len(listed)):
            read[id_] = _read_definition(changed[id_], definition, before.get(id_))
        return read

    def _fetch(
        self, connection: Connection, ids: Sequence[int], of: int
    ) -> Iterator[tuple[int, bytes | None]]:
        query = select(POLICY.c.id, POLICY.c.definition)
        if len(ids) == of:
            batches = [query.where(POLICY.c.disabled == false())] if ids else []
        else:
            batches = [query.where(POLICY.c.id.in_(batch)) for batch in _batches(ids)]
        for batch in batches:
            yield from (tuple(row) for row in connection.execute(batch))

    def _schemas(self, connection: Connection, state: State) -> dict[str, bytes]:
        if self._schemas_before[0] != state.schemas:
            before = self._schemas_before[1]
            found = {
                path: before[path] if before.get(path) == content else content
                for path, content in self._all_schemas(connection)
            }
            self._schemas_before = state.schemas, found
        return dict(self._schemas_before[1])

    def _all_schemas(self, connection: Connection) -> Iterator[tuple[str, bytes]]:
        query = select(SCHEMA.c.id, cast(SCHEMA.c.definition, Text))
        for id_, definition in sorted(map(tuple, connection.execute(query))):
            yield f"{SCHEMAS}/{id_}", (definition or "").encode()

    # -- noticing changes ----------------------------------------------------------------------------------

    def watch(self, changed: Callable[[], object]) -> None:
        """Call *changed* from a thread of the store whenever policies may have changed, until closed."""
        self._lookout = Lookout(f"{self.driver}-store", self._poll_interval, lambda: self._look(changed))
        self._lookout.start()
        self.listen()

    def listen(self) -> None:  # noqa: B027 - most databases tell nothing
        """Begin to hear of changes, where the database can tell of them; :meth:`wake` passes it on."""

    def wake(self) -> None:
        """Look for changes soon."""
        if self._lookout is not None:
            self._lookout.wake()

    def close(self) -> None:
        """Stop watching, and close all connections."""
        self._closed = True
        if self._lookout is not None:
            self._lookout.stop()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that nobody uses just now."""
        self.engine.dispose()

    def _look(self, changed: Callable[[], object]) -> None:
        """Call *changed* if there is something new: a state, or that there is no more state to be had."""
        if self._closed:
            return
        try:
            state = self._current_state()
        except StoreError as error:
            if not self._unreachable:
                logger.warning("cannot look for changes: %s", error)
                self._unreachable = True
                changed()
            return
        if state != self._told or self._unreachable or self._read_failed:
            self._told, self._unreachable = state, False
            changed()

    def _current_state(self) -> State:
        with self.looks.counted(), self._transaction(self.reading) as connection:
            return self._state(connection)

    def _state(self, connection: Connection) -> State:
        newest = connection.execute(
            select(REVISION.c.revision_id, REVISION.c.update_timestamp)
            .order_by(REVISION.c.revision_id.desc())
            .limit(1)
        ).first()
        last, at = (0, None) if newest is None else newest
        recent = select(func.count()).select_from(REVISION).where(REVISION.c.revision_id > last - TAIL)
        policies = select(func.count()).select_from(POLICY)
        schemas = select(SCHEMA.c.id, self.digest(cast(SCHEMA.c.definition, Text)))
        return State(
            last,
            _moment(at),
            connection.execute(recent).scalar_one(),
            connection.execute(policies).scalar_one(),
            tuple(sorted((id_, _hex(digest)) for id_, digest in connection.execute(schemas))),
        )

    # -- listing -------------------------------------------------------------------------------------------

    def list_policies(self, chosen: PolicyFilter | None = None) -> list[str]:
        """Return the ids of policies, by kind, name, version and scope.

        Raises:
            RefusedError: a regular expression is none.
            StoreError: the database cannot be reached.

        """
        chosen = PolicyFilter() if chosen is None else chosen
        name, scope, version = map(_expression, (chosen.name, chosen.scope, chosen.version))
        query = select(*LISTED)
        if not chosen.include_disabled:
            query = query.where(POLICY.c.disabled == false())
        with self._transaction(self.reading) as connection:
            rows = [Listed(*row) for row in connection.execute(query)]
        wanted = frozenset(map(module_id, chosen.ids))
        return [
            row.key
            for row in sorted(rows, key=lambda row: row.order)
            if (not wanted or row.id in wanted)
            and name.search(row.name)
            and scope.search(row.scope or "")
            and version.search(row.version)
        ]

    def get_policies(self, ids: Iterable[str]) -> list[StoredPolicy]:
        """Return policies in the order of *ids*; what is not there is left out.

        Raises:
            StoreError: the database cannot be reached, or a definition is no policy.

        """
        by_id = {module_id(key): key for key in ids}
        found: dict[int, StoredPolicy] = {}
        with self._transaction(self.reading) as connection:
            for batch in _batches(tuple(by_id)):
                query = select(POLICY.c.id, POLICY.c.disabled, POLICY.c.definition)
                for id_, disabled, definition in connection.execute(query.where(POLICY.c.id.in_(batch))):
                    found[id_] = self._stored(by_id[id_], definition, disabled=disabled is not False)
        return [found[id_] for id_ in by_id if id_ in found]

    def _stored(self, key: str, definition: bytes | None, *, disabled: bool) -> StoredPolicy:
        try:
            return StoredPolicy(key, with_disabled(definition or b"", disabled=disabled), disabled)
        except NotAPolicyError as error:
            raise StoreError(f"{self.where}: the definition of `{key}` is {error}") from None

    def list_schemas(self) -> list[str]:
        """Return the ids of the schemas, sorted.

        Raises:
            StoreError: the database cannot be reached.

        """
        with self._transaction(self.reading) as connection:
            return sorted(connection.execute(select(SCHEMA.c.id)).scalars())

    def get_schemas(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return schemas in the order of *ids*; what is not there is left out.

        Raises:
            StoreError: the database cannot be reached.

        """
        wanted = tuple(dict.fromkeys(ids))
        found: dict[str, bytes] = {}
        with self._transaction(self.reading) as connection:
            for batch in _batches(wanted):
                query = select(SCHEMA.c.id, cast(SCHEMA.c.definition, Text)).where(SCHEMA.c.id.in_(batch))
                found |= {id_: (text or "").encode() for id_, text in connection.execute(query)}
        return {id_: found[id_] for id_ in wanted if id_ in found}

    # -- writing -------------------------------------------------------------------------------------------

    def put_policies(self, definitions: Iterable[bytes]) -> None:
        """Add policies, or replace those of the same key.

        Raises:
            RefusedError: one is no policy, two are the same one, or the tables cannot hold it.
            StoreError: the database cannot be reached.

        """
        updated = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        policies = [new_policy(definition, updated) for definition in definitions]
        keys = [policy.key for policy in policies]
        repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
        if repeated:
            raise RefusedError(f"more than one definition of `{repeated[0]}`")
        policies.sort(key=lambda policy: policy.id)  # rows are locked in one order by whoever writes them
        with self._changing() as connection:
            for batch in _batches(policies):
                self._put(connection, batch)

    def _put(self, connection: Connection, policies: Sequence[NewPolicy]) -> None:
        self._check_ids(connection, {policy.id: policy.key for policy in policies})
        connection.execute(self.upsert(POLICY, [policy.row for policy in policies]))
        ids = [policy.id for policy in policies]
        links = (
            (DEPENDENCY, "dependency_id", [(p.id, each) for p in policies for each in p.dependencies]),
            (ANCESTOR, "ancestor_id", [(p.id, each) for p in policies for each in p.ancestors]),
        )
        for table, column, rows in links:
            connection.execute(delete(table).where(table.c.policy_id.in_(ids)))
            for batch in _batches(rows):
                connection.execute(insert(table), [{"policy_id": a, column: b} for a, b in batch])

    def _check_ids(self, connection: Connection, keys: Mapping[int, str]) -> None:
        """Let no policy take the place of another one: whoever chooses names can make ids that are equal."""
        for row in connection.execute(select(*LISTED).where(POLICY.c.id.in_(keys))):
            there = Listed(*row)
            if there.key != keys[there.id]:
                raise RefusedError(f"`{keys[there.id]}` has the id of `{there.key}`, which is there already")

    def delete_policies(self, ids: Iterable[str]) -> int:
        """Take policies away; return how many there were.

        Raises:
            IntegrityError: others that stay need one of them.
            StoreError: the database cannot be reached.

        """
        by_id = {module_id(key): key for key in ids}
        with self._changing() as connection:
            self._check_needs(connection, by_id)
            statements = (delete(POLICY).where(POLICY.c.id.in_(batch)) for batch in _batches(tuple(by_id)))
            return sum(connection.execute(statement).rowcount for statement in statements)

    def disable_policies(self, ids: Iterable[str]) -> int:
        """Keep policies, but out of force; return how many there are.

        Raises:
            IntegrityError: others that stay in force need one of them.
            StoreError: the database cannot be reached.

        """
        by_id = {module_id(key): key for key in ids}
        with self._changing() as connection:
            self._check_needs(connection, by_id)
            return self._set_disabled(connection, tuple(by_id), disabled=True)

    def enable_policies(self, ids: Iterable[str]) -> int:
        """Put disabled policies in force; return how many there are.

        Raises:
            StoreError: the database cannot be reached.

        """
        with self._changing() as connection:
            return self._set_disabled(connection, tuple(set(map(module_id, ids))), disabled=False)

    def _set_disabled(self, connection: Connection, ids: Sequence[int], *, disabled: bool) -> int:
        statement = update(POLICY).values(disabled=disabled)
        return sum(
            connection.execute(statement.where(POLICY.c.id.in_(batch))).rowcount for batch in _batches(ids)
        )

    def _check_needs(self, connection: Connection, by_id: Mapping[int, str]) -> None:
        """Refuse to take away what policies that stay in force need."""
        below, importing = (
            _needs(connection, table, column, by_id)
            for table, column in (
                (ANCESTOR, ANCESTOR.c.ancestor_id),
                (DEPENDENCY, DEPENDENCY.c.dependency_id),
            )
        )
        if below or importing:
            raise IntegrityError(below, importing)

    def put_schemas(self, schemas: Mapping[str, bytes]) -> None:
        """Add or replace JSON Schemas by id.

        Raises:
            RefusedError: one is no JSON, or its id is none.
            StoreError: the database cannot be reached.

        """
        rows = [{"id": id_, "definition": _schema_text(id_, schemas[id_])} for id_ in sorted(schemas)]
        with self._changing() as connection:
            for batch in _batches(rows):
                connection.execute(self.upsert(SCHEMA, batch))

    def delete_schemas(self, ids: Iterable[str]) -> int:
        """Take schemas away; return how many there were.

        Raises:
            StoreError: the database cannot be reached.

        """
        with self._changing() as connection:
            statements = (
                delete(SCHEMA).where(SCHEMA.c.id.in_(batch)) for batch in _batches(sorted(set(ids)))
            )
            return sum(connection.execute(statement).rowcount for statement in statements)

    def purge_revisions(self, keep_last: int = 0) -> int:
        """Forget revisions, but for the newest *keep_last* of each policy; return how many were forgotten.

        Raises:
            StoreError: the database cannot be reached.

        """
        statement = delete(REVISION)
        if keep_last > 0:
            age = func.row_number().over(partition_by=REVISION.c.id, order_by=REVISION.c.revision_id.desc())
            aged = select(REVISION.c.revision_id, age.label("age")).subquery("aged")
            statement = statement.where(
                REVISION.c.revision_id.in_(select(aged.c.revision_id).where(aged.c.age > keep_last))
            )
        with self._changing() as connection:
            return connection.execute(statement).rowcount

    # -- transactions --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._transaction(self.writing) as connection:
            yield connection
        self.wake()

    @contextlib.contextmanager
    def _transaction(
        self, begin: Callable[[], contextlib.AbstractContextManager[Connection]]
    ) -> Iterator[Connection]:
        if self._closed:
            raise StoreError(f"{self.where}: the store is closed")
        self._open()
        with self._errors(), begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what a driver raises into ours. Statements and their values are no part of the message."""
        try:
            yield
        except (DataError, ConstraintError) as error:
            raise RefusedError(f"{self.where}: {_reason(error)}") from None
        except SQLAlchemyError as error:
            raise StoreError(f"{self.where}: {_reason(error)}") from None


# --- rows -------------------------------------------------------------------------------------------------


def _read_definition(row: Listed, definition: bytes | None, before: _Read | None) -> _Read:
    try:
        policy = policy_messages.decode(definition or b"")
        key = policy_messages.coordinates(policy).key
        policy.disabled = False  # the row says so; it was read because it is in force
        content = orjson.dumps(
            policy_messages.to_json(policy), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        )
    except NotAPolicyError as error:
        return _Read(row, b"", Fault(row.key, 0, 0, f"the row's definition cannot be read: {error}"))
    if module_id(key) != row.id or key != row.key:
        message = f"the row's definition is that of `{key}`"
        return _Read(row, b"", Fault(row.key, 0, 0, message))
    if before is not None and before.content == content:
        content = before.content  # the same object tells the engine that nothing changed
    return _Read(row, content, None)


def _needs(
    connection: Connection, table: Table, needed: ColumnElement[int], by_id: Mapping[int, str]
) -> dict[str, list[str]]:
    """Return for each policy the others that need it, directly or through others of the same *table*."""
    found: dict[int, dict[int, str]] = {}
    origins: dict[int, set[int]] = {id_: {id_} for id_ in by_id}
    while origins:
        reached: dict[int, set[int]] = {}
        for needed_id, row in _needing(connection, table, needed, tuple(origins)):
            for origin in origins[needed_id]:
                if row.id not in found.setdefault(origin, {}):
                    found[origin][row.id] = row.key
                    reached.setdefault(row.id, set()).add(origin)
        origins = reached
    return {
        by_id[id_]: sorted(needing.values())
        for id_, needing in found.items()
        if not needing.keys() <= by_id.keys()
    }


def _needing(
    connection: Connection, table: Table, needed: ColumnElement[int], ids: Sequence[int]
) -> list[tuple[int, Listed]]:
    query = select(needed, *LISTED).join_from(table, POLICY, POLICY.c.id == table.c.policy_id)
    enabled = query.where(POLICY.c.disabled == false())
    return [
        (first, Listed(*rest))
        for batch in _batches(ids)
        for first, *rest in connection.execute(enabled.where(needed.in_(batch)))
    ]


def _schema_text(id_: str, content: bytes) -> str:
    if not id_ or id_.startswith("/") or ".." in id_.split("/"):
        raise RefusedError(
            f"`{id_}` cannot be the id of a schema: it is a path such as `common/address.json`"
        )
    try:
        orjson.loads(content)
        return content.decode()
    except ValueError as error:  # also what is no UTF-8
        raise RefusedError(f"the schema `{id_}` is no JSON: {error}") from None


def _expression(text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise RefusedError(f"`{text}` is no regular expression: {reason}") from None


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _hex(digest: object) -> str:
    return digest.hex() if isinstance(digest, bytes | memoryview) else str(digest)


def _moment(at: object) -> str:
    """Spell a timestamp; a database without time zones keeps them in UTC."""
    if isinstance(at, datetime.datetime):
        at = at.astimezone(datetime.UTC) if at.tzinfo else at
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{at}".replace(" ", "T") + "Z" if at else ""


def _reason(error: SQLAlchemyError) -> str:
    """Return what the driver said, without the statement that PostgreSQL repeats."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = cause.args[-1] if cause.args else cause  # (number, text) with MySQL's driver
    return " ".join(str(said).partition("\nLINE ")[0].split())[:LONGEST_REASON] or type(cause).__name__


def _is_about_tables(error: DBAPIError) -> bool:
    """Tell whether it is tables, columns or rights that lack, and not the server."""
    number = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return isinstance(error, ProgrammingError) or number in MYSQL_ABOUT_TABLES
