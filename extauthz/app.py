"""The parts, put together: from a configuration to a service that answers.

This is the one place that knows every part. What a configuration says becomes plain arguments here, so that
no part depends on how the file is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.engine import Engine
from engine.load import PolicyError
from engine.model import Effect, Principal
from engine.rules import Settings
from engine.storage import StoreError, Watchable, open_store
from engine.storage.polling import Looking
from extauthz.admin.calls import Admin
from extauthz.admin.credentials import Gate
from extauthz.answers import LABELS
from extauthz.authorizer import Authorizer, RecordSource, ResourceTemplate, Route
from extauthz.decision_ids import decision_ids
from extauthz.fetch import client
from extauthz.figures import (
    DECISIONS,
    ENTRIES,
    KEYS,
    KEYS_CONFIRMED,
    KEYS_FAILING,
    PDP_REQUESTS,
    POLICIES,
    POLICIES_CURRENT,
    POLLS,
    REFRESHED,
    RELOADS,
    SYNC_ERRORS,
)
from extauthz.identity import Identity, JwtIdentity, PrincipalSlots, TokenPlace, TokenRules
from extauthz.keysets import (
    FILE_INTERVAL,
    FileOrigin,
    InlineOrigin,
    KeyFormat,
    KeySet,
    KeySetError,
    KeySets,
    RemoteOrigin,
)
from extauthz.pdp import Pdp, RequestLimits
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.cors import ANY, DEFAULT_HEADERS, Cors
from extauthz.pdp.rest import Limits as BodyLimits
from extauthz.pdp.service import AdminService, PdpService
from extauthz.readiness import Component, Status
from extauthz.sources import HttpSource
from extauthz.templates import AllowTemplate, DenyTemplate, OwnedHeaders, ProblemTemplate
from extauthz.worker import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import httpx

    from engine.engine import Reload, Reloads
    from engine.storage import Store
    from extauthz import config
    from extauthz.figures import Figures
    from extauthz.keysets import KeySetStatus, Origin
    from extauthz.slots import Slot

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
"""Connections to sources and identity providers, for each worker."""
ROUTE_DECISION: Final[Mapping[str, Effect | None]] = {
    "policy": None,
    "allow": Effect.ALLOW,
    "deny": Effect.DENY,
}


class App:
    """A service that answers requests; :meth:`start` keeps its policies and keys fresh."""

    def __init__(
        self,
        authorizer: Authorizer,
        engine: Engine,
        watched: Watchable | None,
        key_sets: KeySets,
        http: httpx.AsyncClient,
        pdp: PdpService | None = None,
        admin: AdminParts | None = None,
        store: StoreFigures | None = None,
    ) -> None:
        """*watched* is the store of the engine's policies, None when its changes are not to be followed."""
        self._store = store
        self.authorizer = authorizer
        self.pdp = pdp
        self._engine = engine
        self._watched = watched
        self._key_sets = key_sets
        self._http = http
        self._admin = admin

    def share_reloads(self, tell: Callable[[], None]) -> None:
        """Call *tell* when the admin API has changed or reloaded policies: others beside us are to reload."""
        if self._admin is not None:
            self._admin.calls.share_reloads(tell)

    async def start(self) -> None:
        """Load the keys, and follow policies and keys. Missing keys do not stop it; readiness tells."""
        self._engine.listen(_log_reload)
        if self._watched is not None:
            self._watched.watch(self._reload)
        await self._key_sets.start()

    async def stop(self) -> None:
        """Let go of watches and connections."""
        if self._admin is not None:
            self._admin.close()
        await asyncio.gather(
            asyncio.to_thread(self._engine.close), self._key_sets.stop(), self._http.aclose()
        )

    async def reload(self) -> None:
        """Read the policies again, and say what came of it even if that is nothing new."""
        before = self._engine.status
        result = await asyncio.to_thread(self._reload)
        if not result.changed:
            log.info("policies were read again: nothing has changed")
        elif not result.ok and result.faults == before.faults:
            _log_reload(result)

    def _reload(self) -> Reload:
        with _short_turns():
            return self._engine.reload()

    def readiness(self) -> Status:
        """Tell whether there are policies and keys to decide by; what is old but in force is ready."""
        return Status(
            (_policies(self._engine.status, self._engine.notice), *map(_key_set, self._key_sets.status()))
        )

    def figures(self) -> Figures:
        """Tell what was counted since the start, and how things are now."""
        return {
            **_decisions(self.authorizer.answered),
            PDP_REQUESTS: {} if self.pdp is None else {**self.pdp.answered},
            **_policy_figures(self._engine),
            **({} if self._store is None else self._store.figures(self._engine.reloads)),
            **_key_figures(self._key_sets.status()),
        }


