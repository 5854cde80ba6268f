"""The way of a request: from the bytes of a CheckRequest to the bytes of a CheckResponse.

:meth:`Authorizer.check` is the whole service; transports only carry bytes. It runs straight through without
waiting, which is what nearly every request does. Where something has to be fetched first (a key, a record)
the attempt ends, the fetch is awaited, and the request is attempted again: so there is one path to reason
about, and it is the same one for every request.

Nothing but an ALLOW of the engine, or a route that says ``allow``, ends in an :class:`Allow`. Every exception
has its row in a table below; one that has none is a bug of ours, and a :class:`Failure`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from engine.model import Effect, Principal, Resource
from extauthz import wire
from extauthz.answers import COUNTED, INTERNAL, OTHER
from extauthz.facts import DecisionFacts, Facts
from extauthz.identity import Identified, KeySetUnavailable, KeysWanted, Unauthenticated
from extauthz.reasons import Reason, reason
from extauthz.request import LIMITS, RELAXABLE, HttpRequest, Limits
from extauthz.response import DecisionMetadata, Deny, Failure, Header
from extauthz.routes import MethodNotAllowed, NotFound, RouteTable
from extauthz.short_way import Deciding, short_way
from extauthz.slots import AttributeTemplate, SlotError
from extauthz.sources import SourceNotFound, SourceUnavailable, SourceWanted
from extauthz.templates import PROBLEM_TYPE, AllowTemplate, AmbiguousQuery, DenyTemplate, named_outputs

if TYPE_CHECKING:
    from engine.model import AuxData, Decision, EvaluationError, JsonValue
    from extauthz.routes import Pattern
    from extauthz.short_way import ShortWay
    from extauthz.slots import Slot

log = logging.getLogger(__name__)

Record = Mapping[str, "JsonValue"]

NO_RECORD: Final[Record] = MappingProxyType({})
ALLOWED: Final = Effect.ALLOW.value
DENIED: Final = Effect.DENY.value
_new = tuple.__new__
"""Makes a named tuple in a third of the time, where all its fields are at hand."""
UNREADABLE: Final = HttpRequest(method="", target="")
"""Stands for a request that could not be read."""

MAX_TOLD: Final = 1000
MAX_WAITS: Final = 16
"""Fetches for one request: some keys, and each source of its route. More would be going in circles."""


# --- what it is made of -----------------------------------------------------------------------------------


class IdentifiesPrincipals(Protocol):
    """Tells who asks; see :class:`extauthz.identity.Identity`."""

    @property
    def only_header(self) -> str | None:
        """The one header that tells who asks, if there is just one."""

    def known(self, text: str) -> Identified | None:
        """Tell who asks by the value of that header, if it was seen before."""

    def identify(self, facts: Facts, anonymous_allowed: bool = False) -> Identified:
        """Return who asks and set ``facts.claims``."""


class ReadsRecords(Protocol):
    """Reads attributes from elsewhere; see :class:`extauthz.sources.HttpSource`."""

    name: str

    def get(self, facts: Facts) -> Record:
        """Return the record, or raise what :class:`extauthz.sources.HttpSource` raises."""


class DecidesActions(Protocol):
    """The policy engine."""

    def check_action(
        self, principal: Principal, resource: Resource, action: str, aux_data: AuxData, request_id: str, /
    ) -> Decision:
        """Decide."""

    def check_usual(
        self, principal: Principal, resource: Resource, action: str, aux_data: AuxData, /
    ) -> Decision | None:
        """Decide what can be decided at once; may raise anything."""


@dataclass(frozen=True, slots=True)
class RecordSource:
    """A source as a route uses it; *empty_when_absent*: a record that is not there counts as an empty one."""

    source: ReadsRecords
    empty_when_absent: bool = False


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """How the resource of a route is made of the facts: records first, then slots over them."""

    kind: Slot
    id: Slot
    policy_version: Slot
    scope: Slot
    attr: Mapping[str, Slot]
    sources: tuple[RecordSource, ...] = ()
    _attr: AttributeTemplate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_attr", AttributeTemplate(self.attr))

    def fill(self, facts: Facts, records: Iterable[Record]) -> Resource:
        """Make the resource; raises :class:`extauthz.slots.SlotError`."""
        kind, version, scope = self.kind, self.policy_version, self.scope
        parts = (
            kind.constant or kind.function(facts),
            self.id.function(facts),
            self._attr.fill(facts, records),
            "" if version.constant == "" else version.function(facts),
            "" if scope.constant == "" else scope.function(facts),
        )
        return _new(Resource, parts)


@dataclass(frozen=True, slots=True)
class Route:
    """A route, ready for requests."""

    name: str
    pattern: Pattern
    action_of: Callable[[str], Slot]
    """The action that a method stands for; asked only where the policies decide."""
    allow: AllowTemplate
    deny: DenyTemplate
    relaxed: frozenset[str] = frozenset()
    decision: Effect | None = None
    """What the route itself says; None: the policies decide."""
    identity: IdentifiesPrincipals | None = None
    """None: everybody is the anonymous principal."""
    anonymous_allowed: bool = False
    resource: ResourceTemplate | None = None
    max_body_bytes: int = 64 * 1024


class _Prepared:
    """A route, and the function that usually answers for it: made when the first request comes."""

    __slots__ = ("_deciding", "pattern", "route", "short_way")

    short_way: ShortWay

    def __init__(self, route: Route, deciding: Deciding) -> None:
        self.route = route
        self.pattern = route.pattern
        self._deciding = deciding
        self.short_way = self._first if route.decision is None else _no_short_way

    def _first(self, request: HttpRequest, captured: str, decision_id: str) -> bytes | None:
        self.short_way = short_way(self.route, self._deciding) or _no_short_way
        return self.short_way(request, captured, decision_id)


def _no_short_way(request: HttpRequest, captured: str, decision_id: str) -> None:
    del request, captured, decision_id


class Refused(Exception):  # noqa: N818  # the state, not a mistake
    """The request is turned away before a policy is asked; *headers* are those that the protocol wants."""

    def __init__(self, code: str, headers: tuple[Header, ...] = ()) -> None:
        self.reason = code
        self.headers = headers
        super().__init__(code)


class ResponseFailed(Exception):  # noqa: N818  # the state
    """A policy allows, but what the route adds to the request could not be worked out: so it cannot go on."""


class RecordWanted(Exception):  # noqa: N818  # a request to the caller, not an error
    """The record of *source* has to be fetched."""

    def __init__(self, source: RecordSource, fetch: Callable[[], Awaitable[Record]]) -> None:
        self.source = source
        self.fetch = fetch
        super().__init__(source.source.name)


class Exchange:
    """One request on its way, and what was fetched for it so far."""

    __slots__ = ("facts", "id", "records", "route")

    def __init__(self, decision_id: str, facts: Facts, route: Route | None = None) -> None:
        self.id = decision_id
        self.facts = facts
        self.route = route
        self.records: dict[str, Record] = {}
        """Fetched, by source."""

    def metadata(self, code: str) -> DecisionMetadata:
        """Return what goes into the dynamic metadata, and so into the gateway's access log."""
        facts = self.facts
        return _new(DecisionMetadata, (self.id, facts.route.name, facts.action, code, facts.decision.policy))

    def conclude(self, code: str) -> None:
        """Tell the slots of a refusal what came of the request; what policies decided is there already."""
        facts = self.facts
        facts.reason = code
        if not facts.decision.id:
            facts.decision = DecisionFacts(self.id)

    def record(self, wanted: RecordSource) -> Record:
        """Return a record; raises :class:`RecordWanted` when it has to be fetched first."""
        known = self.records.get(wanted.source.name)
        if known is not None:
            return known
        try:
            return wanted.source.get(self.facts)
        except SourceWanted as needed:
            raise RecordWanted(wanted, needed.fetch) from None
        except SourceNotFound:
            if wanted.empty_when_absent:
                return NO_RECORD
            raise

    async def fetch(self, wanted: KeysWanted | RecordWanted) -> None:
        """Fetch what is wanted, and keep a record for the next attempt even where no cache does."""
        if isinstance(wanted, KeysWanted):
            await wanted.fetch()
            return
        try:
            record = await wanted.fetch()
        except SourceNotFound:
            if not wanted.source.empty_when_absent:
                raise
            record = NO_RECORD
        self.records[wanted.source.source.name] = record


