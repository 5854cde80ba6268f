"""What the fields of the PDP API's messages mean, in a sentence each, for the OpenAPI document.

A test walks the messages: every field has its sentence, and every sentence a field.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "request_id": "Chosen by the caller and repeated in the answer and in logs.",
        "cerbos_call_id": "Names this answer in the audit log.",
        "include_meta": "Also answer why: the policies and scopes that decided.",
        "aux_data": "Tokens whose verified claims policies may read.",
        "request_context": "What the caller wants to find in the audit log again; policies do not see it.",
        "principal": "Who asks.",
        "policy_version": "The version of the policies to decide by; empty for the configured default.",
        "scope": (
            "Where to begin the search for policies, such as `acme.hr`; empty for the configured default."
        ),
        "matched_policy": "The policy that decided, or `NO_MATCH`.",
        "matched_scope": "The scope of the rule that decided.",
        "effective_derived_roles": "The derived roles that the principal had here.",
        "include_disabled": "Also those that are disabled.",
        "name_regexp": "Only those whose name has a match of this regular expression (RE2) in it.",
        "scope_regexp": "Only those whose scope has a match of this regular expression (RE2) in it.",
        "version_regexp": "Only those whose version has a match of this regular expression (RE2) in it.",
        "policy_id": (
            "The id of a policy: `resource.album.vdefault/acme` in a database, a path in a store of files."
        ),
        "validation_errors": "Attributes that do not keep to the schemas of the policy.",
    }
)
"""Fields that mean the same in every message that has them."""

HERE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "cerbos.engine.v1.Principal": {
            "id": "The id of who asks.",
            "roles": "What the identity provider says the principal is.",
            "attr": "What policies read as `P.attr`.",
        },
        "cerbos.engine.v1.Resource": {
            "kind": "The kind that resource policies are written for.",
            "id": "Which one of its kind.",
            "attr": "What policies read as `R.attr`.",
        },
        "cerbos.engine.v1.OutputEntry": {
            "src": "The policy and rule that spoke.",
            "val": "What the rule's output expression came to.",
            "action": "The action that was asked for.",
            "error": "Why the output expression has no value.",
        },
        "cerbos.engine.v1.PlanResourcesInput.Resource": {
            "kind": "The kind of resources to list.",
            "attr": "Attributes that all of them have.",
        },
        "cerbos.engine.v1.PlanResourcesFilter": {
            "kind": "Whether all resources, none, or some are meant.",
            "condition": "What a resource has to fulfil; only with `KIND_CONDITIONAL`.",
        },
        "cerbos.engine.v1.PlanResourcesFilter.Expression": {
            "operator": "The operator, such as `and`, `eq` or `in`.",
            "operands": "What the operator is applied to, in order.",
        },
        "cerbos.engine.v1.PlanResourcesFilter.Expression.Operand": {
            "value": "A constant.",
            "expression": "The result of another operator.",
            "variable": "An attribute of the resource, such as `request.resource.attr.owner`.",
        },
        "cerbos.audit.v1.RequestContext": {
            "annotations": "Anything, by names of the caller's choice.",
        },
        "cerbos.schema.v1.ValidationError": {
            "path": "Which attribute, as a JSON pointer.",
            "message": "What is wrong with it.",
            "source": "Whose attribute it is.",
        },
        "cerbos.schema.v1.Schema": {
            "id": "The path by which policies refer to it, behind `cerbos:///`.",
            "definition": "The JSON Schema.",
        },
        "cerbos.request.v1.AddOrUpdatePolicyRequest": {"policies": "The policies, in their JSON form."},
        "cerbos.response.v1.AddOrUpdatePolicyResponse": {"success": "There when it is done."},
        "cerbos.request.v1.AddOrUpdateSchemaRequest": {"schemas": "The schemas."},
        "cerbos.response.v1.ListPoliciesResponse": {"policy_ids": "The ids, sorted."},
        "cerbos.request.v1.GetPolicyRequest": {"id": "Which policies."},
        "cerbos.response.v1.GetPolicyResponse": {"policies": "Those that are there."},
        "cerbos.response.v1.ListSchemasResponse": {"schema_ids": "The ids, sorted."},
        "cerbos.request.v1.GetSchemaRequest": {"id": "Which schemas."},
        "cerbos.response.v1.GetSchemaResponse": {"schemas": "The schemas."},
        "cerbos.request.v1.DeletePolicyRequest": {"id": "Which policies."},
        "cerbos.response.v1.DeletePolicyResponse": {"deleted_policies": "How many were deleted."},
        "cerbos.request.v1.DisablePolicyRequest": {"id": "Which policies."},
        "cerbos.response.v1.DisablePolicyResponse": {"disabled_policies": "How many were disabled."},
        "cerbos.request.v1.EnablePolicyRequest": {"id": "Which policies."},
        "cerbos.response.v1.EnablePolicyResponse": {"enabled_policies": "How many were enabled."},
        "cerbos.request.v1.DeleteSchemaRequest": {"id": "Which schemas."},
        "cerbos.response.v1.DeleteSchemaResponse": {"deleted_schemas": "How many were deleted."},
        "cerbos.request.v1.ReloadStoreRequest": {"wait": "Answer when the store was read, not before."},
        "cerbos.request.v1.PurgeStoreRevisionsRequest": {
            "keep_last": "How many revisions of each policy stay; 0: none.",
        },
        "cerbos.response.v1.PurgeStoreRevisionsResponse": {"affected_rows": "How many were forgotten."},
        "cerbos.response.v1.InspectPoliciesResponse": {"results": "By the keys of the policies."},
        "cerbos.response.v1.InspectPoliciesResponse.Result": {
            "actions": "The actions that its rules name.",
            "variables": "The variables that it defines or uses.",
            "policy_id": "The id of the policy.",
            "derived_roles": "The derived roles that it defines or names.",
            "attributes": "The attributes that its expressions read.",
            "constants": "The constants that it defines or uses.",
        },
        "cerbos.response.v1.InspectPoliciesResponse.Attribute": {
            "kind": "Whose attribute.",
            "name": "Its name.",
        },
        "cerbos.response.v1.InspectPoliciesResponse.DerivedRole": {
            "name": "Its name.",
            "kind": "Where it is defined.",
            "source": "The policy that defines it.",
        },
        "cerbos.response.v1.InspectPoliciesResponse.Constant": {
            "name": "Its name.",
            "value": "What it is.",
            "kind": "Where it is defined.",
            "source": "The policy that defines it.",
            "used": "Whether an expression reads it.",
        },
        "cerbos.response.v1.InspectPoliciesResponse.Variable": {
            "name": "Its name.",
            "value": "Its expression.",
            "kind": "Where it is defined.",
            "source": "The policy that defines it.",
            "used": "Whether an expression reads it.",
        },
        "cerbos.request.v1.AuxData": {
            "jwt": "One token; policies read its claims as `request.auxData.jwt`.",
            "jwts": "Several tokens by name; policies read `request.auxData.jwts.<name>.claims`.",
        },
        "cerbos.request.v1.AuxData.JWT": {
            "token": "The signed token.",
            "key_set_id": "The key set to verify it with; may be left out when only one is configured.",
        },
        "cerbos.request.v1.CheckResourcesRequest": {
            "resources": "The resources, each with the actions to decide.",
        },
        "cerbos.request.v1.CheckResourcesRequest.ResourceEntry": {
            "actions": "The actions to decide.",
            "resource": "What the actions are for.",
        },
        "cerbos.request.v1.CheckResourceSetRequest": {
            "actions": "The actions to decide for each instance.",
            "resource": "The resources.",
        },
        "cerbos.request.v1.ResourceSet": {
            "kind": "The kind that resource policies are written for.",
            "instances": "Attributes, by the ids of the resources.",
        },
        "cerbos.request.v1.AttributesMap": {
            "attr": "What policies read as `R.attr`.",
        },
        "cerbos.request.v1.CheckResourceBatchRequest": {
            "resources": "The resources, each with the actions to decide.",
        },
        "cerbos.request.v1.CheckResourceBatchRequest.BatchEntry": {
            "actions": "The actions to decide.",
            "resource": "What the actions are for.",
        },
        "cerbos.request.v1.PlanResourcesRequest": {
            "action": "The action to plan for; either this or `actions`.",
            "actions": "Actions that are all to be allowed.",
            "resource": "The kind of resources to list.",
        },
        "cerbos.response.v1.CheckResourcesResponse": {
            "results": "An answer for each resource, in the order of the request.",
        },
        "cerbos.response.v1.CheckResourcesResponse.ResultEntry": {
            "resource": "Which resource this is about.",
            "actions": "What was decided, by action.",
            "meta": "Why; only when asked for.",
            "outputs": "What the rules had to say.",
        },
        "cerbos.response.v1.CheckResourcesResponse.ResultEntry.Resource": {
            "id": "The id, as sent.",
            "kind": "The kind, as sent.",
            "policy_version": "The version, as sent.",
            "scope": "The scope, as sent.",
        },
        "cerbos.response.v1.CheckResourcesResponse.ResultEntry.Meta": {
            "actions": "What decided, by action.",
        },
        "cerbos.response.v1.CheckResourceSetResponse": {
            "resource_instances": "What was decided, by instance.",
            "meta": "Why; only when asked for.",
        },
        "cerbos.response.v1.CheckResourceSetResponse.ActionEffectMap": {
            "actions": "What was decided, by action.",
        },
        "cerbos.response.v1.CheckResourceSetResponse.Meta": {
            "resource_instances": "What decided, by instance.",
        },
        "cerbos.response.v1.CheckResourceSetResponse.Meta.ActionMeta": {
            "actions": "What decided, by action.",
        },
        "cerbos.response.v1.CheckResourceBatchResponse": {
            "results": "An answer for each resource, in the order of the request.",
        },
        "cerbos.response.v1.CheckResourceBatchResponse.ActionEffectMap": {
            "resource_id": "Which resource this is about.",
            "actions": "What was decided, by action.",
        },
        "cerbos.response.v1.PlanResourcesResponse": {
            "action": "The action, when one was asked for.",
            "actions": "The actions, when a list was asked for.",
            "resource_kind": "The kind of resources to list.",
            "policy_version": "The version, as sent.",
            "filter": "Which resources the principal may act on.",
            "meta": "How the filter came about; only when asked for.",
        },
        "cerbos.response.v1.PlanResourcesResponse.Meta": {
            "filter_debug": "The condition in a short form for people.",
            "matched_scopes": "The scopes that decided, by action.",
        },
        "cerbos.response.v1.ServerInfoResponse": {
            "version": "The version of the server.",
            "commit": "The commit that it was built from.",
            "build_date": "When it was built.",
        },
        "extauthz.v1.ExplainResourcesResponse": {
            "results": "An answer for each resource, in the order of the request.",
        },
        "extauthz.v1.ExplainResourcesResponse.ResultEntry": {
            "resource": "Which resource this is about.",
            "actions": "What was decided, by action.",
            "meta": "Which policy decided; only when asked for.",
            "outputs": "What the rules had to say.",
            "explanation": "The way to each decision: scopes, rules, conditions and what they read.",
        },
        "authzen.authorization.v1.Subject": {
            "type": "What the subject is; its only role when no `cerbos.roles` are given.",
            "id": "The id of who asks.",
            "properties": (
                "What policies read as `P.attr`; `cerbos.roles`, `cerbos.policyVersion` and `cerbos.scope` "
                "are also taken for what they say."
            ),
        },
        "authzen.authorization.v1.Resource": {
            "type": "The kind that resource policies are written for.",
            "id": "Which one of its kind.",
            "properties": (
                "What policies read as `R.attr`; `cerbos.policyVersion` and `cerbos.scope` are also taken "
                "for what they say."
            ),
        },
        "authzen.authorization.v1.Action": {
            "name": "The action to decide.",
            "properties": "Accepted, and read by no policy.",
        },
        "authzen.authorization.v1.AccessEvaluationRequest": {
            "subject": "Who asks.",
            "resource": "What is asked for.",
            "action": "What is to be done.",
            "context": (
                "`cerbos.requestId`, `cerbos.auxData` and `cerbos.includeMeta` are understood; the rest is "
                "read by no policy."
            ),
        },
        "authzen.authorization.v1.AccessEvaluationResponse": {
            "decision": "Whether it is allowed.",
            "context": "With `cerbos.includeMeta`, the answer of Check resources as `cerbos.response`.",
        },
        "authzen.authorization.v1.AccessEvaluationBatchRequest": {
            "subject": "Who asks, where an evaluation does not say.",
            "resource": "What is asked for, where an evaluation does not say.",
            "action": "What is to be done, where an evaluation does not say.",
            "context": "The context, where an evaluation has none.",
            "evaluations": "The questions.",
            "options": "How the batch is worked through.",
        },
        "authzen.authorization.v1.AccessEvaluationBatchRequest.Evaluation": {
            "subject": "Who asks, if somebody else than in the batch.",
            "resource": "What is asked for, if something else than in the batch.",
            "action": "What is to be done, if something else than in the batch.",
            "context": "Instead of the context of the batch, as a whole.",
        },
        "authzen.authorization.v1.AccessEvaluationsOptions": {
            "evaluations_semantic": (
                "When to stop; `execute_all` when empty. Also understood as `evaluations_semantic`."
            ),
        },
        "authzen.authorization.v1.AccessEvaluationBatchResponse": {
            "evaluations": (
                "The decisions, in the order of the questions, up to the one that ended the batch."
            ),
        },
        "authzen.authorization.v1.MetadataResponse": {
            "policy_decision_point": "The address of this server.",
            "access_evaluation_endpoint": "The address of Access evaluation.",
            "access_evaluations_endpoint": "The address of Access evaluations.",
        },
    }
)
"""Fields of one message."""


def words(message: str, field: str) -> str:
    """Return the sentence about a field; *message* is a full name.

    Raises:
        KeyError: nobody has written one.

    """
    return HERE.get(message, {}).get(field) or EVERYWHERE[field]
