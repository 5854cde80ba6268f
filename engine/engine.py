"""The engine: holds the current rule table, and a better one as soon as the store has it.

A new table is built aside, in the thread that asks for it, and swapped in by one assignment; a check reads
the reference once and keeps what it has read. When the new state of the store cannot be used, the old table
stays in force and the faults are kept in :attr:`Engine.status`.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from engine.artefacts.cache import CacheSettings
from engine.artefacts.workshop import Workshop
from engine.cel import Timestamp
from engine.check import check as decide
from engine.compile import IMPORT_NOT_FOUND, UNKNOWN_DERIVED_ROLE, Compiler
from engine.decider import Deciders, together
from engine.definitions import UNDEFINED_CONSTANT, UNDEFINED_VARIABLE
from engine.document import Fault
from engine.load import PolicyError
from engine.model import NO_AUX_DATA, CheckInput, json_value
from engine.patched import Patched
from engine.rules import RuleTable, Settings
from engine.storage import Snapshot, Store, StoreError, Telling, Watchable, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.artefacts.bench import Bench
    from engine.explain import Explanation
    from engine.model import AuxData, Decision, Evaluation, JsonValue, Principal, Resource
    from engine.plan import Plan, PlanInput
    from engine.policy import Policy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of one attempt to bring the engine up to date with its store."""

    at: datetime.datetime
    """When the attempt ended, in UTC."""

    seconds: float
    """How long it took."""

    faults: tuple[Fault, ...] = ()
    """Why the new state is not in force; empty when it is."""

    changed: bool = True
    """The store held something else than before."""

    policies: int = 0
    """How many policies are in force."""

    warnings: tuple[Fault, ...] = ()
    """What looks like a mistake in the policies in force."""

    revision: str = ""
    """What the store calls the state in force: a commit, a version; empty where it has no name for it."""

    @property
    def ok(self) -> bool:
        """The state of the store is in force."""
        return not self.faults


@dataclass(slots=True)
class Reloads:
    """What became of all attempts after the first loading, as plain numbers: what metrics tell."""

    ok: int = 0

    failed: int = 0

    unreadable: int = 0
    """Those among the failed in which the store could not be read."""

    last_read: float = 0.0
    """When the store was last read, whatever was in it; seconds since the epoch, 0 for never."""