# --- the authorizer ---------------------------------------------------------------------------------------


class Authorizer:
    """Answers CheckRequests, one after the other, whichever thread asks. One for each worker.

    Only what has to be fetched is awaited by several at a time, on one event loop.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        engine: DecidesActions,
        next_id: Callable[[], str],
        *,
        anonymous: Principal,
        deny: DenyTemplate,
        limits: Limits = LIMITS,
        retry_after: int = 1,
        unknown_route: int = 404,
    ) -> None:
        """*deny* is for requests without a route, *retry_after* in seconds, *unknown_route* a status."""
        self.answered = dict.fromkeys(COUNTED, 0)
        """Answers given, by the code of their reason. INVARIANT (the codes are those of :data:`COUNTED`)."""
        self._anonymous = Identified(anonymous, anonymous=True)
        deciding = Deciding(engine.check_usual, self._anonymous, self._decided, self.answered)
        table = RouteTable(_Prepared(route, deciding) for route in routes)
        self._match = table.match
        self._usual = table.usual
        self._decide = engine.check_action
        self._next_id = next_id
        self._deny = deny
        self._limits = limits
        self._retry_after = Header("retry-after", str(retry_after))
        self._reasons = {"route.not_found": replace(reason("route.not_found"), status=unknown_route)}
        self._told: set[tuple[str, str]] = set()
        self._turn = threading.Lock()
        """Held while a request is attempted: what is remembered and counted has one thread at a time."""

    def check(self, data: bytes) -> bytes | Awaitable[bytes]:
        """Answer the serialized CheckRequest *data* with a serialized CheckResponse.

        Returns the bytes, or something to await for them when a fetch has to be waited for. Never raises.
        """
        with self._turn:
            decision_id = self._next_id()
            try:
                request = wire.decode(data, self._limits)
            except Exception as error:
                return self._refused(Exchange(decision_id, Facts(UNREADABLE)), error)
            answer = self._short_answer(request, decision_id)
            if answer is not None:
                return answer
            exchange = Exchange(decision_id, Facts(request))
            try:
                return self._answer(exchange)
            except (KeysWanted, RecordWanted) as wanted:
                return self._check_later(exchange, wanted)
            except Exception as error:
                return self._refused(exchange, error)

    async def _check_later(self, exchange: Exchange, wanted: KeysWanted | RecordWanted) -> bytes:
        """Fetch what is wanted and attempt the request again, until nothing is wanted any more."""
        try:
            for _ in range(MAX_WAITS):
                await exchange.fetch(wanted)
                with self._turn:
                    try:
                        return self._answer(exchange)
                    except (KeysWanted, RecordWanted) as another:
                        wanted = another
            raise RuntimeError(f"still wanting after {MAX_WAITS} fetches: {wanted!r}")
        except Exception as error:
            with self._turn:
                return self._refused(exchange, error)

    def _short_answer(self, request: HttpRequest, decision_id: str) -> bytes | None:
        """Answer by the short way of the request's route; None: the steps have to be taken."""
        if request.faults or request.path_faults:
            return None
        found = self._usual(request.host, request.segments, request.method)
        if found is None:
            return None
        try:
            return found[0].short_way(request, found[1], decision_id)
        except Exception:  # whatever it is, the steps find out what it means
            return None

    def _decided(self, facts: Facts, route: Route, decision_id: str, decision: Decision) -> bytes:
        """Answer for what a short way has brought to a decision."""
        return self._by_policy(Exchange(decision_id, facts, route), route, decision)

    def _answer(self, exchange: Exchange) -> bytes:
        facts = exchange.facts
        route = exchange.route = self._route(facts)
        if route.decision is not None:
            return self._by_route(exchange, route, route.decision)
        identified = self._identified(route, facts)
        facts.principal = identified.principal
        action = route.action_of(facts.request.method)
        facts.action = action.constant or action.function(facts)
        facts.resource = _resource(route, exchange)
        decision = self._decide(
            facts.principal, facts.resource, facts.action, identified.aux_data, facts.request.id
        )
        return self._by_policy(exchange, route, decision)

    # --- the steps

    def _route(self, facts: Facts) -> Route:
        """Find the route. A fault of the path that no route may relax comes before everything else."""
        request = facts.request
        if request.faults:
            raise Refused(request.faults[0])
        faults = request.path_faults
        if faults and not RELAXABLE.issuperset(faults):
            raise Refused(next(fault for fault in faults if fault not in RELAXABLE))
        match = self._match(request)
        if isinstance(match, (NotFound, MethodNotAllowed)):
            raise Refused(faults[0]) if faults else _unmatched(match)
        route = match.route.route
        if faults and not route.relaxed.issuperset(faults):
            raise Refused(next(fault for fault in faults if fault not in route.relaxed))
        facts.route, facts.path, facts.max_body_bytes = route, match.parameters, route.max_body_bytes
        return route

    def _identified(self, route: Route, facts: Facts) -> Identified:
        if route.identity is None:
            return self._anonymous
        return route.identity.identify(facts, route.anonymous_allowed)

    def _by_route(self, exchange: Exchange, route: Route, effect: Effect) -> bytes:
        """Answer for a route that decides by itself."""
        facts = exchange.facts
        facts.decision = DecisionFacts(exchange.id, effect.value)
        if effect is not Effect.ALLOW:
            return self._encoded(exchange, self._denied(exchange, reason("route.denied")))
        return self._allowed(exchange, route, "route.allowed")

    def _by_policy(self, exchange: Exchange, route: Route, decision: Decision) -> bytes:
        facts = exchange.facts
        effect, policy, scope, rule = decision.actions[facts.action]
        told = (exchange.id, ALLOWED if effect is Effect.ALLOW else DENIED, policy, scope, rule)
        facts.decision = _new(DecisionFacts, told)
        if decision.outputs:
            facts.outputs = named_outputs(decision.outputs)
        if decision.evaluation_errors:
            self._tell(decision.evaluation_errors)
        if effect is Effect.ALLOW:
            return self._allowed(exchange, route, "policy.allowed")
        why = reason("policy.denied" if rule else "policy.no_match")
        return self._encoded(exchange, self._denied(exchange, why))

    def _allowed(self, exchange: Exchange, route: Route, code: str) -> bytes:
        """Write an allow; one that cannot be completed, or not be sent, is a failure."""
        facts = exchange.facts
        facts.reason = code
        try:
            written = route.allow.write(facts, exchange.metadata(code))
        except (SlotError, wire.UnsendableError) as error:
            raise ResponseFailed(f"route `{route.name}`: {error}") from error
        self.answered[code] += 1
        return written

    def _denied(
        self, exchange: Exchange, why: Reason, *, detail: str = "", headers: tuple[Header, ...] = ()
    ) -> Deny:
        exchange.conclude(why.code)
        template = self._deny if exchange.route is None else exchange.route.deny
        return template.fill(exchange.facts, why, exchange.metadata(why.code), detail=detail, headers=headers)

    # --- when something is not as it should be

    def _refused(self, exchange: Exchange, error: Exception) -> bytes:
        """Answer a request that *error* stopped. If that fails as well, the answer is a plain failure."""
        try:
            return self._encoded(exchange, self._refusal(exchange, error))
        except Exception:
            log.exception("a refusal failed")
            self.answered[INTERNAL] += 1
            return wire.FAILURE

    def _refusal(self, exchange: Exchange, error: Exception) -> Deny | Failure:
        """Turn what stopped a request into its answer: a denial, or a failure if the fault is ours."""
        explain = EXPLANATIONS.get(type(error), _explain_bug)
        code, detail, headers = explain(error)
        why = self._reasons.get(code) or reason(code)
        if why.status < 500:
            return self._denied(exchange, why, detail=detail, headers=headers)
        exchange.conclude(code)
        problem = self._deny.problem.fill(exchange.facts, why, why.status, detail)
        return Failure(why.status, (self._retry_after, PROBLEM_TYPE), problem, exchange.metadata(code))

    def _encoded(self, exchange: Exchange, answer: Deny | Failure) -> bytes:
        """Encode. What cannot be sent becomes a plain refusal."""
        try:
            written = wire.encode(answer)
        except wire.UnsendableError as error:
            log.error("decision %s is sent without its headers: %s", exchange.id, error)
            written = wire.encode(_undecorated(answer, exchange))
        code = exchange.facts.reason
        self.answered[code if code in COUNTED else OTHER] += 1
        return written

    def _tell(self, errors: Iterable[EvaluationError]) -> None:
        """Log each failing expression of the policies once, not once a request."""
        for error in errors:
            key = (error.place, error.message)
            if key in self._told:
                continue
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told.add(key)
            log.warning("%s: %s\n%s", error.place or error.expression, error.message, error.excerpt)


