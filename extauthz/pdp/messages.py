"""The messages of the PDP API, as named tuples: what a request says, and what is answered.

Names, numbers and rules are those of the published API (``cerbos.request.v1``, ``cerbos.response.v1`` and
what they refer to), so that existing clients understand us; the tests compare each with the official
generated classes. An enumeration's value is its name; a message that is not there is ``None``.

Annotations are evaluated here (no ``from __future__ import annotations``): the codecs read them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, Optional

from extauthz.pdp.rules import ENTRIES, INSTANCES, KEYS, NAME, NAMES, REQUIRED, SCOPE, VERSION, Rules
from extauthz.pdp.schema import ABSENT, EnumType, Json, MessageRule, Tag, message

NOTHING: Final[Mapping[str, Json]] = MappingProxyType({})

EFFECT: Final = EnumType(
    "cerbos.effect.v1.Effect",
    ("EFFECT_UNSPECIFIED", "EFFECT_ALLOW", "EFFECT_DENY", "EFFECT_NO_MATCH"),
)
SOURCE: Final = EnumType(
    "cerbos.schema.v1.ValidationError.Source", ("SOURCE_UNSPECIFIED", "SOURCE_PRINCIPAL", "SOURCE_RESOURCE")
)
FILTER_KIND: Final = EnumType(
    "cerbos.engine.v1.PlanResourcesFilter.Kind",
    ("KIND_UNSPECIFIED", "KIND_ALWAYS_ALLOWED", "KIND_ALWAYS_DENIED", "KIND_CONDITIONAL"),
)

# --- what requests have in common -------------------------------------------------------------------------


@message("cerbos.engine.v1.Principal")
class Principal(NamedTuple):
    """Who asks."""

    id: Annotated[str, Tag(1, NAME)] = ""
    policy_version: Annotated[str, Tag(2, VERSION)] = ""
    roles: Annotated[tuple[str, ...], Tag(3, NAMES)] = ()
    attr: Annotated[Mapping[str, Json], Tag(4, KEYS)] = NOTHING
    scope: Annotated[str, Tag(5, SCOPE)] = ""


@message("cerbos.engine.v1.Resource")
class Resource(NamedTuple):
    """What is asked for."""

    kind: Annotated[str, Tag(1, NAME)] = ""
    policy_version: Annotated[str, Tag(2, VERSION)] = ""
    id: Annotated[str, Tag(3, NAME)] = ""
    attr: Annotated[Mapping[str, Json], Tag(4, KEYS)] = NOTHING
    scope: Annotated[str, Tag(5, SCOPE)] = ""


@message("cerbos.request.v1.AuxData.JWT")
class Token(NamedTuple):
    """A JSON Web Token and the key set that verifies it; empty: the only one there is."""

    token: Annotated[str, Tag(1, NAME)] = ""
    key_set_id: Annotated[str, Tag(2)] = ""


@message(
    "cerbos.request.v1.AuxData",
    MessageRule(
        "AuxData.only_one_jwt_field",
        "Only one of the jwt or jwts fields must be set",
        lambda aux_data: aux_data.jwt is None or not aux_data.jwts,
    ),
)
class AuxData(NamedTuple):
    """Facts beside principal and resource: one token, or several by name."""

    jwt: Annotated[Token | None, Tag(1)] = None
    jwts: Annotated[Mapping[str, Token], Tag(2, KEYS)] = NOTHING


@message("cerbos.audit.v1.RequestContext")
class RequestContext(NamedTuple):
    """What the caller wants to find in the audit log again; no policy sees it."""

    annotations: Annotated[Mapping[str, Json], Tag(1, KEYS)] = NOTHING


@message("cerbos.schema.v1.ValidationError")
class ValidationError(NamedTuple):
    """An attribute that its schema does not accept."""

    path: Annotated[str, Tag(1)] = ""
    message: Annotated[str, Tag(2)] = ""
    source: Annotated[str, Tag(3, enum=SOURCE)] = "SOURCE_UNSPECIFIED"


# --- CheckResources ---------------------------------------------------------------------------------------


@message("cerbos.request.v1.CheckResourcesRequest.ResourceEntry")
class ResourceEntry(NamedTuple):
    """One resource, and the actions to decide on it."""

    actions: Annotated[tuple[str, ...], Tag(1, NAMES)] = ()
    resource: Annotated[Resource | None, Tag(2, REQUIRED)] = None


@message("cerbos.request.v1.CheckResourcesRequest")
class CheckResourcesRequest(NamedTuple):
    """A question: may the principal do each of the actions to each of the resources."""

    request_id: Annotated[str, Tag(1)] = ""
    include_meta: Annotated[bool, Tag(2)] = False
    principal: Annotated[Principal | None, Tag(3, REQUIRED)] = None
    resources: Annotated[tuple[ResourceEntry, ...], Tag(4, ENTRIES)] = ()
    aux_data: Annotated[AuxData | None, Tag(5)] = None
    request_context: Annotated[RequestContext | None, Tag(6, optional=True)] = None


@message("cerbos.response.v1.CheckResourcesResponse.ResultEntry.Resource")
class ResultResource(NamedTuple):
    """A resource, as it was named in the request."""

    id: Annotated[str, Tag(1)] = ""
    kind: Annotated[str, Tag(2)] = ""
    policy_version: Annotated[str, Tag(3)] = ""
    scope: Annotated[str, Tag(4)] = ""


@message("cerbos.response.v1.CheckResourcesResponse.ResultEntry.Meta.EffectMeta")
class EffectMeta(NamedTuple):
    """Which policy decided on an action, and the scope of its rule."""

    matched_policy: Annotated[str, Tag(1)] = ""
    matched_scope: Annotated[str, Tag(2)] = ""


@message("cerbos.response.v1.CheckResourcesResponse.ResultEntry.Meta")
class ResultMeta(NamedTuple):
    """How a result came about."""

    actions: Annotated[Mapping[str, EffectMeta], Tag(1)] = NOTHING
    effective_derived_roles: Annotated[tuple[str, ...], Tag(2)] = ()


@message("cerbos.engine.v1.OutputEntry")
class OutputEntry(NamedTuple):
    """What a rule's output expression said, or why it has no value."""

    src: Annotated[str, Tag(1)] = ""
    val: Annotated[Json, Tag(2)] = ABSENT
    action: Annotated[str, Tag(3)] = ""
    error: Annotated[str, Tag(4)] = ""


