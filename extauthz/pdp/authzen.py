"""The AuthZEN calls: a subject, a resource and an action in, true or false out, decided by the same policies.

A subject becomes a principal and a resource a resource, with all their properties as attributes. Properties
whose names begin with ``cerbos.`` say what AuthZEN has no words for (roles, policy versions, scopes); so do
those of the context (a request id, tokens, whether the reasons are wanted).

Each evaluation of a batch is decided as if it had been sent alone. Cerbos joins evaluations that name the
same subject id and resource id, and decides all of them by the properties of the first; what its limits count
is counted here in the same way.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from engine import model
from extauthz.pdp.authzen_messages import (
    DENY_ON_FIRST_DENY,
    PERMIT_ON_FIRST_PERMIT,
    AccessEvaluationBatchRequest,
    AccessEvaluationBatchResponse,
    AccessEvaluationRequest,
    AccessEvaluationResponse,
    Action,
    MetadataRequest,
    MetadataResponse,
    Resource,
    Subject,
)
from extauthz.pdp.calls import result
from extauthz.pdp.errors import invalid
from extauthz.pdp.messages import AuxData, CheckResourcesResponse
from extauthz.pdp.protojson import FormatError, read, write
from extauthz.pdp.validation import check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from engine.model import JsonValue
    from extauthz.pdp.calls import Pdp

EVALUATION_PATH: Final = "/access/v1/evaluation"
EVALUATIONS_PATH: Final = "/access/v1/evaluations"
METADATA_PATH: Final = "/.well-known/authzen-configuration"

ENDED_BY: Final[Mapping[str, bool]] = {DENY_ON_FIRST_DENY: False, PERMIT_ON_FIRST_PERMIT: True}
"""The decision that ends a batch, by its semantic."""


class _Question(NamedTuple):
    """An evaluation of which nothing is missing."""

    subject: Subject
    resource: Resource
    action: Action
    context: Mapping[str, JsonValue]
    include_meta: bool


class AuthZen:
    """Answers the AuthZEN calls with the decisions of a :class:`~extauthz.pdp.calls.Pdp`."""

    def __init__(self, pdp: Pdp) -> None:
        self._pdp = pdp

    async def access_evaluation(self, request: AccessEvaluationRequest) -> AccessEvaluationResponse:
        """Decide one action on one resource."""
        check(request)
        (answer,) = await self._answers([_single(request)])
        return answer

    async def access_evaluation_batch(
        self, request: AccessEvaluationBatchRequest
    ) -> AccessEvaluationBatchResponse:
        """Decide each evaluation by itself; the answer ends where the batch's semantic says."""
        check(request)
        self._check_count(len(request.evaluations))
        questions = list(_questions(request))
        self._check_limits(questions)
        answers = await self._answers(questions)
        semantic = request.options.evaluations_semantic if request.options else ""
        return AccessEvaluationBatchResponse(tuple(_until(ENDED_BY.get(semantic), answers)))

    async def metadata(self, request: MetadataRequest, origin: str) -> MetadataResponse:
        """Tell where the calls are; *origin* is how the client reaches us (see :func:`origin`)."""
        check(request)
        return MetadataResponse(origin, origin + EVALUATION_PATH, origin + EVALUATIONS_PATH)

    # -- limits --------------------------------------------------------------------------------------------

    def _check_count(self, count: int) -> None:
        limits = self._pdp.limits
        limit = limits.max_actions_per_resource * limits.max_resources_per_request
        if count > limit:
            raise invalid(f"number of evaluations ({count}) exceeds configured limit ({limit})")

    def _check_limits(self, questions: Iterable[_Question]) -> None:
        """Count as Cerbos does: resources of one subject and token, and evaluations of one such resource."""
        actions = Counter(_group(question) for question in questions)
        resources = Counter((subject, token) for subject, token, *_ in actions)
        self._pdp.limits.check_resources(max(resources.values()))
        self._pdp.limits.check_actions(max(actions.values()))

    # -- decisions -----------------------------------------------------------------------------------------

    async def _answers(self, questions: Sequence[_Question]) -> list[AccessEvaluationResponse]:
        facts = await self._facts(questions)
        asked = [_check_input(*each) for each in zip(questions, facts, strict=True)]
        decisions = await self._pdp.decided(asked)
        return [_answer(*each) for each in zip(questions, asked, decisions, strict=True)]

    async def _facts(self, questions: Iterable[_Question]) -> list[model.AuxData]:
        """Read the tokens of each question; questions that share a context share the work."""
        found: dict[int, model.AuxData] = {}
        for question in questions:
            if id(question.context) not in found:
                found[id(question.context)] = await self._pdp.facts(_aux_data(question.context))
        return [found[id(question.context)] for question in questions]


def _answer(
    question: _Question, asked: model.CheckInput, decision: model.Decision
) -> AccessEvaluationResponse:
    allowed = decision.actions[question.action.name].effect is model.Effect.ALLOW
    context = {"cerbos.response": _details(asked, decision)} if question.include_meta else {}
    return AccessEvaluationResponse(allowed, context)


