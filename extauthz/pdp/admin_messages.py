"""The messages of the admin API: policies and schemas in a store, as named tuples.

Names, numbers and rules are those of the published API, as in :mod:`extauthz.pdp.messages`; the tests compare
each with the official generated classes. A policy stays what it is on the wire: the engine reads it
(:class:`Policy`).

Annotations are evaluated here (no ``from __future__ import annotations``): the codecs read them.
"""

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple, Self

from engine import policy_messages
from engine.model import JsonValue
from extauthz.pdp.messages import NOTHING
from extauthz.pdp.rules import Rules
from extauthz.pdp.schema import ABSENT, EnumType, Json, Opaque, Tag, message

POLICY: Final = "cerbos.policy.v1.Policy"

IDS: Final = Rules(required=True, min_items=1, unique=True, item_min_length=1)
FEW_IDS: Final = Rules(required=True, min_items=1, max_items=20, unique=True, item_min_length=1)
CHOSEN_IDS: Final = Rules(max_items=25, item_min_length=1)
SCHEMA_IDS: Final = Rules(required=True, min_items=1, unique=True, item_min_length=1, item_max_length=255)
BATCH: Final = Rules(required=True, min_items=1, max_items=100)


@message(POLICY)
class Policy(Opaque):
    """A policy, as the engine reads and databases hold it."""

    @classmethod
    def from_json(cls, value: JsonValue) -> Self:
        """Read the JSON form; raises :class:`~engine.policy_messages.NotAPolicyError`."""
        return cls(policy_messages.encode(policy_messages.from_json(value)))

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return policy_messages.to_json(policy_messages.decode(self.definition))


@message("google.protobuf.Empty")
class Empty(NamedTuple):
    """Nothing."""


@message("cerbos.schema.v1.Schema")
class Schema(NamedTuple):
    """A JSON Schema and the path by which policies refer to it."""

    id: Annotated[str, Tag(1, Rules(required=True, min_length=1, max_length=255))] = ""
    definition: Annotated[bytes, Tag(2, Rules(required=True, min_bytes=10))] = b""


# --- putting ----------------------------------------------------------------------------------------------


@message("cerbos.request.v1.AddOrUpdatePolicyRequest")
class AddOrUpdatePolicyRequest(NamedTuple):
    """A command: add policies, or replace those of the same identity."""

    policies: Annotated[tuple[Policy, ...], Tag(1, BATCH)] = ()


@message("cerbos.response.v1.AddOrUpdatePolicyResponse")
class AddOrUpdatePolicyResponse(NamedTuple):
    """It is done."""

    success: Annotated[Empty | None, Tag(1)] = None


@message("cerbos.request.v1.AddOrUpdateSchemaRequest")
class AddOrUpdateSchemaRequest(NamedTuple):
    """A command: add JSON Schemas, or replace those of the same id."""

    schemas: Annotated[tuple[Schema, ...], Tag(1, BATCH)] = ()


@message("cerbos.response.v1.AddOrUpdateSchemaResponse")
class AddOrUpdateSchemaResponse(NamedTuple):
    """It is done."""


# --- listing and getting ----------------------------------------------------------------------------------


@message("cerbos.request.v1.ListPoliciesRequest")
class ListPoliciesRequest(NamedTuple):
    """A question: which policies are there."""

    include_disabled: Annotated[bool, Tag(1)] = False
    name_regexp: Annotated[str, Tag(2)] = ""
    scope_regexp: Annotated[str, Tag(3)] = ""
    version_regexp: Annotated[str, Tag(4)] = ""
    policy_id: Annotated[tuple[str, ...], Tag(5, CHOSEN_IDS)] = ()


@message("cerbos.response.v1.ListPoliciesResponse")
class ListPoliciesResponse(NamedTuple):
    """The ids of policies, sorted."""

    policy_ids: Annotated[tuple[str, ...], Tag(1)] = ()


@message("cerbos.request.v1.GetPolicyRequest")
class GetPolicyRequest(NamedTuple):
    """A question: what do these policies say."""

    id: Annotated[tuple[str, ...], Tag(1, IDS)] = ()


@message("cerbos.response.v1.GetPolicyResponse")
class GetPolicyResponse(NamedTuple):
    """The policies that are there, in the order of the request."""

    policies: Annotated[tuple[Policy, ...], Tag(1)] = ()


@message("cerbos.request.v1.ListSchemasRequest")
class ListSchemasRequest(NamedTuple):
    """A question: which schemas are there."""


@message("cerbos.response.v1.ListSchemasResponse")
class ListSchemasResponse(NamedTuple):
    """The ids of schemas, sorted."""

    schema_ids: Annotated[tuple[str, ...], Tag(1)] = ()


