"""The calls of the PDP API: a request's values in, an answer's values out, on top of the engine.

How requests travel (REST, gRPC) is not known here. A call that has no answer raises
:class:`~extauthz.pdp.errors.PdpError`; nothing else leaves a call but what asyncio itself raises.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from engine import model
from engine.cel import Timestamp
from engine.explain import explain
from engine.load import PolicyError
from engine.plan import PlanInput
from extauthz.pdp import messages
from extauthz.pdp.apart import apart
from extauthz.pdp.errors import Code, PdpError, invalid
from extauthz.pdp.messages import (
    BatchEffects,
    CheckResourceBatchResponse,
    CheckResourceSetResponse,
    CheckResourcesResponse,
    EffectMeta,
    InstanceEffectMeta,
    InstanceEffects,
    InstanceMeta,
    OutputEntry,
    PlanMeta,
    PlanResourcesFilter,
    PlanResourcesResponse,
    ResourceSetMeta,
    ResultEntry,
    ResultMeta,
    ResultResource,
    ServerInfoResponse,
    ValidationError,
)
from extauthz.pdp.schema import ABSENT
from extauthz.pdp.validation import check
from extauthz.pdp.version import version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from engine import plan as planner
    from engine.engine import Engine
    from engine.explain.explanation import Explanation
    from engine.rules import RuleTable
    from extauthz.pdp.auxdata import AuxDataReader

logger = logging.getLogger(__name__)

MANY: Final = 500
"""Actions in one request from which on they are decided in a thread, so that others do not wait for them."""
MANY_VALUES: Final = 500
"""Values and roles in one request from which on it is decided in a thread: a condition may compare each value
with each, which takes the longer the more there are."""
LONG_TEXT: Final = 64
"""Characters of a text that count as one value."""
DECIDING: Final = 10.0
"""Seconds that the decisions of one request may take; what is under way then is still finished."""
CHECK_FAILED: Final = ("Check failed due to invalid policy", "Policy check failed")
PLAN_FAILED: Final = (
    "Resources query plan failed due to invalid policy",
    "Resources query plan request failed",
)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How much one request may ask (``server.requestLimits``)."""

    max_actions_per_resource: int = 50
    max_resources_per_request: int = 50

    def check_actions(self, count: int) -> None:
        """Refuse too many actions for one resource."""
        if count > self.max_actions_per_resource:
            limit = self.max_actions_per_resource
            raise invalid(f"number of actions ({count}) exceeds configured limit ({limit})")

    def check_resources(self, count: int) -> None:
        """Refuse too many resources."""
        if count > self.max_resources_per_request:
            limit = self.max_resources_per_request
            raise invalid(f"number of resources in batch ({count}) exceeds configured limit ({limit})")