@message("cerbos.response.v1.CheckResourcesResponse.ResultEntry")
class ResultEntry(NamedTuple):
    """The answer for one resource."""

    resource: Annotated[ResultResource | None, Tag(1)] = None
    actions: Annotated[Mapping[str, str], Tag(2, enum=EFFECT)] = NOTHING
    validation_errors: Annotated[tuple[ValidationError, ...], Tag(3)] = ()
    meta: Annotated[ResultMeta | None, Tag(4)] = None
    outputs: Annotated[tuple[OutputEntry, ...], Tag(5)] = ()


@message("cerbos.response.v1.CheckResourcesResponse")
class CheckResourcesResponse(NamedTuple):
    """The answers, in the order of the request."""

    request_id: Annotated[str, Tag(1)] = ""
    results: Annotated[tuple[ResultEntry, ...], Tag(2)] = ()
    cerbos_call_id: Annotated[str, Tag(3)] = ""


# --- CheckResourceSet (deprecated) ------------------------------------------------------------------------


@message("cerbos.request.v1.AttributesMap")
class AttributesMap(NamedTuple):
    """The attributes of one instance."""

    attr: Annotated[Mapping[str, Json], Tag(1)] = NOTHING


@message("cerbos.request.v1.ResourceSet")
class ResourceSet(NamedTuple):
    """Instances of one kind, by their ids."""

    kind: Annotated[str, Tag(1, NAME)] = ""
    policy_version: Annotated[str, Tag(2, VERSION)] = ""
    instances: Annotated[Mapping[str, AttributesMap], Tag(3, INSTANCES)] = NOTHING
    scope: Annotated[str, Tag(4, SCOPE)] = ""