def _until(
    last: bool | None, answers: Iterable[AccessEvaluationResponse]
) -> Iterator[AccessEvaluationResponse]:
    """Give the answers up to the first whose decision is *last*; all of them when there is none."""
    for answer in answers:
        yield answer
        if answer.decision is last:
            return


# --- from AuthZEN's words to ours -------------------------------------------------------------------------


def _single(request: AccessEvaluationRequest) -> _Question:
    assert request.subject is not None  # noqa: S101  # `check` has seen to it, for all three
    assert request.resource is not None  # noqa: S101
    assert request.action is not None  # noqa: S101
    return _Question(
        request.subject,
        request.resource,
        request.action,
        request.context,
        _says_yes(request.context, "includeMeta"),
    )


def _questions(request: AccessEvaluationBatchRequest) -> Iterator[_Question]:
    """Complete each evaluation: what it says replaces what the batch says, as a whole."""
    for each in request.evaluations:
        context = each.context or request.context
        wanted = each.context if "cerbos.includeMeta" in each.context else request.context
        complete = AccessEvaluationRequest(
            each.subject or request.subject,
            each.resource or request.resource,
            each.action or request.action,
            context,
        )
        yield _single(complete)._replace(include_meta=_says_yes(wanted, "includeMeta"))


def _group(question: _Question) -> tuple[str, str, str, str]:
    """Make what Cerbos joins evaluations by: subject, token, resource type and id."""
    subject, resource = question.subject, question.resource
    return subject.id, repr(question.context.get("cerbos.auxData")), resource.type, resource.id


def _check_input(question: _Question, facts: model.AuxData) -> model.CheckInput:
    return model.CheckInput(
        _principal(question.subject),
        _resource(question.resource),
        (question.action.name,),
        facts,
        _text(question.context, "requestId"),
    )


def _principal(subject: Subject) -> model.Principal:
    said = subject.properties
    roles = _roles(said.get("cerbos.roles")) or (subject.type,)
    return model.Principal(subject.id, roles, said, _text(said, "policyVersion"), _text(said, "scope"))


def _resource(resource: Resource) -> model.Resource:
    said = resource.properties
    return model.Resource(
        resource.type, resource.id, said, _text(said, "policyVersion"), _text(said, "scope")
    )


def _roles(value: JsonValue) -> tuple[str, ...]:
    """Return each role once; what is not a name is no role."""
    listed = value if isinstance(value, list) else ()
    return tuple(dict.fromkeys(role for role in listed if isinstance(role, str) and role))


def _text(properties: Mapping[str, JsonValue], name: str) -> str:
    """Return the text of a property ``cerbos.<name>``; empty when it is missing or something else."""
    value = properties.get(f"cerbos.{name}")
    return value if isinstance(value, str) else ""


def _says_yes(properties: Mapping[str, JsonValue], name: str) -> bool:
    return properties.get(f"cerbos.{name}") is True


def _aux_data(context: Mapping[str, JsonValue]) -> AuxData | None:
    """Read ``cerbos.auxData``, which has the form of a check's ``auxData``.

    Cerbos passes over what it does not know there, and a token that is no text; then a policy decides without
    the claims that the caller believes to have sent. Both are refused here.
    """
    value = context.get("cerbos.auxData")
    if value is None:
        return None
    try:
        aux_data: AuxData = read(AuxData, value)
    except FormatError:
        raise invalid("invalid auxData") from None
    return aux_data


def _details(asked: model.CheckInput, decision: model.Decision) -> JsonValue:
    """Write the decision as CheckResources would answer."""
    entry = result(asked.resource, decision, include_meta=True)
    return write(CheckResourcesResponse(asked.request_id, (entry,)))


# --- where we are reached ---------------------------------------------------------------------------------

_SCHEMES: Final = ("http", "https")
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_.~-]{1,253}", re.ASCII)
_ADDRESS: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


def origin(headers: Mapping[str, str], *, tls: bool) -> str:
    """Tell how the client reaches us: ``https://pdp.example.com``.

    ``x-forwarded-proto`` and ``x-forwarded-host`` come before the connection and ``host``, as in Cerbos; of
    several values the first counts, which is the client's. *headers* have lower-case names.

    Raises:
        extauthz.pdp.errors.PdpError: a header does not hold a host. What it holds would be repeated in
            addresses that clients follow.

    """
    forwarded = _first(headers, "x-forwarded-proto").lower()
    scheme = forwarded if forwarded in _SCHEMES else _SCHEMES[tls]
    for name in ("x-forwarded-host", "host"):
        host = _first(headers, name)
        if host and not _is_host(host):
            raise invalid(f"the header {name} does not hold a host")
        if host:
            return f"{scheme}://{host}"
    return f"{scheme}://localhost"


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip(" \t")


def _is_host(text: str) -> bool:
    """Tell whether *text* is a name or an address, with or without a port (RFC 3986 §3.2.2, §3.2.3)."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 80) < 1 << 16:
        return False
    host: str = found["host"]
    return _is_ipv6(host[1:-1]) if host.startswith("[") else _NAME.fullmatch(host) is not None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