class Engine:
    """Answers checks from the rule table that is in force."""

    def __init__(
        self,
        table: RuleTable,
        *,
        store: Store | None = None,
        loader: Loader | None = None,
        on_reload: Callable[[Reload], None] | None = None,
        revision: str = "",
    ) -> None:
        """*revision* is what the store calls the state that *table* was made of."""
        self._table = table
        self._revision = revision
        self._snapshot = Snapshot({})
        self._store = store
        self._loader = loader or Loader(table.settings)
        self._listeners = [on_reload] if on_reload else []
        self._lock = threading.Lock()
        self.reloads = Reloads(last_read=0.0 if store is None else time.time())
        self._status = self._result(time.monotonic())

    # -- making one ----------------------------------------------------------------------------------------

    @classmethod
    def from_directory(
        cls,
        directory: str | os.PathLike[str],
        *,
        watch: bool = False,
        settings: Settings | None = None,
        on_reload: Callable[[Reload], None] | None = None,
        cache: CacheSettings | str | os.PathLike[str] | None = None,
        processes: int | None = None,
        **options: Any,
    ) -> Engine:
        """Load the policies of a directory; with *watch*, follow its changes.

        *cache* is a directory of this user's alone in which what policies compile to is kept; *processes* is
        how many compile a large number of policies together, by default one for each processor. *options* are
        fields of :class:`Settings`, for those who give no *settings*.

        Raises:
            PolicyError: with every fault of every policy.
            StoreError: the directory cannot be read.

        """
        store = open_store("disk", {"directory": os.fspath(directory), "watchForChanges": watch})
        return cls.from_store(
            store,
            settings=settings or Settings(**options),
            on_reload=on_reload,
            watch=watch,
            cache=cache,
            processes=processes,
        )

    @classmethod
    def from_store(
        cls,
        store: Store,
        *,
        settings: Settings | None = None,
        on_reload: Callable[[Reload], None] | None = None,
        watch: bool = False,
        cache: CacheSettings | str | os.PathLike[str] | None = None,
        processes: int | None = None,
    ) -> Engine:
        """Load the policies of a store; with *watch*, follow its changes if the store can be watched.

        *cache* and *processes* are as for :meth:`from_directory`.

        Raises:
            PolicyError: with every fault of every policy.
            StoreError: the store cannot be read.

        """
        loader = Loader(settings or Settings(), cache=cache, processes=processes)
        snapshot = store.read()
        table = loader.table(snapshot)
        engine = cls(table, store=store, loader=loader, on_reload=on_reload, revision=snapshot.revision)
        engine._snapshot = snapshot
        if watch and isinstance(store, Watchable):
            store.watch(engine.reload)
        return engine

    def close(self) -> None:
        """Let go of the store; checks are still answered."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- asking --------------------------------------------------------------------------------------------

    def check(
        self, question: CheckInput, *, now: Timestamp | None = None, evaluation: Evaluation | None = None
    ) -> Decision:
        """Decide each action of *question*.

        *now* is what ``now()`` says, by default the time of the call; *evaluation* says what an error means,
        by default what the settings say.
        """
        deciders = self._deciders
        principal, resource, actions, aux_data, _ = question
        if len(actions) != 1:
            return _decided(deciders, question, now, evaluation)
        decision = _settled(deciders, principal, resource, actions[0], aux_data, now)
        if decision is not None:
            return decision
        return decide(deciders.table, _plain(question), now=now, evaluation=evaluation)

    def check_action(
        self,
        principal: Principal,
        resource: Resource,
        action: str,
        aux_data: AuxData = NO_AUX_DATA,
        request_id: str = "",
    ) -> Decision:
        """Decide a single action, as :meth:`check` does; mostly no question has to be made for it."""
        deciders = self._deciders
        decision = _settled(deciders, principal, resource, action, aux_data, None)
        if decision is not None:
            return decision
        question = CheckInput(principal, resource, (action,), aux_data, request_id)
        return decide(deciders.table, _plain(question))

    def check_usual(
        self, principal: Principal, resource: Resource, action: str, aux_data: AuxData
    ) -> Decision | None:
        """Decide as :meth:`check_action` does if there is a function for the question; else return ``None``.

        Roles have to be a tuple, attributes and claims dicts. Where the function fails its exception is
        raised. In both cases ask :meth:`check_action`, which knows what it means, and takes note of it.
        """
        deciders = self._deciders
        kind, _, attr, version, scope = resource
        function = deciders.functions.get((kind, version, scope, principal.roles, action))
        if function is None or principal.id in deciders.excepted:
            return None
        return function(principal, resource, principal.attr, attr, aux_data, None)

    def check_many(
        self,
        questions: Iterable[CheckInput],
        *,
        now: Timestamp | None = None,
        evaluation: Evaluation | None = None,
    ) -> list[Decision]:
        """Decide several questions, in order, by the same table and at the same time."""
        deciders = self._deciders
        moment = Timestamp(time.time_ns()) if now is None else now
        return [_decided(deciders, question, moment, evaluation) for question in questions]

    def explain(
        self, question: CheckInput, *, now: Timestamp | None = None, evaluation: Evaluation | None = None
    ) -> Explanation:
        """Decide *question* as :meth:`check` does, and tell the whole way to the decision."""
        from engine.explain import explain  # noqa: PLC0415 - most processes never explain anything

        return explain(self._table, _plain(question), now=now, evaluation=evaluation)

    def plan(
        self, question: PlanInput, *, now: Timestamp | None = None, evaluation: Evaluation | None = None
    ) -> Plan:
        """Return the filter for the resources to which the principal may do all of the actions."""
        from engine.plan import plan  # noqa: PLC0415 - most processes never plan anything

        return plan(self._table, question, now=now, evaluation=evaluation)

    # -- the table -----------------------------------------------------------------------------------------

    @property
    def table(self) -> RuleTable:
        """The rule table in force."""
        return self._deciders.table

    @property
    def _table(self) -> RuleTable:
        return self._deciders.table

    @_table.setter
    def _table(self, table: RuleTable) -> None:
        self._deciders = Deciders(table)

    @property
    def status(self) -> Reload:
        """What became of the last attempt to load: when, whether it went well, what was wrong."""
        return self._status

    @property
    def snapshot(self) -> Snapshot:
        """The state of the store that is in force; an empty one when there is no store."""
        return self._snapshot

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The policies of the state that is in force, by path, as they are written."""
        with self._lock:
            return self._loader.policies(self._snapshot)

    def try_out(self, snapshot: Snapshot) -> tuple[Fault, ...]:
        """Tell what is wrong with a state that the store may come to have; it is not put in force."""
        with self._lock:
            try:
                self._loader.table(snapshot)
            except PolicyError as error:
                return error.faults
            return ()

    @property
    def notice(self) -> str:
        """What the store has to say about the state in force, such as that it comes from a fallback."""
        return self._store.notice() if isinstance(self._store, Telling) else ""

    def replace(self, table: RuleTable) -> None:
        """Put another table in force; checks under way end with the one they began with."""
        self._table = table
        self._revision = ""
        self._conclude(self._result(time.monotonic()))

    def listen(self, listener: Callable[[Reload], None]) -> None:
        """Call *listener* after each reload that found something new, from the thread that made it."""
        self._listeners.append(listener)

    def reload(self) -> Reload:
        """Read the store again, and put its state in force if nothing is wrong with it. Never raises."""
        with self._lock:
            started = time.monotonic()
            try:
                result = self._reload(started)
                self.reloads.ok += 1
            except (PolicyError, StoreError) as error:
                result = self._result(started, faults=_faults(error))
            except Exception as error:  # a bug of ours must not end the watching thread
                logger.exception("reloading policies failed")
                result = self._result(started, faults=(Fault("", 0, 0, f"internal error: {error!r}"),))
            self.reloads.failed += not result.ok
            return self._conclude(result)

    def _reload(self, started: float) -> Reload:
        if self._store is None:
            raise StoreError("the engine has no store to reload from")
        snapshot = self._read(self._store)
        table = self._loader.table(snapshot)
        changed = table is not self._table
        if changed:
            self._table = table
        self._revision, self._snapshot = snapshot.revision, snapshot
        return self._result(started, changed=changed)

    def _read(self, store: Store) -> Snapshot:
        try:
            snapshot = store.read()
        except StoreError:
            self.reloads.unreadable += 1
            raise
        self.reloads.last_read = time.time()
        return snapshot

    def _result(self, started: float, *, faults: tuple[Fault, ...] = (), changed: bool = True) -> Reload:
        seconds = time.monotonic() - started
        table = self._table
        policies = len(table.policies)
        return Reload(_utc_now(), seconds, faults, changed, policies, table.warnings, self._revision)

    def _conclude(self, result: Reload) -> Reload:
        """Keep the result, and tell the listeners unless it says nothing new."""
        before, self._status = self._status, result
        if result.changed and (result.ok or result.faults != before.faults):
            for listener in self._listeners:
                listener(result)
        return result