class Pdp:
    """Answers the calls of the PDP API."""

    def __init__(
        self,
        engine: Engine,
        aux_data: AuxDataReader,
        new_call_id: Callable[[], str],
        *,
        evaluation: model.Evaluation = "lenient",
        limits: RequestLimits | None = None,
        server: ServerInfoResponse | None = None,
    ) -> None:
        """Take what the calls need.

        *evaluation* says what a failing condition means; *server* is what ServerInfo answers.
        """
        self.limits = limits or RequestLimits()
        self.new_call_id = new_call_id
        self._engine = engine
        self._aux_data = aux_data
        self._evaluation: model.Evaluation = evaluation
        self._server = server or ServerInfoResponse(version())

    # -- the calls -----------------------------------------------------------------------------------------

    async def check_resources(self, request: messages.CheckResourcesRequest) -> CheckResourcesResponse:
        """Decide each action on each resource."""
        decisions = await self.decided(await self.questions(request))
        results = tuple(
            result(_there(entry.resource), decision, include_meta=request.include_meta)
            for entry, decision in zip(request.resources, decisions, strict=True)
        )
        return CheckResourcesResponse(request.request_id, results, self.new_call_id())

    async def check_resource_set(self, request: messages.CheckResourceSetRequest) -> CheckResourceSetResponse:
        """Decide each action on each instance (deprecated by Cerbos)."""
        check(request)
        wanted = _there(request.resource)
        self.limits.check_resources(len(wanted.instances))
        self.limits.check_actions(len(request.actions))
        resources = [
            (
                model.Resource(wanted.kind, name, _plain(instance.attr), wanted.policy_version, wanted.scope),
                request.actions,
            )
            for name, instance in wanted.instances.items()
        ]
        decisions = await self._decisions(request.request_id, request.principal, resources, request.aux_data)
        answered = dict(zip(wanted.instances, decisions, strict=True))
        return CheckResourceSetResponse(
            request.request_id,
            {name: _instance_effects(decision) for name, decision in answered.items()},
            ResourceSetMeta({name: _instance_meta(decision) for name, decision in answered.items()})
            if request.include_meta
            else None,
        )

    async def check_resource_batch(
        self, request: messages.CheckResourceBatchRequest
    ) -> CheckResourceBatchResponse:
        """Decide each action on each resource (deprecated by Cerbos)."""
        check(request)
        self.limits.check_resources(len(request.resources))
        for entry in request.resources:
            self.limits.check_actions(len(entry.actions))
        resources = [(_resource(entry.resource), entry.actions) for entry in request.resources]
        decisions = await self._decisions(request.request_id, request.principal, resources, request.aux_data)
        results = tuple(
            BatchEffects(resource.id, _effects(decision), _validation_errors(decision.validation_errors))
            for (resource, _), decision in zip(resources, decisions, strict=True)
        )
        return CheckResourceBatchResponse(request.request_id, results)

    async def plan_resources(self, request: messages.PlanResourcesRequest) -> PlanResourcesResponse:
        """Make the filter for the resources to which the principal may do the actions."""
        check(request)
        actions = request.actions or (request.action,)
        self.limits.check_actions(len(actions))
        resource = _there(request.resource)
        question = PlanInput(
            _principal(_there(request.principal)),
            model.Resource(resource.kind, "", _plain(resource.attr), resource.policy_version, resource.scope),
            actions,
            await self.facts(request.aux_data),
            request.request_id,
        )
        with _failures(*PLAN_FAILED):
            plan = await self._planned(question)
            return _plan_response(request, plan, self.new_call_id())

    async def server_info(self, request: messages.ServerInfoRequest) -> ServerInfoResponse:
        """Tell which server this is."""
        check(request)
        return self._server

    # -- the engine ----------------------------------------------------------------------------------------

    async def questions(self, request: messages.CheckResourcesRequest) -> list[model.CheckInput]:
        """Return what a request asks of the engine, resource by resource, if it keeps rules and limits."""
        check(request)
        self.limits.check_resources(len(request.resources))
        for entry in request.resources:
            self.limits.check_actions(len(entry.actions))
        resources = [(_resource(entry.resource), entry.actions) for entry in request.resources]
        return await self._questions(request.request_id, request.principal, resources, request.aux_data)

    async def _questions(
        self,
        request_id: str,
        principal: messages.Principal | None,
        resources: Sequence[tuple[model.Resource, tuple[str, ...]]],
        aux_data: messages.AuxData | None,
    ) -> list[model.CheckInput]:
        facts = await self.facts(aux_data)
        who = _principal(_there(principal))
        return [
            model.CheckInput(who, resource, actions, facts, request_id) for resource, actions in resources
        ]

    async def _decisions(
        self,
        request_id: str,
        principal: messages.Principal | None,
        resources: Sequence[tuple[model.Resource, tuple[str, ...]]],
        aux_data: messages.AuxData | None,
    ) -> list[model.Decision]:
        return await self.decided(await self._questions(request_id, principal, resources, aux_data))

    async def decided(self, questions: Sequence[model.CheckInput]) -> list[model.Decision]:
        """Ask the engine, in a thread when that may take long."""
        if _is_much(questions):
            return await apart(self.decide, questions)
        return self.decide(questions)

    async def _planned(self, question: PlanInput) -> planner.Plan:
        if _is_much([question]):
            return await apart(self._plan, question)
        return self._plan(question)

    def _plan(self, question: PlanInput) -> planner.Plan:
        return self._engine.plan(question, evaluation=self._evaluation)

    async def facts(self, aux_data: messages.AuxData | None) -> model.AuxData:
        """Verify the tokens of a request and return what they say."""
        return await self._aux_data.read(aux_data)

    def decide(self, questions: Sequence[model.CheckInput]) -> list[model.Decision]:
        """Ask the engine; all questions see the same moment."""
        with _failures(*CHECK_FAILED):
            now = Timestamp(time.time_ns())
            return self._engine.check_many(_in_time(questions), now=now, evaluation=self._evaluation)

    @property
    def table(self) -> RuleTable:
        """The policies in force."""
        return self._engine.table

    def explain(self, table: RuleTable, questions: Sequence[model.CheckInput]) -> list[Explanation]:
        """Explain what :meth:`decide` decides by *table*; all questions see the same moment."""
        with _failures(*CHECK_FAILED):
            now = Timestamp(time.time_ns())
            return [explain(table, each, now=now, evaluation=self._evaluation) for each in questions]


@contextlib.contextmanager
def _failures(invalid_policy: str, failed: str) -> Iterator[None]:
    """Turn what goes wrong in the engine into what Cerbos says then; the cause is for our log alone."""
    try:
        yield
    except PdpError:
        raise
    except PolicyError:
        logger.exception("a call met a policy that cannot be used")
        raise PdpError(Code.FAILED_PRECONDITION, invalid_policy) from None
    except Exception:
        logger.exception("a call failed")
        raise PdpError(Code.INTERNAL, failed) from None


# --- how much a request asks ------------------------------------------------------------------------------


def _is_much(questions: Sequence[model.CheckInput | PlanInput]) -> bool:
    """Tell whether answering may take long; looks at no more of the request than it takes to know."""
    if sum(len(question.actions) for question in questions) > MANY:
        return True
    who = {id(question.principal): question.principal for question in questions}.values()
    facts = {id(question.aux_data): question.aux_data for question in questions}.values()
    waiting: list[Any] = [question.resource.attr for question in questions]
    waiting += [part for each in who for part in (each.attr, each.roles)]
    waiting += [claims for each in facts for claims in each]
    return _weighs(waiting)


