"""The calls of the admin API: a request's values in, an answer's values out, on top of engine and store.

Work that waits for a store or compiles policies is done in threads of the API's own, a few at a time.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from engine import policy_messages
from engine.inspection import inspect_policies
from engine.storage import (
    IntegrityError,
    Listing,
    PolicyFilter,
    RefusedError,
    Revisioned,
    StoreError,
    Writable,
)
from extauthz.admin.catalogue import catalogue
from extauthz.admin.changes import Changes
from extauthz.pdp import admin_messages as messages
from extauthz.pdp import admin_methods as methods
from extauthz.pdp.admin_messages import (
    BreaksScopeChain,
    DeletePolicyErrorDetails,
    DisablePolicyErrorDetails,
    InspectedAttribute,
    InspectedConstant,
    InspectedPolicy,
    InspectedRole,
    InspectedVariable,
    IntegrityErrors,
    RequiredByOtherPolicies,
)
from extauthz.pdp.errors import Code, PdpError, invalid
from extauthz.pdp.validation import check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.engine import Engine, Reload
    from engine.inspection import Inspection
    from engine.storage import Store
    from extauthz.admin import changes
    from extauthz.pdp.method import Answer, Caller, Method

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

THREADS: Final = 2
"""One may wait for a store while another answers."""
MAX_WAITING: Final = 32
"""Calls that may be under way at a time; everybody who may call is the same user."""
MAX_IDS: Final = 1000
"""Policies or schemas that one call may ask for."""
NOT_MUTABLE: Final = "Configured store is not mutable"


class Admin:
    """Answers the calls of the admin API about the store of an engine."""

    def __init__(self, engine: Engine, store: Store, driver: str, *, accept_incomplete: bool = False) -> None:
        """*driver* is the name of the store's kind, which the metadata of policies tell.

        *accept_incomplete*: policies may be put before others that they need.
        """
        self._engine = engine
        self._store = store
        self._catalogue = catalogue(engine, store, driver)
        self._changes: Changes | None = None
        if isinstance(store, Writable):
            writable = cast("changes.Store", store)  # a store that is writable as well
            self._changes = Changes(engine, writable, accept_incomplete=accept_incomplete)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="admin")
        self._waiting = 0
        self._reloading: asyncio.Task[Any] | None = None
        self._tell_others: Callable[[], None] = _nobody

    def answers(self) -> Mapping[Method, Answer]:
        """Tell for each method what answers it."""
        calls: Mapping[Method, Callable[[Any], Any]] = {
            methods.ADD_OR_UPDATE_POLICY: self._put_policies,
            methods.INSPECT_POLICIES: self._inspect_policies,
            methods.LIST_POLICIES: self._list_policies,
            methods.GET_POLICY: self._get_policies,
            methods.DELETE_POLICY: self._delete_policies,
            methods.DISABLE_POLICY: self._disable_policies,
            methods.ENABLE_POLICY: self._enable_policies,
            methods.ADD_OR_UPDATE_SCHEMA: self._put_schemas,
            methods.LIST_SCHEMAS: self._list_schemas,
            methods.GET_SCHEMA: self._get_schemas,
            methods.DELETE_SCHEMA: self._delete_schemas,
            methods.PURGE_STORE_REVISIONS: self._purge_revisions,
        }
        found = {method: self._in_thread(method, call) for method, call in calls.items()}
        return {**found, methods.RELOAD_STORE: self._reload}

    def share_reloads(self, tell: Callable[[], None]) -> None:
        """Call *tell* after each change and reload: other processes are to read the store too."""
        self._tell_others = tell

    def close(self) -> None:
        """Let go of the threads; a change under way is still made."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_thread(self, method: Method, call: Callable[[Any], Any]) -> Answer:
        """Make the answer of a call that may take its time: what is wrong with the store is told in words."""

        async def answer(request: Any, caller: Callable[[], Caller]) -> Any:
            check(request)
            answered = await self._apart(call, request)
            if method in CHANGING:
                self._tell_others()
                logger.info(
                    "admin: %s", method.name, extra={"peer": caller().peer, "changed": _named(request)}
                )
            return answered

        return answer

    async def _apart(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        if self._waiting >= MAX_WAITING:
            raise PdpError(Code.TOO_MANY, "too many calls at a time: try again later")
        self._waiting += 1
        work = functools.partial(function, *arguments, **options)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RefusedError as error:
            raise invalid(str(error)) from None
        except StoreError as error:
            logger.error("the store does not answer the admin API: %s", error)
            raise PdpError(Code.UNAVAILABLE, "the store cannot be reached") from None
        finally:
            self._waiting -= 1

    # -- reading -------------------------------------------------------------------------------------------

    def _list_policies(self, request: messages.ListPoliciesRequest) -> messages.ListPoliciesResponse:
        return messages.ListPoliciesResponse(tuple(self._catalogue.list_policies(_filter(request))))

    def _get_policies(self, request: messages.GetPolicyRequest) -> messages.GetPolicyResponse:
        _check_count(request.id)
        return messages.GetPolicyResponse(tuple(self._catalogue.get_policies(request.id)))

    def _inspect_policies(self, request: messages.InspectPoliciesRequest) -> messages.InspectPoliciesResponse:
        policies, chosen = self._catalogue.written(_filter(request))
        found = inspect_policies(policies).policies
        return messages.InspectPoliciesResponse(
            {key: _inspected(found[key]) for key in sorted(chosen) if key in found}
        )

    def _list_schemas(self, _: messages.ListSchemasRequest) -> messages.ListSchemasResponse:
        return messages.ListSchemasResponse(tuple(self._catalogue.list_schemas()))

    def _get_schemas(self, request: messages.GetSchemaRequest) -> messages.GetSchemaResponse:
        _check_count(request.id)
        found = self._catalogue.get_schemas(request.id)
        for each in request.id:
            if each not in found:
                raise PdpError(Code.NOT_FOUND, f"could not get the schema with id {each}")
        return messages.GetSchemaResponse(tuple(messages.Schema(each, found[each]) for each in request.id))

    # -- writing -------------------------------------------------------------------------------------------

    @property
    def _mutable(self) -> Changes:
        if self._changes is None:
            raise PdpError(Code.UNIMPLEMENTED, NOT_MUTABLE)
        return self._changes

    def _put_policies(self, request: messages.AddOrUpdatePolicyRequest) -> messages.AddOrUpdatePolicyResponse:
        self._mutable.put_policies([policy.definition for policy in request.policies])
        return messages.AddOrUpdatePolicyResponse(messages.Empty())

    def _delete_policies(self, request: messages.DeletePolicyRequest) -> messages.DeletePolicyResponse:
        try:
            return messages.DeletePolicyResponse(self._mutable.delete_policies(request.id))
        except IntegrityError as error:
            details = DeletePolicyErrorDetails(_integrity(error))
            raise invalid(f"Failed to delete policies: {error}", details) from None

    def _disable_policies(self, request: messages.DisablePolicyRequest) -> messages.DisablePolicyResponse:
        try:
            return messages.DisablePolicyResponse(self._mutable.disable_policies(request.id))
        except IntegrityError as error:
            details = DisablePolicyErrorDetails(_integrity(error))
            raise invalid(f"Failed to disable policies: {error}", details) from None

    def _enable_policies(self, request: messages.EnablePolicyRequest) -> messages.EnablePolicyResponse:
        _check_count(request.id)
        listing = self._store if isinstance(self._store, Listing) else None
        return messages.EnablePolicyResponse(self._mutable.enable_policies(request.id, listing))

    def _put_schemas(self, request: messages.AddOrUpdateSchemaRequest) -> messages.AddOrUpdateSchemaResponse:
        schemas = {schema.id: schema.definition for schema in request.schemas}
        if len(schemas) < len(request.schemas):
            raise invalid("Invalid schema in request: an id is there twice")
        self._mutable.put_schemas(schemas)
        return messages.AddOrUpdateSchemaResponse()

    def _delete_schemas(self, request: messages.DeleteSchemaRequest) -> messages.DeleteSchemaResponse:
        _check_count(request.id)
        return messages.DeleteSchemaResponse(self._mutable.delete_schemas(request.id))

    # -- the store -----------------------------------------------------------------------------------------

    async def _reload(
        self, request: messages.ReloadStoreRequest, caller: Callable[[], Caller]
    ) -> messages.ReloadStoreResponse:
        """Read the store again; one reading is under way at a time, and whoever waits gets its result."""
        check(request)
        logger.info("admin: ReloadStore", extra={"peer": caller().peer})
        self._tell_others()
        if request.wait:
            self._check_reload(await self._apart(self._engine.reload))
        elif self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_later())
        return messages.ReloadStoreResponse()

    async def _reload_later(self) -> None:
        try:
            self._check_reload(await self._apart(self._engine.reload))
        except PdpError as error:
            logger.error("%s", error)

    def _check_reload(self, result: Reload) -> None:
        if not result.ok:
            faults = "; ".join(str(fault) for fault in result.faults[:20])
            raise PdpError(Code.FAILED_PRECONDITION, f"failed to reload store: {faults}")

    def _purge_revisions(
        self, request: messages.PurgeStoreRevisionsRequest
    ) -> messages.PurgeStoreRevisionsResponse:
        if not isinstance(self._store, Revisioned):
            raise PdpError(Code.UNIMPLEMENTED, NOT_MUTABLE)
        return messages.PurgeStoreRevisionsResponse(self._store.purge_revisions(request.keep_last))