@message("cerbos.request.v1.GetSchemaRequest")
class GetSchemaRequest(NamedTuple):
    """A question: what do these schemas say."""

    id: Annotated[tuple[str, ...], Tag(1, SCHEMA_IDS)] = ()


@message("cerbos.response.v1.GetSchemaResponse")
class GetSchemaResponse(NamedTuple):
    """The schemas, in the order of the request."""

    schemas: Annotated[tuple[Schema, ...], Tag(1)] = ()


# --- out of force, into force, away -----------------------------------------------------------------------


@message("cerbos.request.v1.DeletePolicyRequest")
class DeletePolicyRequest(NamedTuple):
    """A command: take policies away."""

    id: Annotated[tuple[str, ...], Tag(1, FEW_IDS)] = ()


@message("cerbos.response.v1.DeletePolicyResponse")
class DeletePolicyResponse(NamedTuple):
    """How many there were."""

    deleted_policies: Annotated[int, Tag(1, unsigned=True)] = 0


@message("cerbos.request.v1.DisablePolicyRequest")
class DisablePolicyRequest(NamedTuple):
    """A command: keep policies, but out of force."""

    id: Annotated[tuple[str, ...], Tag(1, FEW_IDS)] = ()


@message("cerbos.response.v1.DisablePolicyResponse")
class DisablePolicyResponse(NamedTuple):
    """How many there are."""

    disabled_policies: Annotated[int, Tag(1, unsigned=True)] = 0


@message("cerbos.request.v1.EnablePolicyRequest")
class EnablePolicyRequest(NamedTuple):
    """A command: put disabled policies in force."""

    id: Annotated[tuple[str, ...], Tag(1, IDS)] = ()


@message("cerbos.response.v1.EnablePolicyResponse")
class EnablePolicyResponse(NamedTuple):
    """How many there are."""

    enabled_policies: Annotated[int, Tag(1, unsigned=True)] = 0


@message("cerbos.request.v1.DeleteSchemaRequest")
class DeleteSchemaRequest(NamedTuple):
    """A command: take schemas away."""

    id: Annotated[tuple[str, ...], Tag(1, SCHEMA_IDS)] = ()


@message("cerbos.response.v1.DeleteSchemaResponse")
class DeleteSchemaResponse(NamedTuple):
    """How many there were."""

    deleted_schemas: Annotated[int, Tag(1, unsigned=True)] = 0


@message("cerbos.response.v1.IntegrityErrors.BreaksScopeChain")
class BreaksScopeChain(NamedTuple):
    """Policies in scopes below, which cannot do without the one above."""

    descendants: Annotated[tuple[str, ...], Tag(1)] = ()


@message("cerbos.response.v1.IntegrityErrors.RequiredByOtherPolicies")
class RequiredByOtherPolicies(NamedTuple):
    """Policies that import it."""

    dependents: Annotated[tuple[str, ...], Tag(1)] = ()


@message("cerbos.response.v1.IntegrityErrors")
class IntegrityErrors(NamedTuple):
    """Why a policy has to stay."""

    breaks_scope_chain: Annotated[BreaksScopeChain | None, Tag(1)] = None
    required_by_other_policies: Annotated[RequiredByOtherPolicies | None, Tag(2)] = None


@message("cerbos.response.v1.DeletePolicyErrorDetails")
class DeletePolicyErrorDetails(NamedTuple):
    """Which policies have to stay, and why."""

    errors: Annotated[Mapping[str, IntegrityErrors], Tag(1)] = NOTHING


@message("cerbos.response.v1.DisablePolicyErrorDetails")
class DisablePolicyErrorDetails(NamedTuple):
    """Which policies have to stay in force, and why."""

    errors: Annotated[Mapping[str, IntegrityErrors], Tag(1)] = NOTHING


# --- inspecting -------------------------------------------------------------------------------------------

ATTRIBUTE_KIND: Final = EnumType(
    "cerbos.response.v1.InspectPoliciesResponse.Attribute.Kind",
    ("KIND_UNSPECIFIED", "KIND_PRINCIPAL_ATTRIBUTE", "KIND_RESOURCE_ATTRIBUTE"),
)
ROLE_KIND: Final = EnumType(
    "cerbos.response.v1.InspectPoliciesResponse.DerivedRole.Kind",
    ("KIND_UNSPECIFIED", "KIND_UNDEFINED", "KIND_EXPORTED", "KIND_IMPORTED"),
)
CONSTANT_KIND: Final = EnumType(
    "cerbos.response.v1.InspectPoliciesResponse.Constant.Kind",
    ("KIND_UNSPECIFIED", "KIND_EXPORTED", "KIND_IMPORTED", "KIND_LOCAL", "KIND_UNDEFINED", "KIND_UNKNOWN"),
)
VARIABLE_KIND: Final = EnumType(
    "cerbos.response.v1.InspectPoliciesResponse.Variable.Kind",
    ("KIND_UNSPECIFIED", "KIND_EXPORTED", "KIND_IMPORTED", "KIND_LOCAL", "KIND_UNDEFINED", "KIND_UNKNOWN"),
)