@message("cerbos.request.v1.CheckResourceSetRequest")
class CheckResourceSetRequest(NamedTuple):
    """A question: may the principal do each of the actions to each of the instances."""

    request_id: Annotated[str, Tag(1)] = ""
    actions: Annotated[tuple[str, ...], Tag(2, NAMES)] = ()
    principal: Annotated[Principal | None, Tag(3, REQUIRED)] = None
    resource: Annotated[ResourceSet | None, Tag(4, REQUIRED)] = None
    include_meta: Annotated[bool, Tag(5)] = False
    aux_data: Annotated[AuxData | None, Tag(6)] = None


@message("cerbos.response.v1.CheckResourceSetResponse.ActionEffectMap")
class InstanceEffects(NamedTuple):
    """The answer for one instance."""

    actions: Annotated[Mapping[str, str], Tag(1, enum=EFFECT)] = NOTHING
    validation_errors: Annotated[tuple[ValidationError, ...], Tag(2)] = ()


@message("cerbos.response.v1.CheckResourceSetResponse.Meta.EffectMeta")
class InstanceEffectMeta(NamedTuple):
    """Which policy decided on an action, and the scope of its rule."""

    matched_policy: Annotated[str, Tag(1)] = ""
    matched_scope: Annotated[str, Tag(2)] = ""


@message("cerbos.response.v1.CheckResourceSetResponse.Meta.ActionMeta")
class InstanceMeta(NamedTuple):
    """How the answer for one instance came about."""

    actions: Annotated[Mapping[str, InstanceEffectMeta], Tag(1)] = NOTHING
    effective_derived_roles: Annotated[tuple[str, ...], Tag(2)] = ()


@message("cerbos.response.v1.CheckResourceSetResponse.Meta")
class ResourceSetMeta(NamedTuple):
    """How the answers came about, by instance."""

    resource_instances: Annotated[Mapping[str, InstanceMeta], Tag(1)] = NOTHING


@message("cerbos.response.v1.CheckResourceSetResponse")
class CheckResourceSetResponse(NamedTuple):
    """The answers, by instance."""

    request_id: Annotated[str, Tag(1)] = ""
    resource_instances: Annotated[Mapping[str, InstanceEffects], Tag(2)] = NOTHING
    meta: Annotated[ResourceSetMeta | None, Tag(3)] = None


# --- CheckResourceBatch (deprecated) ----------------------------------------------------------------------


@message("cerbos.request.v1.CheckResourceBatchRequest.BatchEntry")
class BatchEntry(NamedTuple):
    """One resource, and the actions to decide on it."""

    actions: Annotated[tuple[str, ...], Tag(1, NAMES)] = ()
    resource: Annotated[Resource | None, Tag(2, REQUIRED)] = None


@message("cerbos.request.v1.CheckResourceBatchRequest")
class CheckResourceBatchRequest(NamedTuple):
    """A question: may the principal do each of the actions to each of the resources."""

    request_id: Annotated[str, Tag(1)] = ""
    principal: Annotated[Principal | None, Tag(2, REQUIRED)] = None
    resources: Annotated[tuple[BatchEntry, ...], Tag(3, ENTRIES)] = ()
    aux_data: Annotated[AuxData | None, Tag(4)] = None


@message("cerbos.response.v1.CheckResourceBatchResponse.ActionEffectMap")
class BatchEffects(NamedTuple):
    """The answer for one resource."""

    resource_id: Annotated[str, Tag(1)] = ""
    actions: Annotated[Mapping[str, str], Tag(2, enum=EFFECT)] = NOTHING
    validation_errors: Annotated[tuple[ValidationError, ...], Tag(3)] = ()


@message("cerbos.response.v1.CheckResourceBatchResponse")
class CheckResourceBatchResponse(NamedTuple):
    """The answers, in the order of the request."""

    request_id: Annotated[str, Tag(1)] = ""
    results: Annotated[tuple[BatchEffects, ...], Tag(2)] = ()


# --- PlanResources ----------------------------------------------------------------------------------------


