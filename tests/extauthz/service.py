"""A whole service in process, for tests: real configuration, real policies, real keys; only the clock runs.

An expense may be read by a user whose own it is, and by an administrator; ``explode`` meets a rule that
fails; outputs say why.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from envoy_data_plane.envoy.service.auth import v3 as auth

from extauthz import app, config
from tests.extauthz.key_server import jwks, token

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://id.example.com/"

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  rules:
    - name: own
      actions: [read, update]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {match: {expr: R.attr.ownerId == P.id}}
      output:
        when:
          ruleActivated: '{"basis": "owner", "region": R.attr.region}'
          conditionNotMet: '{"reason": "expense " + R.id + " is not yours"}'
    - {name: all, actions: ["*"], effect: EFFECT_ALLOW, roles: [admin]}
    - name: newline
      actions: [newline]
      effect: EFFECT_ALLOW
      roles: ["*"]
      output: {when: {ruleActivated: '{"basis": "two\\nlines", "reason": "two\\nlines"}'}}
    - {name: forbidden, actions: [explode, forbid], effect: EFFECT_DENY, roles: ["*"],
       condition: {match: {expr: request.resource.attr.missing == 1 || R.attr.ownerId == ""}}}
    - {name: exploding, actions: [explode], effect: EFFECT_ALLOW, roles: ["*"]}
    - {name: refusing, actions: [refuse], effect: EFFECT_DENY, roles: ["*"]}
    - name: forbidding
      actions: [forbid-newline]
      effect: EFFECT_DENY
      roles: ["*"]
      output: {when: {ruleActivated: '{"reason": "two\\nlines"}'}}
    - {name: create, actions: [create], effect: EFFECT_ALLOW, roles: [user],
       condition: {match: {expr: R.attr.amount < 100.0}}}
    - {name: look, actions: [look], effect: EFFECT_ALLOW, roles: [user, anonymous]}
"""

CONFIGURATION = """
storage: {driver: disk, disk: {directory: "${POLICIES}"}}
auxData:
  jwt:
    keySets:
      - {id: company, local: {data: "${JWKS}"}}
      - {id: elsewhere, remote: {url: "${KEYS}", timeout: 200ms}}
extAuthz:
  identity:
    - jwt: &company
        keySetID: company
        issuer: https://id.example.com/
        audiences: [api]
        algorithms: [RS256, ES256]
        from: [{header: authorization}, {cookie: sid}]
        maxTokenBytes: 4096
      principal: &principal
        id: {claim: sub}
        roles: {claim: roles}
        attr: {region: {claim: region, optional: true}}
    - id: elsewhere
      jwt: {<<: *company, keySetID: elsewhere}
      principal: *principal
  ownedHeaders: [x-authz-principal, x-authz-roles]
  sources:
    expense: {http: {url: "${API}/expenses/{id}", timeout: "${TIMEOUT}", cache: {ttl: 5s, max: 100}}}
    uncached: {http: {url: "${API}/expenses/{id}", timeout: "${TIMEOUT}", notFound: empty}}
  routes:
    - GET /healthz: allow
    - GET /internal: deny
    - match: {path: "/expenses/{id}"}
      id: expense
      identity: company
      actions: {GET: read, DELETE: delete}
      resource: {kind: expense, id: "{id}", attr: {source: expense}}
      allow: &allow
        headers: {x-authz-principal: {expr: principal.id}, x-authz-roles: {expr: principal.roles},
                  x-authz-basis: {expr: "outputs.?basis"}}
        removeHeaders: [authorization]
        responseHeaders: {x-policy: {expr: decision.policy}}
      deny: &deny {headers: {x-denial-reason: {expr: "outputs.?reason.orValue(reason)"}}}
    - match: {path: "/uncached/{id}"}
      identity: company
      actions: {GET: read}
      resource: {kind: expense, id: "{id}", attr: {source: uncached}}
    - match: {path: /elsewhere}
      identity: elsewhere
      actions: {GET: look}
      resource: {kind: expense, id: "1"}
    - match: {path: /open}
      identity: company
      anonymous: allow
      actions: {GET: look, POST: create}
      resource: {kind: expense, id: "1"}
      allow: *allow
    - match: {path: /list}
      identity: company
      actions: {GET: look}
      resource: {kind: expense, id: "*"}
      allow: {query: {set: {owner: {expr: principal.id}, region: {expr: "outputs.?region"}}, remove: [debug]}}
    - match: {path: "/files/{name}"}
      identity: company
      normalize: {encodedSlash: keep}
      actions: {GET: look}
      resource: {kind: expense, id: "{name}"}
    - match: {path: /create}
      identity: company
      actions: {POST: create}
      resource: {kind: expense, id: new, attr: {amount: {expr: body.amount}}}
    - match: {path: "/act/{action}"}
      identity: company
      action: "{action}"
      resource: {kind: expense, id: {header: x-id}, attr: {ownerId: me}}
      allow: *allow
      deny: *deny
    - match: {path: /broken}
      identity: company
      actions: {GET: look}
      resource: {kind: expense, id: "1"}
      allow: {headers: {x-tenant: {claim: tenant}}}
"""


@contextlib.asynccontextmanager
async def service(
    directory: Path,
    *,
    api: str = "http://127.0.0.1:9",
    keys: str = "http://127.0.0.1:9/jwks",
    timeout: str = "5s",
    policy: str = POLICY,
    configuration: str = CONFIGURATION,
) -> AsyncIterator[app.App]:
    """Run a service with its policies in *directory*; by default nobody listens where it looks things up."""
    (directory / "expense.yaml").write_text(policy)
    environment = {
        "POLICIES": str(directory),
        "JWKS": base64.b64encode(jwks("rsa", "ec")).decode(),
        "API": api,
        "KEYS": keys,
        "TIMEOUT": timeout,
    }
    made = app.build(config.parse(configuration, "config.yaml", environment).config)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def ask(made: app.App, request: bytes) -> auth.CheckResponse:
    """Ask, wait if need be, and read the answer with the codec that is not ours."""
    answer = made.authorizer.check(request)
    data = await answer if isinstance(answer, Awaitable) else answer
    assert isinstance(data, bytes)
    return auth.CheckResponse.parse(data)


def user_token(**claims: Any) -> str:
    """Make the token of ``alice``, a user; *claims* replace hers, one that is None is left out."""
    usual: Mapping[str, Any] = {
        "iss": ISSUER,
        "aud": "api",
        "sub": "alice",
        "roles": ["user"],
        "exp": int(time.time()) + 3600,
    }
    return token({**usual, **claims})