@message("cerbos.request.v1.InspectPoliciesRequest")
class InspectPoliciesRequest(NamedTuple):
    """A question: what do policies refer to."""

    include_disabled: Annotated[bool, Tag(1)] = False
    name_regexp: Annotated[str, Tag(2)] = ""
    scope_regexp: Annotated[str, Tag(3)] = ""
    version_regexp: Annotated[str, Tag(4)] = ""
    policy_id: Annotated[tuple[str, ...], Tag(5, CHOSEN_IDS)] = ()


@message("cerbos.response.v1.InspectPoliciesResponse.Attribute")
class InspectedAttribute(NamedTuple):
    """An attribute that an expression reads."""

    kind: Annotated[str, Tag(1, enum=ATTRIBUTE_KIND)] = "KIND_UNSPECIFIED"
    name: Annotated[str, Tag(2)] = ""


@message("cerbos.response.v1.InspectPoliciesResponse.DerivedRole")
class InspectedRole(NamedTuple):
    """A derived role that is defined or named."""

    name: Annotated[str, Tag(1)] = ""
    kind: Annotated[str, Tag(2, enum=ROLE_KIND)] = "KIND_UNSPECIFIED"
    source: Annotated[str, Tag(3)] = ""


@message("cerbos.response.v1.InspectPoliciesResponse.Constant")
class InspectedConstant(NamedTuple):
    """A constant that is defined or used."""

    name: Annotated[str, Tag(1)] = ""
    value: Annotated[Json, Tag(2)] = ABSENT
    kind: Annotated[str, Tag(3, enum=CONSTANT_KIND)] = "KIND_UNSPECIFIED"
    source: Annotated[str, Tag(4)] = ""
    used: Annotated[bool, Tag(5)] = False


@message("cerbos.response.v1.InspectPoliciesResponse.Variable")
class InspectedVariable(NamedTuple):
    """A variable that is defined or used; *value* is its expression."""

    name: Annotated[str, Tag(1)] = ""
    value: Annotated[str, Tag(2)] = ""
    kind: Annotated[str, Tag(3, enum=VARIABLE_KIND)] = "KIND_UNSPECIFIED"
    source: Annotated[str, Tag(4)] = ""
    used: Annotated[bool, Tag(5)] = False


@message("cerbos.response.v1.InspectPoliciesResponse.Result")
class InspectedPolicy(NamedTuple):
    """What one policy refers to."""

    actions: Annotated[tuple[str, ...], Tag(1)] = ()
    variables: Annotated[tuple[InspectedVariable, ...], Tag(2)] = ()
    policy_id: Annotated[str, Tag(3)] = ""
    derived_roles: Annotated[tuple[InspectedRole, ...], Tag(4)] = ()
    attributes: Annotated[tuple[InspectedAttribute, ...], Tag(5)] = ()
    constants: Annotated[tuple[InspectedConstant, ...], Tag(6)] = ()


@message("cerbos.response.v1.InspectPoliciesResponse")
class InspectPoliciesResponse(NamedTuple):
    """What policies refer to, by their keys."""

    results: Annotated[Mapping[str, InspectedPolicy], Tag(1)] = NOTHING


# --- the store --------------------------------------------------------------------------------------------


@message("cerbos.request.v1.ReloadStoreRequest")
class ReloadStoreRequest(NamedTuple):
    """A command: read the store again."""

    wait: Annotated[bool, Tag(1)] = False


@message("cerbos.response.v1.ReloadStoreResponse")
class ReloadStoreResponse(NamedTuple):
    """It is done, or begun."""


@message("cerbos.request.v1.PurgeStoreRevisionsRequest")
class PurgeStoreRevisionsRequest(NamedTuple):
    """A command: forget what policies were before, but for the newest."""

    keep_last: Annotated[int, Tag(1, unsigned=True)] = 0


@message("cerbos.response.v1.PurgeStoreRevisionsResponse")
class PurgeStoreRevisionsResponse(NamedTuple):
    """How many revisions were forgotten."""

    affected_rows: Annotated[int, Tag(1, unsigned=True)] = 0