CONSEQUENCES = frozenset((UNKNOWN_DERIVED_ROLE, UNDEFINED_CONSTANT, UNDEFINED_VARIABLE))
"""What a policy misses that imports something which is not there: that is no news."""


class Loader:
    """Turns states of a store into rule tables; what has not changed is not read or compiled again."""

    def __init__(
        self,
        settings: Settings,
        *,
        cache: CacheSettings | str | os.PathLike[str] | None = None,
        processes: int | None = None,
    ) -> None:
        """*cache* and *processes* are as for :meth:`Engine.from_directory`."""
        self._compiler = Compiler(settings)
        if cache is not None and not isinstance(cache, CacheSettings):
            cache = CacheSettings(Path(cache))
        self._workshop = Workshop(settings, self._compiler.environment, cache, processes)
        self._contents: Patched[str, bytes] = Patched({})
        """What was read last."""
        self._files: Patched[str, _File] = Patched({})
        """What it came to."""
        self._faulty: set[str] = set()
        """The files that no policy can be read from."""
        self._built: tuple[Patched[str, _File], Mapping[str, bytes], RuleTable] | None = None

    def policies(self, snapshot: Snapshot) -> dict[str, Policy]:
        """Return the policies of a state by path, as they are written; what was read last is kept."""
        known = self._files
        files = (
            (path, self._file(path, content, known.get(path))) for path, content in snapshot.files.items()
        )
        return {path: file.policy for path, file in files if file.policy is not None}

    def table(self, snapshot: Snapshot) -> RuleTable:
        """Return the table for a state; the same object as before when no policy and no schema has changed.

        Raises:
            PolicyError: with every fault of every policy.

        """
        contents = snapshot.files
        if not isinstance(contents, Patched):
            contents = Patched(dict(contents))
        changed = self._changed(contents)
        with _collector_paused(), self._workshop.at_work(changed) as bench:
            self._read(contents, changed)
            return self._table(snapshot, bench)

    def _changed(self, contents: Patched[str, bytes]) -> Mapping[str, bytes]:
        """Return the files that were not there when files were last read, or were other objects."""
        paths = contents.differs(self._contents)
        if paths is None:
            before = self._contents
            paths = [path for path, content in contents.items() if before.get(path) is not content]
        return {path: contents[path] for path in paths}

    def _table(self, snapshot: Snapshot, bench: Bench | None) -> RuleTable:
        faults = (*snapshot.faults, *(fault for path in self._faulty for fault in self._files[path].faults))
        if not faults:
            like_before = self._table_like_before(snapshot)
            if like_before is not None:
                self._built = self._files, snapshot.schemas, like_before
                return like_before
        policies = [file.policy for file in self._files.values() if file.policy is not None]
        try:
            table = self._compiler.compile(policies, snapshot.schemas, bench)
        except PolicyError as error:
            importing = {fault.file for fault in error.faults if fault.kind == IMPORT_NOT_FOUND}
            faults += tuple(
                fault
                for fault in error.faults
                if not (fault.file in importing and fault.kind in CONSEQUENCES)
            )
        if faults:
            raise PolicyError(faults)
        self._built = self._files, snapshot.schemas, table
        return table

    def _table_like_before(self, snapshot: Snapshot) -> RuleTable | None:
        """Return the table when nothing is new but the contents of files, or nothing at all."""
        if self._built is None:
            return None
        before, schemas, table = self._built
        paths = self._files.differs(before)
        if paths is None or (schemas is not snapshot.schemas and schemas != snapshot.schemas):
            return None
        if not paths:
            return table
        replaced = [(before[path].policy, self._files[path].policy) for path in paths]
        policies = {old: new for old, new in replaced if old and new}
        return self._compiler.replaced(table, policies) if len(policies) == len(replaced) else None

    def _read(self, contents: Patched[str, bytes], changed: Mapping[str, bytes]) -> None:
        """Read what is new; a file whose content is the same keeps its policy."""
        known = self._files
        read = {path: self._file(path, content, known.get(path)) for path, content in changed.items()}
        if contents.is_alike(self._contents):
            self._files = known.patched(read)
        else:
            self._files = Patched({path: read.get(path) or known[path] for path in contents})
        self._contents = contents
        still = {path for path in self._faulty - read.keys() if path in contents}
        self._faulty = still | {path for path, file in read.items() if file.faults}

    def _file(self, path: str, content: bytes, before: _File | None) -> _File:
        if before is not None and before.content == content:
            return before
        try:
            return _File(content, self._workshop.policy(content, path))
        except PolicyError as error:
            return _File(content, None, error.faults)


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    content: bytes
    policy: Policy | None
    faults: tuple[Fault, ...] = ()


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from going through what is being made: many objects, and no garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _faults(error: PolicyError | StoreError) -> tuple[Fault, ...]:
    return error.faults if isinstance(error, PolicyError) else (Fault("", 0, 0, str(error)),)


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _decided(
    deciders: Deciders, question: CheckInput, now: Timestamp | None, evaluation: Evaluation | None
) -> Decision:
    """Decide by functions about each action, and where one of them has no answer, by the walk."""
    principal, resource, actions, aux_data, _ = question
    moment = Timestamp(time.time_ns()) if now is None else now
    decision = together(
        _settled(deciders, principal, resource, action, aux_data, moment) for action in actions
    )
    if decision is not None:
        return decision
    return decide(deciders.table, _plain(question), now=now, evaluation=evaluation)


