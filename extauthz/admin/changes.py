"""Changes of a store that can be written: each is tried out before it is made.

A change is made only when what the store would hold then compiles as a whole: no change takes a set of
policies out of force, or leaves a store from which no process could start. Where the store holds something
broken already, a change may not add to it. Then the change is one transaction of the store, and in force in
this process when the call returns; other processes hear of it from the store.

Cerbos takes what lacks something, and so do clients that put a directory in several calls. Who has them can
allow that policies wait in the store for others that they need.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from engine import names, policy_messages
from engine import policy as written
from engine import storage as stores
from engine.compile import IMPORT_NOT_FOUND
from engine.library import MISSING_POLICY
from engine.load import PolicyError, load_policy
from engine.policy_messages import NotAPolicyError
from engine.storage import IntegrityError, RefusedError
from extauthz.admin.catalogue import PREFIX
from extauthz.pdp.errors import Code, PdpError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.document import Fault
    from engine.engine import Engine
    from engine.storage import Listing, Snapshot

logger = logging.getLogger(__name__)

_Done = TypeVar("_Done")

WAITING: Final = frozenset((IMPORT_NOT_FOUND, MISSING_POLICY))
"""What is no fault of a policy but the lack of another one."""
HINT: Final = "put what they need first, or in the same call"
MAX_FAULTS: Final = 20
"""More are not told."""


class Store(stores.Store, stores.Writable, Protocol):
    """A store that can be written."""


class Changes:
    """Makes changes, one at a time."""

    def __init__(self, engine: Engine, store: Store, *, accept_incomplete: bool = False) -> None:
        """*accept_incomplete*: policies may wait in the store for others that they need."""
        self._accept_incomplete = accept_incomplete
        self._engine = engine
        self._store = store
        self._turn = threading.Lock()

    def put_policies(self, definitions: Sequence[bytes]) -> None:
        """Add or replace policies; all or none.

        Raises:
            PdpError: one is wrong by itself or beside the others, or is there twice.
            StoreError: the store cannot be reached.

        """
        policies = _read(definitions)
        self._change(
            lambda before: dataclasses.replace(before, files=_with(before.files, policies)),
            lambda: self._store.put_policies(definitions),
            "the policies cannot be put",
            may_wait=self._accept_incomplete,
        )

    def delete_policies(self, ids: Sequence[str]) -> int:
        """Take policies away; return how many there were.

        Raises:
            IntegrityError: others need them.
            PdpError: the rest would not compile.
            StoreError: the store cannot be reached.

        """
        return self._change(
            lambda before: self._without(before, ids),
            lambda: self._store.delete_policies(ids),
            "the policies cannot be deleted",
        )

    def disable_policies(self, ids: Sequence[str]) -> int:
        """Take policies out of force; return how many there are. Raises what :meth:`delete_policies` does."""
        return self._change(
            lambda before: self._without(before, ids),
            lambda: self._store.disable_policies(ids),
            "the policies cannot be disabled",
        )

    def _without(self, before: Snapshot, ids: Sequence[str]) -> Snapshot:
        gone = frozenset(ids)
        _check_needs(self._engine.policies.values(), gone)
        files = {path: content for path, content in before.files.items() if path not in gone}
        return dataclasses.replace(before, files=files)

    def enable_policies(self, ids: Sequence[str], listing: Listing | None) -> int:
        """Put disabled policies in force; return how many there are.

        *listing* shows them. Raises what :meth:`put_policies` does.
        """

        def enabled(before: Snapshot) -> Snapshot:
            stored = () if listing is None else listing.get_policies(ids)
            policies = _read([_enabled(each.definition) for each in stored])
            return dataclasses.replace(before, files=_with(before.files, policies))

        return self._change(
            enabled, lambda: self._store.enable_policies(ids), "the policies cannot be enabled"
        )

    def put_schemas(self, schemas: Mapping[str, bytes]) -> None:
        """Add or replace JSON Schemas; all or none. Raises what :meth:`put_policies` does."""
        changed = {f"{PREFIX}{id_}": content for id_, content in schemas.items()}
        self._change(
            lambda before: dataclasses.replace(before, schemas={**before.schemas, **changed}),
            lambda: self._store.put_schemas(schemas),
            "the schemas cannot be put",
        )

    def delete_schemas(self, ids: Sequence[str]) -> int:
        """Take schemas away; return how many there were. Raises what :meth:`put_policies` does."""
        gone = {f"{PREFIX}{id_}" for id_ in ids}

        def without(before: Snapshot) -> Snapshot:
            kept = {path: content for path, content in before.schemas.items() if path not in gone}
            return dataclasses.replace(before, schemas=kept)

        return self._change(without, lambda: self._store.delete_schemas(ids), "the schemas cannot be deleted")

    # -- trying and making ---------------------------------------------------------------------------------

    def _change(
        self,
        changed: Callable[[Snapshot], Snapshot],
        make: Callable[[], _Done],
        refusal: str,
        *,
        may_wait: bool = False,
    ) -> _Done:
        """Try out what the store would hold, and if nothing new is wrong with it, make the change."""
        with self._turn:
            known: frozenset[Fault] = frozenset()
            try:
                before, known = self._present()
                faults = _new(self._engine.try_out(changed(before)), known, may_wait=may_wait)
                if faults:
                    hint = f" ({HINT})" if all(fault.kind in WAITING for fault in faults) else ""
                    raise invalid(f"{refusal}: {_told(faults)}{hint}")
                return self._made(make, known, may_wait=may_wait)
            finally:
                if known:  # what was read of a broken store may be newer than what the engine has seen
                    self._engine.reload()

    def _present(self) -> tuple[Snapshot, frozenset[Fault]]:
        """Return what the store holds now, which others may have changed, and what is wrong with that."""
        result = self._engine.reload()
        if result.ok:
            return self._engine.snapshot, frozenset()
        return self._store.read(), frozenset(result.faults)

    def _made(self, make: Callable[[], _Done], known: frozenset[Fault], *, may_wait: bool) -> _Done:
        """Make the change, and put it in force here."""
        try:
            done = make()
        except IntegrityError:
            raise
        except RefusedError as error:
            raise invalid(str(error)) from None
        found = self._engine.reload().faults
        faults = _new(found, known, may_wait=may_wait)
        if faults:  # somebody else has changed the store in the same moment
            told = f"the store has it, but it is not in force, as beside it there is: {_told(faults)}"
            raise PdpError(Code.FAILED_PRECONDITION, told)
        if found:
            logger.warning("not in force until the store is complete: %s", _told(found))
        return done


def _new(faults: Iterable[Fault], known: frozenset[Fault], *, may_wait: bool) -> list[Fault]:
    """Return the faults that were not there before; none that only wait for others, if they may."""
    return [fault for fault in faults if fault not in known and not (may_wait and fault.kind in WAITING)]


def _told(faults: Iterable[Fault]) -> str:
    """Say what is wrong, without lines: the text is ours, what was sent or stored was a message."""
    return _joined([_without_place(fault) for fault in faults])


def _joined(told: Sequence[str]) -> str:
    more = f"; and {len(told) - MAX_FAULTS} more" if len(told) > MAX_FAULTS else ""
    return "; ".join(told[:MAX_FAULTS]) + more


def _without_place(fault: Fault) -> str:
    return str(dataclasses.replace(fault, line=0, column=0))


# --- policies ---------------------------------------------------------------------------------------------


def _read(definitions: Sequence[bytes]) -> dict[str, bytes | None]:
    """Return the JSON text of policies by key, None for those that are disabled; each is right by itself.

    Raises:
        PdpError: with all that is wrong.

    """
    found: dict[str, bytes | None] = {}
    faults: list[str] = []
    for index, definition in enumerate(definitions):
        try:
            key, text = _text(definition, f"policies[{index}]")
        except NotAPolicyError as error:
            faults.append(f"policies[{index}]: {error}")
        except PolicyError as error:
            faults.extend(_without_place(fault) for fault in error.faults)
        else:
            if key in found:
                faults.append(f"policies[{index}]: more than one definition of `{key}`")
            found[key] = text
    if faults:
        raise invalid(f"Invalid policy: {_joined(faults)}")
    return found


def _text(definition: bytes, name: str) -> tuple[str, bytes | None]:
    message = policy_messages.decode(definition)
    disabled = message.disabled
    text = json.dumps(policy_messages.to_json(message)).encode()
    policy = load_policy(text, name)
    if policy is None:
        raise NotAPolicyError("there is nothing in it")
    return policy.key, None if disabled else text


def _with(files: Mapping[str, bytes], policies: Mapping[str, bytes | None]) -> Mapping[str, bytes]:
    kept = {path: content for path, content in files.items() if path not in policies}
    return kept | {key: text for key, text in policies.items() if text is not None}


def _enabled(definition: bytes) -> bytes:
    policy = policy_messages.decode(definition)
    policy.disabled = False
    return policy_messages.encode(policy)


# --- what policies need of each other ---------------------------------------------------------------------


def _check_needs(policies: Iterable[written.Policy], gone: frozenset[str]) -> None:
    """Refuse to take away what policies that stay need.

    Raises:
        IntegrityError: saying for each policy which others need it.

    """
    staying = [policy for policy in policies if policy.key not in gone]
    importing = _importing(staying)
    descendants = {key: sorted(each.key for each in staying if key in _above(each)) for key in gone}
    dependents = {key: sorted(_reached(key, importing)) for key in gone}
    if any(descendants.values()) or any(dependents.values()):
        raise IntegrityError(_filled(descendants), _filled(dependents))


def _filled(needs: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {key: needs[key] for key in sorted(needs) if needs[key]}


def _above(policy: written.Policy) -> frozenset[str]:
    """Return the keys of the policies in the scopes above; role policies need none there."""
    body = policy.body
    if isinstance(body, written.ResourcePolicy):
        return frozenset(
            names.resource_key(body.resource, body.version, scope)
            for scope in names.ancestors(names.scope_value(body.scope))
        )
    if isinstance(body, written.PrincipalPolicy):
        return frozenset(
            names.principal_key(body.principal, body.version, scope)
            for scope in names.ancestors(names.scope_value(body.scope))
        )
    return frozenset()


def _importing(policies: Iterable[written.Policy]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for policy in policies:
        for key in policy.imports:
            found.setdefault(key, set()).add(policy.key)
    return found


def _reached(key: str, importing: Mapping[str, set[str]]) -> set[str]:
    """Return what imports *key*, and what imports that."""
    found: set[str] = set()
    waiting = [key]
    while waiting:
        new = importing.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
