"""The calls of the admin API: what goes in and comes out, and where they are over HTTP."""

from __future__ import annotations

from typing import Final

from extauthz.pdp import admin_messages as messages
from extauthz.pdp.method import Method

ADMIN: Final = "cerbos.svc.v1.CerbosAdminService"

ADD_OR_UPDATE_POLICY: Final = Method(
    ADMIN,
    "AddOrUpdatePolicy",
    "POST",
    "/admin/policy",
    messages.AddOrUpdatePolicyRequest,
    messages.AddOrUpdatePolicyResponse,
    also=(("PUT", "/admin/policy"),),
)
INSPECT_POLICIES: Final = Method(
    ADMIN,
    "InspectPolicies",
    "GET",
    "/admin/policies/inspect",
    messages.InspectPoliciesRequest,
    messages.InspectPoliciesResponse,
    long=True,
    in_query=True,
)
LIST_POLICIES: Final = Method(
    ADMIN,
    "ListPolicies",
    "GET",
    "/admin/policies",
    messages.ListPoliciesRequest,
    messages.ListPoliciesResponse,
    long=True,
    in_query=True,
)
GET_POLICY: Final = Method(
    ADMIN,
    "GetPolicy",
    "GET",
    "/admin/policy",
    messages.GetPolicyRequest,
    messages.GetPolicyResponse,
    long=True,
    in_query=True,
)
DELETE_POLICY: Final = Method(
    ADMIN,
    "DeletePolicy",
    "POST",
    "/admin/policy/delete",
    messages.DeletePolicyRequest,
    messages.DeletePolicyResponse,
    in_query=True,
)
DISABLE_POLICY: Final = Method(
    ADMIN,
    "DisablePolicy",
    "POST",
    "/admin/policy/disable",
    messages.DisablePolicyRequest,
    messages.DisablePolicyResponse,
    also=(("PUT", "/admin/policy/disable"), ("DELETE", "/admin/policy")),
    in_query=True,
)
ENABLE_POLICY: Final = Method(
    ADMIN,
    "EnablePolicy",
    "POST",
    "/admin/policy/enable",
    messages.EnablePolicyRequest,
    messages.EnablePolicyResponse,
    also=(("PUT", "/admin/policy/enable"),),
    in_query=True,
)
ADD_OR_UPDATE_SCHEMA: Final = Method(
    ADMIN,
    "AddOrUpdateSchema",
    "POST",
    "/admin/schema",
    messages.AddOrUpdateSchemaRequest,
    messages.AddOrUpdateSchemaResponse,
    also=(("PUT", "/admin/schema"),),
)
LIST_SCHEMAS: Final = Method(
    ADMIN,
    "ListSchemas",
    "GET",
    "/admin/schemas",
    messages.ListSchemasRequest,
    messages.ListSchemasResponse,
    in_query=True,
)
GET_SCHEMA: Final = Method(
    ADMIN,
    "GetSchema",
    "GET",
    "/admin/schema",
    messages.GetSchemaRequest,
    messages.GetSchemaResponse,
    long=True,
    in_query=True,
)
DELETE_SCHEMA: Final = Method(
    ADMIN,
    "DeleteSchema",
    "DELETE",
    "/admin/schema",
    messages.DeleteSchemaRequest,
    messages.DeleteSchemaResponse,
    in_query=True,
)
RELOAD_STORE: Final = Method(
    ADMIN,
    "ReloadStore",
    "GET",
    "/admin/store/reload",
    messages.ReloadStoreRequest,
    messages.ReloadStoreResponse,
    in_query=True,
)
PURGE_STORE_REVISIONS: Final = Method(
    ADMIN,
    "PurgeStoreRevisions",
    "DELETE",
    "/admin/store/revisions",
    messages.PurgeStoreRevisionsRequest,
    messages.PurgeStoreRevisionsResponse,
    in_query=True,
)
METHODS: Final = (
    ADD_OR_UPDATE_POLICY,
    INSPECT_POLICIES,
    LIST_POLICIES,
    GET_POLICY,
    DELETE_POLICY,
    DISABLE_POLICY,
    ENABLE_POLICY,
    ADD_OR_UPDATE_SCHEMA,
    LIST_SCHEMAS,
    GET_SCHEMA,
    DELETE_SCHEMA,
    RELOAD_STORE,
    PURGE_STORE_REVISIONS,
)
"""All but ListAuditLogEntries, which answers a stream of what there is not yet: :data:`AUDIT_LOG`."""

AUDIT_LOG: Final = "ListAuditLogEntries"
AUDIT_LOG_PATHS: Final = ("/admin/auditlog/list/KIND_ACCESS", "/admin/auditlog/list/KIND_DECISION")
NO_AUDIT_LOG: Final = "Audit logs are not enabled"
"""What Cerbos says where there is no audit log to be queried."""