def _settled(
    deciders: Deciders,
    principal: Principal,
    resource: Resource,
    action: str,
    aux_data: AuxData,
    now: Timestamp | None,
) -> Decision | None:
    """Return what a function of :mod:`engine.decider` says, ``None`` where the walk has to answer."""
    kind, _, resource_attr, version, scope = resource
    roles, principal_attr = principal.roles, principal.attr
    if not (
        type(principal_attr) is dict
        and type(roles) is tuple
        and type(resource_attr) is dict
        and (aux_data is NO_AUX_DATA or type(aux_data.jwt) is dict)
        and not (deciders.excepted and principal.id in deciders.excepted)
    ):
        return None
    key = (kind, version, scope, roles, action)
    function = deciders.functions.get(key)
    if function is None:
        deciders.count(key, principal)
        return None
    try:
        return function(principal, resource, principal_attr, resource_attr, aux_data, now)
    except Exception:  # whatever it is, the walk finds out what it means
        deciders.failed(key)
        return None


def _plain(question: CheckInput) -> CheckInput:
    """Return the question as expressions read it fast: attributes and claims dicts, roles a tuple."""
    principal, resource, aux_data = question.principal, question.resource, question.aux_data
    if (
        type(principal.attr) is dict
        and type(principal.roles) is tuple
        and type(resource.attr) is dict
        and (aux_data is NO_AUX_DATA or type(aux_data.jwt) is dict)
    ):
        return question
    return question._replace(
        principal=principal._replace(roles=tuple(principal.roles), attr=_dict(principal.attr)),
        resource=resource._replace(attr=_dict(resource.attr)),
        aux_data=aux_data._replace(jwt=_dict(aux_data.jwt), jwts=_dict(aux_data.jwts)),
    )


def _dict(attributes: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    if type(attributes) is dict:
        return attributes
    converted: Mapping[str, JsonValue] = json_value(attributes)
    return converted
