"""The services of the PDP API: every call, what goes in and comes out, and where it is over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engine import policy_messages
from extauthz.pdp import admin_messages, admin_methods, authzen_messages, explain_messages, messages
from extauthz.pdp.authzen import EVALUATION_PATH, EVALUATIONS_PATH, METADATA_PATH, AuthZen, origin
from extauthz.pdp.descriptors import Files
from extauthz.pdp.explaining import Explaining
from extauthz.pdp.method import Method
from extauthz.pdp.status import Status
from extauthz.pdp.violations import Violations
from extauthz.pdp.wire import Codec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from extauthz.pdp.calls import Pdp
    from extauthz.pdp.method import Answer, Caller

CERBOS: Final = "cerbos.svc.v1.CerbosService"
AUTHZEN: Final = "authzen.authorization.v1.AuthorizationService"
OURS: Final = "extauthz.v1.ExplainService"
"""Only over HTTP: its answers nest deeper than readers of gRPC messages go."""


CHECK_RESOURCES: Final = Method(
    CERBOS,
    "CheckResources",
    "POST",
    "/api/check/resources",
    messages.CheckResourcesRequest,
    messages.CheckResourcesResponse,
)
CHECK_RESOURCE_SET: Final = Method(
    CERBOS,
    "CheckResourceSet",
    "POST",
    "/api/check",
    messages.CheckResourceSetRequest,
    messages.CheckResourceSetResponse,
)
CHECK_RESOURCE_BATCH: Final = Method(
    CERBOS,
    "CheckResourceBatch",
    "POST",
    "/api/check_resource_batch",
    messages.CheckResourceBatchRequest,
    messages.CheckResourceBatchResponse,
)
PLAN_RESOURCES: Final = Method(
    CERBOS,
    "PlanResources",
    "POST",
    "/api/plan/resources",
    messages.PlanResourcesRequest,
    messages.PlanResourcesResponse,
)
SERVER_INFO: Final = Method(
    CERBOS,
    "ServerInfo",
    "GET",
    "/api/server_info",
    messages.ServerInfoRequest,
    messages.ServerInfoResponse,
)
ACCESS_EVALUATION: Final = Method(
    AUTHZEN,
    "AccessEvaluation",
    "POST",
    EVALUATION_PATH,
    authzen_messages.AccessEvaluationRequest,
    authzen_messages.AccessEvaluationResponse,
)
ACCESS_EVALUATION_BATCH: Final = Method(
    AUTHZEN,
    "AccessEvaluationBatch",
    "POST",
    EVALUATIONS_PATH,
    authzen_messages.AccessEvaluationBatchRequest,
    authzen_messages.AccessEvaluationBatchResponse,
)
METADATA: Final = Method(
    AUTHZEN,
    "Metadata",
    "GET",
    METADATA_PATH,
    authzen_messages.MetadataRequest,
    authzen_messages.MetadataResponse,
)
EXPLAIN_RESOURCES: Final = Method(
    OURS,
    "ExplainResources",
    "POST",
    "/api/explain/resources",
    messages.CheckResourcesRequest,
    explain_messages.ExplainResourcesResponse,
    long=True,
)
METHODS: Final = (
    CHECK_RESOURCES,
    PLAN_RESOURCES,
    SERVER_INFO,
    CHECK_RESOURCE_SET,
    CHECK_RESOURCE_BATCH,
    METADATA,
    ACCESS_EVALUATION,
    ACCESS_EVALUATION_BATCH,
)
"""What is always served; explanations only when they are asked for in the configuration."""
DESCRIBED: Final = (*METHODS, *admin_methods.METHODS)
"""What the descriptors tell of, served or not."""
SERVICES: Final = (CERBOS, AUTHZEN, admin_methods.ADMIN)


# --- answers ----------------------------------------------------------------------------------------------


def answers(pdp: Pdp, *, explain: bool = False) -> Mapping[Method, Answer]:
    """Tell for each method what answers it; *explain*: explanations are served too."""
    authzen = AuthZen(pdp)

    async def metadata(request: Any, caller: Callable[[], Caller]) -> Any:
        asking = caller()
        return await authzen.metadata(request, origin(asking.headers, tls=asking.tls))

    explaining = {EXPLAIN_RESOURCES: _for_anyone(Explaining(pdp).explain_resources)} if explain else {}
    return {
        CHECK_RESOURCES: _for_anyone(pdp.check_resources),
        CHECK_RESOURCE_SET: _for_anyone(pdp.check_resource_set),
        CHECK_RESOURCE_BATCH: _for_anyone(pdp.check_resource_batch),
        PLAN_RESOURCES: _for_anyone(pdp.plan_resources),
        SERVER_INFO: _for_anyone(pdp.server_info),
        ACCESS_EVALUATION: _for_anyone(authzen.access_evaluation),
        ACCESS_EVALUATION_BATCH: _for_anyone(authzen.access_evaluation_batch),
        METADATA: metadata,
        **explaining,
    }


def _for_anyone(call: Callable[[Any], Awaitable[Any]]) -> Answer:
    return lambda request, _: call(request)


# --- descriptors ------------------------------------------------------------------------------------------


def _files() -> Files:
    files = Files()
    for declared in policy_messages.FILES:
        files.add_file(declared)
    for service in SERVICES:
        methods = [each for each in DESCRIBED if each.service == service]
        files.add_service(service, [(each.name, each.request, each.response) for each in methods])
    files.add(Violations, Status, EXPLAIN_RESOURCES.response)
    files.add(admin_messages.DeletePolicyErrorDetails, admin_messages.DisablePolicyErrorDetails)
    files.close()
    return files


FILES: Final = _files()
CODEC: Final = Codec(FILES)