def _undecorated(answer: Deny | Failure, exchange: Exchange) -> Deny | Failure:
    """Return the same refusal with nothing in it that a policy, a configuration or a request has chosen."""
    metadata = {"decision_id": exchange.id, "reason": exchange.facts.reason}
    if isinstance(answer, Failure):
        return Failure(metadata=metadata)
    return Deny(answer.status if 400 <= answer.status < 600 else 403, answer.code, metadata=metadata)


def _unmatched(match: NotFound | MethodNotAllowed) -> Refused:
    if isinstance(match, MethodNotAllowed):
        return Refused("route.method", (Header("allow", ", ".join(match.allowed)),))
    return Refused("route.not_found")


def _resource(route: Route, exchange: Exchange) -> Resource:
    template = route.resource
    if template is None:
        raise LookupError(f"the route `{route.name}` has no resource")
    sources = template.sources
    return template.fill(exchange.facts, [exchange.record(each) for each in sources] if sources else ())


# --- explanations -----------------------------------------------------------------------------------------

Explanation = tuple[str, str, tuple[Header, ...]]
"""Reason code, a sentence for the client, headers that the protocol asks for."""


def _explain_unauthenticated(error: Unauthenticated) -> Explanation:
    log.info("%s: %s", error.reason, error.detail)
    return error.reason, error.description, (Header("www-authenticate", error.www_authenticate),)


