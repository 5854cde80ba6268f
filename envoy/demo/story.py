"""The demo's story: who asks for what, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from tokens import ADMINISTRATOR, EMEA_MANAGER, NA_MANAGER, SALES, Person

if TYPE_CHECKING:
    from collections.abc import Mapping

FORGED = MappingProxyType(
    {
        "x-authz-principal": "adam",
        "x-authz-roles": "admin",
        "x_authz_roles": "admin",
        "X.Authz.Roles": "admin",
    }
)
"""What a client writes that would like to be somebody else."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request and what is expected of it."""

    who: Person | None
    request: str
    """Method and target."""
    status: int
    reason: str = ""
    """Part of the reason that the client is told."""
    arrives: Mapping[str, str] | None = None
    """The ``x-authz-*`` headers that reach the API, exactly; ``None``: the request must not reach it."""
    target: str = ""
    """The target that reaches the API, where it differs from what was asked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the client sends besides its token."""
    expired: bool = False
    """The token is yesterday's."""
    note: str = ""


def allowed(person: Person, **more: str) -> dict[str, str]:
    """Say which headers reach the API with a request of *person*."""
    extra = {f"x-authz-{name}": value for name, value in more.items()}
    return {"x-authz-principal": person.name, "x-authz-roles": ",".join(person.roles), **extra}


STORY: tuple[Step, ...] = (
    Step(None, "GET /api/expenses/1", 401, "authn.missing", note="no token"),
    Step(SALES, "GET /api/expenses/1", 401, "authn.expired", expired=True, note="yesterday's token"),
    Step(SALES, "POST /api/expenses", 201, arrives=allowed(SALES, basis="sales", region="EMEA")),
    Step(SALES, "GET /api/expenses/5", 200, arrives=allowed(SALES, basis="owner"), note="the one just made"),
    Step(SALES, "GET /api/expenses/2", 403, "policy.no_match", note="Derek's"),
    Step(SALES, "DELETE /api/expenses/5", 403, "policy.no_match"),
    Step(SALES, "GET /api/expenses", 200, arrives=allowed(SALES), target="/api/expenses?ownerId=sally"),
    Step(EMEA_MANAGER, "GET /api/expenses/2", 200, arrives=allowed(EMEA_MANAGER, basis="manager of EMEA")),
    Step(EMEA_MANAGER, "GET /api/expenses/3", 403, "expense 3 belongs to NA, you manage EMEA"),
    Step(EMEA_MANAGER, "POST /api/expenses", 403, "policy.no_match"),
    Step(EMEA_MANAGER, "DELETE /api/expenses/2", 403, "policy.no_match"),
    Step(NA_MANAGER, "GET /api/expenses/3", 200, arrives=allowed(NA_MANAGER, basis="manager of NA")),
    Step(NA_MANAGER, "GET /api/expenses/1", 403, "expense 1 belongs to EMEA, you manage NA"),
    Step(
        NA_MANAGER,
        "GET /api/expenses?region=EMEA",
        200,
        arrives=allowed(NA_MANAGER),
        target="/api/expenses?region=NA",
        note="asks for EMEA, gets NA",
    ),
    Step(ADMINISTRATOR, "POST /api/expenses", 201, arrives=allowed(ADMINISTRATOR, basis="administrator")),
    Step(ADMINISTRATOR, "GET /api/expenses/3", 200, arrives=allowed(ADMINISTRATOR, basis="administrator")),
    Step(ADMINISTRATOR, "DELETE /api/expenses/5", 204, arrives=allowed(ADMINISTRATOR, basis="administrator")),
    Step(
        SALES,
        "GET /api/expenses/1",
        200,
        arrives=allowed(SALES, basis="owner"),
        headers=FORGED,
        note="forged headers",
    ),
    Step(SALES, "PUT /api/expenses/1", 405, "route.method", note="no such method"),
    Step(ADMINISTRATOR, "GET /api/expenses/%2e%2e%2fadmin", 400, note="escaped slashes, refused by Envoy"),
    Step(ADMINISTRATOR, "GET /api//expenses", 400, "path.", note="two slashes"),
    Step(ADMINISTRATOR, "GET /elsewhere", 404, "route.not_found", note="no route"),
)