def build(settings: config.Config) -> App:
    """Put a service together. Its policies are loaded, nothing runs yet.

    Raises:
        engine.load.PolicyError: with every fault of every policy.
        engine.storage.StoreError: the policies cannot be read.
        extauthz.keysets.KeySetError: keys that stand in the configuration cannot be used.

    """
    http = client(MAX_CONNECTIONS)
    store = open_store(settings.storage.driver, settings.storage.options())
    engine = Engine.from_store(
        store,
        settings=engine_settings(settings.engine, settings.attribute_schemas),
        cache=settings.engine.cache.settings,
    )
    _log_warnings(engine.status)
    key_sets = {keys.id: _made_key_set(keys, http) for keys in settings.aux_data.jwt.key_sets}
    authorizer = _authorizer(settings, engine, key_sets, http)
    follows = settings.storage.chosen.follows
    watched = store if follows and isinstance(store, Watchable) else None
    admin = _admin(settings, engine, store)
    pdp = _service(settings, _pdp(settings, engine, key_sets) if settings.serves_pdp else None, admin)
    told = StoreFigures(settings.storage.driver, store)
    return App(authorizer, engine, watched, KeySets(key_sets.values()), http, pdp, admin, told)


def built(settings: config.Config) -> App:
    """Put a service together as :func:`build` does; what a person can mend is worded, not traced.

    Raises:
        extauthz.worker.StartError: with every fault.

    """
    try:
        return build(settings)
    except (PolicyError, StoreError, KeySetError) as error:
        raise StartError(str(error)) from error


# --- reloading --------------------------------------------------------------------------------------------