def _nobody() -> None:
    """Tell nobody: this process is alone."""


CHANGING: Final = frozenset(
    {
        methods.ADD_OR_UPDATE_POLICY,
        methods.DELETE_POLICY,
        methods.DISABLE_POLICY,
        methods.ENABLE_POLICY,
        methods.ADD_OR_UPDATE_SCHEMA,
        methods.DELETE_SCHEMA,
        methods.PURGE_STORE_REVISIONS,
    }
)
"""Calls that the log tells of, as they change what is decided."""


def _named(request: Any) -> list[str]:
    """Return the ids of what a request changes, or how many policies it puts."""
    match request:
        case messages.AddOrUpdatePolicyRequest():
            return [policy_key(policy) for policy in request.policies]
        case messages.AddOrUpdateSchemaRequest():
            return [schema.id for schema in request.schemas]
        case messages.PurgeStoreRevisionsRequest():
            return [f"all but {request.keep_last} revisions"]
        case _:
            return list(request.id)


def policy_key(policy: messages.Policy) -> str:
    """Return the key of a policy that was found right."""
    return policy_messages.coordinates(policy_messages.decode(policy.definition)).key


def _check_count(ids: tuple[str, ...]) -> None:
    if len(ids) > MAX_IDS:
        raise invalid(f"number of ids ({len(ids)}) exceeds limit ({MAX_IDS})")


