"""The service that is measured: a policy with derived roles, three headers from outputs and claims."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from typing import TYPE_CHECKING

import yaml

from extauthz import app, config
from tests.bench.wire import BROWSER
from tests.extauthz.key_server import jwks, token
from tests.extauthz.requests import check_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISSUER = "https://id.example.com/"

DERIVED_ROLES = """
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions:
    - name: owner
      parentRoles: [user]
      condition: {match: {expr: R.attr.ownerId == P.id}}
    - name: regional_manager
      parentRoles: [manager]
      condition: {match: {expr: R.attr.region == P.attr.region}}
"""

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: KIND
  version: default
  importDerivedRoles: [roles]
  rules:
    - {name: admins, actions: ["*"], effect: EFFECT_ALLOW, roles: [admin]}
    - name: owners
      actions: [read, update]
      effect: EFFECT_ALLOW
      derivedRoles: [owner]
      output: {when: {ruleActivated: '"owner of " + R.id'}}
    - name: managers
      actions: [read]
      effect: EFFECT_ALLOW
      derivedRoles: [regional_manager]
      condition:
        match: {expr: 'R.attr.channel in ["web", "app"] && P.attr.department != "AUDIT"'}
    - name: closed
      actions: [update]
      effect: EFFECT_DENY
      roles: ["*"]
      condition: {match: {expr: R.attr.status == "CLOSED"}}
"""

CONFIGURATION = """
storage: {driver: disk, disk: {directory: "${POLICIES}"}}
server:
  grpcListenAddr: "${GRPC:127.0.0.1:0}"
  httpListenAddr: "${HTTP:127.0.0.1:0}"
  workers: "${WORKERS:1}"
auxData: {jwt: {keySets: [{id: company, local: {data: "${JWKS}"}}]}}
extAuthz:
  identity:
    - jwt: {keySetID: company, issuer: https://id.example.com/, audiences: [api], algorithms: [RS256, ES256]}
      principal:
        id: {claim: sub}
        roles: {claim: roles}
        attr: {region: {claim: region}, department: {claim: dept}}
  ownedHeaders: [x-authz-principal, x-authz-roles]
  routes:
    - match: {path: "/api/expenses/{id}", hosts: [api.example.com]}
      actions: {GET: read, PATCH: update, DELETE: delete}
      resource:
        kind: expense
        id: "{id}"
        attr:
          ownerId: {claim: sub}
          region: {claim: region}
          channel: {query: channel, default: web}
          status: OPEN
      allow:
        headers:
          x-authz-principal: {expr: principal.id}
          x-authz-roles: {expr: principal.roles}
          x-authz-basis: {expr: outputs.owners}
        removeHeaders: [authorization]
"""

URL = "https://api.example.com/api/expenses/5b1f0f0a-8d7e-4f5a-9b0c-444455556666?channel=web"


def write_policies(directory: Path, kinds: int = 1) -> None:
    """Write the derived roles, and the policy once for ``expense`` and for each further kind."""
    (directory / "roles.yaml").write_text(DERIVED_ROLES)
    for kind in ["expense", *(f"kind{number}" for number in range(1, kinds))]:
        (directory / f"{kind}.yaml").write_text(POLICY.replace("KIND", kind))


def user_token(key: str = "rsa", alg: str = "RS256") -> str:
    """Make a token with the claims that the configuration reads, good for an hour."""
    claims = {
        "iss": ISSUER,
        "aud": ["api", "web"],
        "sub": "alice@example.com",
        "roles": ["user", "manager"],
        "region": "EMEA",
        "dept": "SALES",
        "exp": int(time.time()) + 3600,
    }
    return token(claims, key=key, alg=alg)


def request(bearer: str | None = None, url: str = URL, method: str = "GET") -> bytes:
    """Serialize the typical request, or one that differs in a single way."""
    return check_request(method, url, BROWSER, token=user_token() if bearer is None else bearer)


def environment(
    policies: Path, *, grpc: str = "127.0.0.1:0", http: str = "127.0.0.1:0", workers: int = 1
) -> dict[str, str]:
    """Return the variables that the configuration reads."""
    keys = base64.b64encode(jwks("rsa", "ec")).decode()
    return {"POLICIES": str(policies), "JWKS": keys, "GRPC": grpc, "HTTP": http, "WORKERS": str(workers)}


@contextlib.contextmanager
def running(directory: Path, routes: int = 1) -> Iterator[app.App]:
    """Give the service, ready; with as many *routes*, of which requests go to the first."""
    write_policies(directory)
    document = yaml.safe_load(CONFIGURATION)
    listed = document["extAuthz"]["routes"]
    listed += [{**listed[0], "match": {"path": f"/api/kind{number}/{{id}}"}} for number in range(1, routes)]
    loaded = config.parse(yaml.safe_dump(document), "bench.yaml", environment(directory))
    with asyncio.Runner() as runner:
        made = app.build(loaded.config)
        runner.run(made.start())
        try:
            yield made
        finally:
            runner.run(made.stop())