TURN: Final = 0.001
"""Seconds that a thread computes, while policies are read, before one that waits gets its turn."""
_USUAL_TURN: Final = sys.getswitchinterval()


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let answers not wait long for a thread that compiles policies.

    At other times turns are as long as Python has them: between threads that hand requests to each other
    short ones cost more than they give (5 % of processor time with grpcio, a third of the requests a second
    inside of Envoy).
    """
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_TURN)


# --- readiness --------------------------------------------------------------------------------------------


def _policies(reload: Reload, notice: str) -> Component:
    loaded = f"{reload.policies} {'policy' if reload.policies == 1 else 'policies'}"
    if reload.revision:
        loaded += f" of revision {reload.revision}"
    if reload.ok:
        detail = f"{loaded}; {notice}" if notice else loaded
        return Component("policies", ready=True, detail=detail)
    faults = "; ".join(map(str, reload.faults))
    return Component("policies", ready=True, detail=f"{loaded} of before are in force: {faults}")


def _key_set(status: KeySetStatus) -> Component:
    name = f"key set {status.id}"
    if status.keys and not status.error:
        return Component(name, ready=True)
    stale = "; the keys of before are in force" if status.keys else ""
    return Component(name, ready=bool(status.keys), detail=f"{status.error or 'not loaded yet'}{stale}")


def _log_reload(reload: Reload) -> None:
    if reload.ok:
        log.info(
            "policies changed: %d are in force",
            reload.policies,
            extra={"revision": reload.revision} if reload.revision else {},
        )
        _log_warnings(reload)
    else:
        log.error(
            "the new policies are not in force, those of before are:\n%s", "\n".join(map(str, reload.faults))
        )


def _log_warnings(reload: Reload) -> None:
    """Tell what looks like a mistake in the policies in force; they are used all the same."""
    for warning in reload.warnings:
        log.warning("%s", warning)


# --- metrics ----------------------------------------------------------------------------------------------


def _decisions(answered: Mapping[str, int]) -> Figures:
    # Those that never happened too: who computes rates misses the first of what begins with it.
    return {DECISIONS: {LABELS[code]: count for code, count in answered.items()}}


def _policy_figures(engine: Engine) -> Figures:
    status, reloads = engine.status, engine.reloads
    return {
        POLICIES: {(status.revision,): status.policies},
        POLICIES_CURRENT: {(): float(status.ok)},
        ENTRIES: {(): status.policies},
        RELOADS: {("ok",): reloads.ok, ("failed",): reloads.failed},
    }


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """What is told of a store: by its own account where it keeps one, else by what the engine has seen."""

    driver: str
    store: Store

    def figures(self, reloads: Reloads) -> Figures:
        """Tell how often the store was asked, and when it last answered."""
        if isinstance(self.store, Looking):
            looks = self.store.looks
            made, failed, last = looks.made, looks.failed, looks.last_success
        else:
            made, failed, last = reloads.ok + reloads.failed, reloads.unreadable, reloads.last_read
        labels = (self.driver,)
        return {POLLS: {labels: made}, SYNC_ERRORS: {labels: failed}, REFRESHED: {labels: round(last * 1000)}}


def _key_figures(sets: Iterable[KeySetStatus]) -> Figures:
    told = list(sets)
    return {
        KEYS: {(each.id,): each.keys for each in told},
        KEYS_FAILING: {(each.id,): float(each.failing_since > 0) for each in told},
        KEYS_CONFIRMED: {(each.id,): round(each.loaded_at, 3) for each in told},
    }


# --- engine -----------------------------------------------------------------------------------------------


def engine_settings(engine: config.EngineSettings, schemas: config.Schema) -> Settings:
    """Return how the engine is to answer."""
    return Settings(
        evaluation=engine.mode,
        default_policy_version=engine.default_policy_version,
        default_scope=engine.default_scope,
        lenient_scope_search=engine.lenient_scope_search,
        globals=engine.globals,
        schema_enforcement=schemas.enforcement,
        runtime_action=engine.runtime_action,
    )


# --- the PDP API ------------------------------------------------------------------------------------------


def _pdp(settings: config.Config, engine: Engine, key_sets: Mapping[str, KeySet]) -> Pdp:
    jwt, limits = settings.aux_data.jwt, settings.server.request_limits
    reader = AuxDataReader(
        key_sets,
        leeway=jwt.acceptable_time_skew.total_seconds(),
        verify=not jwt.disable_verification,
    )
    return Pdp(
        engine,
        reader,
        decision_ids(),
        evaluation=settings.pdp_evaluation,
        limits=RequestLimits(limits.max_actions_per_resource, limits.max_resources_per_request),
    )


def _service(settings: config.Config, pdp: Pdp | None, admin: AdminParts | None) -> PdpService | None:
    """Put together what both ports serve beside Envoy's calls; None when that is nothing."""
    if pdp is None and admin is None:
        return None
    server = settings.server
    return PdpService(
        pdp,
        admin=None if admin is None else AdminService(admin.calls.answers(), admin.gate.admit),
        cors=_cors(server.cors),
        body_limits=BodyLimits(
            server.advanced.grpc.max_recv_msg_size_bytes, server.advanced.http.read_timeout.total_seconds()
        ),
        explorer=server.api_explorer_enabled,
        explain=settings.pdp.explain,
        log_payloads=server.log_request_payloads,
    )


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the admin API consists of: its calls, and who lets callers pass."""

    calls: Admin
    gate: Gate

    def close(self) -> None:
        """Let go of their threads."""
        self.calls.close()
        self.gate.close()


def _admin(settings: config.Config, engine: Engine, store: Store) -> AdminParts | None:
    given = settings.server.admin_api
    credentials = given.credentials
    if credentials is None:
        return None
    calls = Admin(engine, store, settings.storage.driver, accept_incomplete=given.accept_incomplete)
    return AdminParts(calls, Gate(credentials))


def _cors(cors: config.Cors) -> Cors | None:
    if cors.disabled:
        return None
    return Cors(
        cors.allowed_origins or (ANY,),
        cors.allowed_headers or DEFAULT_HEADERS,
        round(cors.max_age.total_seconds()),
    )


# --- identity ---------------------------------------------------------------------------------------------


def _made_key_set(keys: config.KeySet, http: httpx.AsyncClient) -> KeySet:
    remote, local = keys.remote, keys.local
    form = KeyFormat(
        pem=local is not None and local.pem,
        optional_alg=keys.insecure.optional_alg,
        optional_kid=keys.insecure.optional_kid,
        secrets=remote is None,
    )
    if remote is None:
        return KeySet(keys.id, _local_origin(local), form=form, refresh_interval=FILE_INTERVAL)
    origin = RemoteOrigin(
        http, remote.url, timeout=remote.timeout.total_seconds(), max_bytes=remote.max_bytes
    )
    return KeySet(
        keys.id,
        origin,
        form=form,
        refresh_interval=remote.refresh_interval.total_seconds(),
        cooldown=remote.cooldown.total_seconds(),
        serve_stale=remote.stale_for.total_seconds(),
    )


def _local_origin(local: config.LocalKeys | None) -> Origin:
    if local is not None and local.file is not None:
        return FileOrigin(local.file)
    return InlineOrigin("" if local is None or local.data is None else local.data)


def _jwt_identity(
    settings: config.Config, identity: config.Identity, key_sets: Mapping[str, KeySet]
) -> JwtIdentity:
    jwt, principal = identity.jwt, identity.principal
    rules = TokenRules(
        issuers=jwt.issuer,
        audiences=jwt.audiences,
        algorithms=frozenset(jwt.algorithms),
        leeway=settings.leeway(identity).total_seconds(),
        max_bytes=jwt.max_token_bytes,
        required_claims=jwt.required_claims,
    )
    slots = PrincipalSlots(
        principal.id, principal.roles, principal.attr, principal.policy_version, principal.scope
    )
    return JwtIdentity(
        key_sets[jwt.key_set_id], rules, slots, places=[_token_place(each) for each in jwt.sources]
    )


def _token_place(place: config.TokenFrom) -> TokenPlace:
    if place.cookie is not None:
        return TokenPlace(cookie=place.cookie)
    return TokenPlace(header=place.header or "authorization", scheme=place.prefix)


class _Identities:
    """One :class:`Identity` for each set of entries that routes accept, shared with all it remembers."""

    def __init__(self, settings: config.Config, key_sets: Mapping[str, KeySet], anonymous: Principal) -> None:
        self._realm = settings.ext_authz.responses.realm
        self._entries = {
            each.name: _jwt_identity(settings, each, key_sets) for each in settings.ext_authz.identity
        }
        self._anonymous = anonymous
        self._made: dict[tuple[str, ...], Identity] = {}

    def accepting(self, names: tuple[str, ...]) -> Identity:
        """Return what tells who asks by the entries *names*."""
        if names not in self._made:
            entries = [self._entries[name] for name in names]
            self._made[names] = Identity(entries, anonymous=self._anonymous, realm=self._realm)
        return self._made[names]


# --- routes -----------------------------------------------------------------------------------------------


def _authorizer(
    settings: config.Config, engine: Engine, key_sets: Mapping[str, KeySet], http: httpx.AsyncClient
) -> Authorizer:
    ours = settings.ext_authz
    anonymous = Principal(ours.anonymous.id, ours.anonymous.roles, {})
    identities = _Identities(settings, key_sets, anonymous)
    sources = {name: _source(name, source, http) for name, source in ours.sources.items()}
    return Authorizer(
        _routes(ours, identities, sources),
        engine,
        decision_ids(),
        anonymous=anonymous,
        deny=_deny(ours.responses.deny, ours),
        limits=ours.limits.request,
        retry_after=max(1, round(ours.responses.retry_after.total_seconds())),
        unknown_route=ours.responses.unknown_route,
    )


def _routes(
    ours: config.ExtAuthz, identities: _Identities, sources: Mapping[str, RecordSource]
) -> Iterator[Route]:
    owned = OwnedHeaders(ours.owned)
    for route in ours.routes:
        accepted = tuple(each.name for each in ours.identities(route))
        yield Route(
            name=route.name,
            pattern=route.pattern,
            action_of=route.action_of,
            allow=_allow(route.allow, owned),
            deny=_deny(ours.responses.deny if route.deny is None else route.deny, ours),
            relaxed=route.relaxed,
            decision=ROUTE_DECISION[route.decision],
            identity=identities.accepting(accepted) if accepted else None,
            anonymous_allowed=route.anonymous == "allow",
            resource=None if route.resource is None else _resource(route.resource, sources),
            max_body_bytes=ours.limits.max_body_bytes
            if route.body.max_bytes is None
            else route.body.max_bytes,
        )


def _allow(block: config.AllowBlock, owned: OwnedHeaders) -> AllowTemplate:
    return AllowTemplate(
        owned=owned,
        headers=tuple(block.headers.items()),
        response_headers=tuple(block.response_headers.items()),
        remove_headers=block.remove_headers,
        set_query=tuple(block.query.set_.items()),
        remove_query=block.query.remove,
    )


def _deny(block: config.DenyBlock, ours: config.ExtAuthz) -> DenyTemplate:
    problem = block.problem
    members = () if problem is None else (*_standard_members(problem), *problem.members.items())
    return DenyTemplate(
        status=block.status,
        headers=tuple(block.headers.items()),
        body=block.body,
        problem=ProblemTemplate(ours.responses.problem_type_prefix, members),
    )


def _standard_members(problem: config.Problem) -> tuple[tuple[str, Slot], ...]:
    named = (
        ("type", problem.type),
        ("title", problem.title),
        ("detail", problem.detail),
        ("instance", problem.instance),
    )
    return tuple((name, slot) for name, slot in named if slot is not None)


def _resource(resource: config.ResourceSlots, sources: Mapping[str, RecordSource]) -> ResourceTemplate:
    return ResourceTemplate(
        kind=resource.kind,
        id=resource.id,
        policy_version=resource.policy_version,
        scope=resource.scope,
        attr=resource.attr.slots,
        sources=tuple(sources[name] for name in resource.attr.sources),
    )


def _source(name: str, source: config.Source, http: httpx.AsyncClient) -> RecordSource:
    settings = source.http
    cache = settings.cache
    made = HttpSource(
        name,
        settings.url,
        http,
        headers=settings.headers,
        timeout=settings.timeout.total_seconds(),
        ttl=0.0 if cache is None else cache.ttl.total_seconds(),
        max_records=1 if cache is None else cache.max,
        max_bytes=settings.max_bytes,
    )
    return RecordSource(made, empty_when_absent=settings.not_found == "empty")