def _explain_refused(error: Refused) -> Explanation:
    return error.reason, "", error.headers


def _explain_unreadable(error: wire.WireError) -> Explanation:
    log.warning("a CheckRequest could not be read: %s", error)
    return "request.malformed", "", ()


def _explain_slot(error: SlotError) -> Explanation:
    log.info("%s: %s", error.reason, error)
    return error.reason, "", ()


def _explain_source(error: SourceNotFound | SourceUnavailable) -> Explanation:
    level = logging.DEBUG if isinstance(error, SourceNotFound) else logging.WARNING
    log.log(level, "%s: %s", error.reason, error)
    return error.reason, "", ()


def _explain_keys(error: KeySetUnavailable) -> Explanation:
    log.warning("%s", error)
    return error.reason, "", ()


def _explain_response(error: ResponseFailed) -> Explanation:
    log.error("an allowed request cannot go on: %s", error)
    return "response.failed", "", ()


def _explain_query(error: AmbiguousQuery) -> Explanation:
    return error.reason, str(error), ()


def _explain_bug(error: Exception) -> Explanation:
    log.error("a check failed", exc_info=error)
    return INTERNAL, "", ()


EXPLANATIONS: Final[Mapping[type[Exception], Callable[[Any], Explanation]]] = {
    Refused: _explain_refused,
    wire.WireError: _explain_unreadable,
    Unauthenticated: _explain_unauthenticated,
    SlotError: _explain_slot,
    SourceNotFound: _explain_source,
    SourceUnavailable: _explain_source,
    KeySetUnavailable: _explain_keys,
    ResponseFailed: _explain_response,
    AmbiguousQuery: _explain_query,
}