def _weighs(waiting: list[Any]) -> bool:
    """Tell whether there are more than :data:`MANY_VALUES` in the values *waiting*, which it uses up."""
    count = 0
    while waiting and count <= MANY_VALUES:
        value = waiting.pop()
        if isinstance(value, str):
            count += 1 + len(value) // LONG_TEXT
        elif isinstance(value, (list, tuple)):
            count += len(value)
            waiting += value[:MANY_VALUES]
        elif isinstance(value, Mapping):
            count += len(value)
            waiting += islice(value.values(), MANY_VALUES)
    return count > MANY_VALUES


def _in_time(questions: Iterable[model.CheckInput]) -> Iterator[model.CheckInput]:
    """Pass the questions on while there is time for them."""
    until = time.monotonic() + DECIDING
    for question in questions:
        if time.monotonic() > until:
            message = f"deciding takes longer than {DECIDING:g} seconds: ask about fewer resources"
            raise PdpError(Code.TOO_LARGE, message)
        yield question


# --- requests ---------------------------------------------------------------------------------------------


def _there(value: Any) -> Any:
    """Return what :func:`check` has found to be there."""
    assert value is not None  # noqa: S101  # a promise between two functions, not a check of input
    return value


def _plain(attr: Mapping[str, model.JsonValue]) -> Mapping[str, model.JsonValue]:
    """Return attributes in the form that policies read fastest."""
    return attr if type(attr) is dict else dict(attr)


def _principal(principal: messages.Principal) -> model.Principal:
    return model.Principal(
        principal.id, principal.roles, _plain(principal.attr), principal.policy_version, principal.scope
    )


def _resource(resource: messages.Resource | None) -> model.Resource:
    named = _there(resource)
    return model.Resource(named.kind, named.id, _plain(named.attr), named.policy_version, named.scope)


# --- answers ----------------------------------------------------------------------------------------------


def result(
    resource: messages.Resource | model.Resource, decision: model.Decision, *, include_meta: bool
) -> ResultEntry:
    """Make the answer for one resource."""
    return ResultEntry(
        ResultResource(resource.id, resource.kind, resource.policy_version, resource.scope),
        _effects(decision),
        _validation_errors(decision.validation_errors),
        _result_meta(decision) if include_meta else None,
        tuple(map(_output, decision.outputs)),
    )


def _effects(decision: model.Decision) -> dict[str, str]:
    return {action: decided.effect.value for action, decided in decision.actions.items()}


def _validation_errors(errors: Sequence[model.ValidationError]) -> tuple[ValidationError, ...]:
    return tuple(ValidationError(*error) for error in errors)


def _result_meta(decision: model.Decision) -> ResultMeta:
    actions = {name: EffectMeta(decided.policy, decided.scope) for name, decided in decision.actions.items()}
    return ResultMeta(actions, decision.effective_derived_roles)


def _output(output: model.Output) -> OutputEntry:
    return OutputEntry(output.src, ABSENT if output.error else output.value, output.action, output.error)


def _instance_effects(decision: model.Decision) -> InstanceEffects:
    return InstanceEffects(_effects(decision), _validation_errors(decision.validation_errors))


def _instance_meta(decision: model.Decision) -> InstanceMeta:
    actions = {
        name: InstanceEffectMeta(decided.policy, decided.scope) for name, decided in decision.actions.items()
    }
    return InstanceMeta(actions, decision.effective_derived_roles)


def _plan_response(
    request: messages.PlanResourcesRequest, plan: planner.Plan, call_id: str
) -> PlanResourcesResponse:
    resource = _there(request.resource)
    return PlanResourcesResponse(
        request_id=request.request_id,
        action=request.action,
        actions=request.actions,
        resource_kind=resource.kind,
        policy_version=resource.policy_version,
        filter=PlanResourcesFilter(plan.kind, _operand(plan.condition)),
        meta=_plan_meta(request, plan) if request.include_meta else None,
        validation_errors=_validation_errors(plan.validation_errors),
        cerbos_call_id=call_id,
    )


def _plan_meta(request: messages.PlanResourcesRequest, plan: planner.Plan) -> PlanMeta:
    if request.action:
        return PlanMeta(plan.debug, matched_scope=plan.matched_scopes.get(request.action, ""))
    return PlanMeta(plan.debug, matched_scopes=plan.matched_scopes)


def _operand(operand: planner.Operand | None) -> messages.Operand | None:
    return None if operand is None else _operand_of(operand.to_json())


def _operand_of(document: dict[str, Any]) -> messages.Operand:
    match document:
        case {"expression": {"operator": operator, "operands": operands}}:
            return messages.Operand(
                expression=messages.Expression(operator, tuple(map(_operand_of, operands)))
            )
        case {"variable": name}:
            return messages.Operand(variable=name)
        case _:
            return messages.Operand(value=document["value"])