def _filter(request: messages.ListPoliciesRequest | messages.InspectPoliciesRequest) -> PolicyFilter:
    return PolicyFilter(
        name=request.name_regexp,
        scope=request.scope_regexp,
        version=request.version_regexp,
        ids=request.policy_id,
        include_disabled=request.include_disabled,
    )


def _integrity(error: IntegrityError) -> dict[str, IntegrityErrors]:
    return {
        key: IntegrityErrors(
            BreaksScopeChain(tuple(error.descendants[key])) if key in error.descendants else None,
            RequiredByOtherPolicies(tuple(error.dependents[key])) if key in error.dependents else None,
        )
        for key in sorted({*error.descendants, *error.dependents})
    }


def _inspected(found: Inspection) -> InspectedPolicy:
    return InspectedPolicy(
        actions=found.actions,
        variables=tuple(
            InspectedVariable(each.name, str(each.value), each.kind, each.source, each.used)
            for each in found.variables
        ),
        policy_id=found.policy_id,
        derived_roles=tuple(InspectedRole(*each) for each in found.derived_roles),
        attributes=tuple(InspectedAttribute(*each) for each in found.attributes),
        constants=tuple(
            InspectedConstant(each.name, each.value, each.kind, each.source, each.used)
            for each in found.constants
        ),
    )