@message("cerbos.engine.v1.PlanResourcesInput.Resource")
class PlanResource(NamedTuple):
    """The kind of resources to list, and what is known of them."""

    kind: Annotated[str, Tag(1, NAME)] = ""
    attr: Annotated[Mapping[str, Json], Tag(2)] = NOTHING
    policy_version: Annotated[str, Tag(3, VERSION)] = ""
    scope: Annotated[str, Tag(4, SCOPE)] = ""


@message(
    "cerbos.request.v1.PlanResourcesRequest",
    MessageRule(
        "exclusiveFieldsActionOrActions",
        "Exactly one of 'action' or 'actions' field must be set",
        lambda request: bool(request.action) != bool(request.actions),
    ),
)
class PlanResourcesRequest(NamedTuple):
    """A question: to which resources may the principal do the actions."""

    request_id: Annotated[str, Tag(1)] = ""
    action: Annotated[str, Tag(2)] = ""
    actions: Annotated[tuple[str, ...], Tag(7, Rules(max_items=20, unique=True, item_min_length=1))] = ()
    principal: Annotated[Principal | None, Tag(3, REQUIRED)] = None
    resource: Annotated[PlanResource | None, Tag(4, REQUIRED)] = None
    aux_data: Annotated[AuxData | None, Tag(5)] = None
    include_meta: Annotated[bool, Tag(6)] = False
    request_context: Annotated[RequestContext | None, Tag(8, optional=True)] = None


@message("cerbos.engine.v1.PlanResourcesFilter.Expression.Operand")
class Operand(NamedTuple):
    """A part of a condition: a value, an operator's result, or an attribute that is not known yet."""

    value: Annotated[Json, Tag(1, oneof="node")] = ABSENT
    expression: Annotated[Optional["Expression"], Tag(2, oneof="node")] = None
    variable: Annotated[str, Tag(3, oneof="node")] = ""


@message("cerbos.engine.v1.PlanResourcesFilter.Expression")
class Expression(NamedTuple):
    """An operator and what it is applied to."""

    operator: Annotated[str, Tag(1)] = ""
    operands: Annotated[tuple[Operand, ...], Tag(2)] = ()


@message("cerbos.engine.v1.PlanResourcesFilter")
class PlanResourcesFilter(NamedTuple):
    """All resources, none, or those that fulfil the condition."""

    kind: Annotated[str, Tag(1, enum=FILTER_KIND)] = "KIND_UNSPECIFIED"
    condition: Annotated[Operand | None, Tag(2)] = None


@message("cerbos.response.v1.PlanResourcesResponse.Meta")
class PlanMeta(NamedTuple):
    """How the filter came about."""

    filter_debug: Annotated[str, Tag(1)] = ""
    matched_scope: Annotated[str, Tag(2)] = ""
    matched_scopes: Annotated[Mapping[str, str], Tag(3)] = NOTHING


@message("cerbos.response.v1.PlanResourcesResponse")
class PlanResourcesResponse(NamedTuple):
    """The filter for listing."""

    request_id: Annotated[str, Tag(1)] = ""
    action: Annotated[str, Tag(2)] = ""
    actions: Annotated[tuple[str, ...], Tag(9)] = ()
    resource_kind: Annotated[str, Tag(3)] = ""
    policy_version: Annotated[str, Tag(4)] = ""
    filter: Annotated[PlanResourcesFilter | None, Tag(5)] = None
    meta: Annotated[PlanMeta | None, Tag(6)] = None
    validation_errors: Annotated[tuple[ValidationError, ...], Tag(7)] = ()
    cerbos_call_id: Annotated[str, Tag(8)] = ""


# --- ServerInfo -------------------------------------------------------------------------------------------


@message("cerbos.request.v1.ServerInfoRequest")
class ServerInfoRequest(NamedTuple):
    """A question: which server this is."""


@message("cerbos.response.v1.ServerInfoResponse")
class ServerInfoResponse(NamedTuple):
    """The server's version, the commit it was built from, and when."""

    version: Annotated[str, Tag(1)] = ""
    commit: Annotated[str, Tag(2)] = ""
    build_date: Annotated[str, Tag(3)] = ""
