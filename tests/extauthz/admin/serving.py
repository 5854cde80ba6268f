"""The whole service with its admin API, for tests: over SQLite, or over a directory."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from cerbos.svc.v1 import svc_pb2_grpc

from extauthz.admin.credentials import made_hash
from tests.extauthz.pdp.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

USERNAME, PASSWORD = "ada", "a password of hers"
BASIC = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


@cache
def password_hash() -> str:
    return made_hash(PASSWORD, 10)


@dataclass(frozen=True)
class Served:
    """A service, and clients of it that know the password."""

    service: Running
    http: httpx.Client

    def ask(self, verb: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """Send a request over HTTP; return the status and the JSON of the answer."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        response = self.http.request(verb, path, content=content, **options)
        return response.status_code, response.json()

    def put(self, *policies: Mapping[str, Any]) -> tuple[int, Any]:
        """Put policies."""
        return self.ask("POST", "/admin/policy", {"policies": policies})

    def decides(self, kind: str = "album", action: str = "view", **attr: Any) -> str:
        """Ask for a decision, for user ann; return the effect."""
        question = {
            "principal": {"id": "ann", "roles": ["user"]},
            "resources": [{"actions": [action], "resource": {"kind": kind, "id": "1", "attr": attr}}],
        }
        status, answer = self.ask("POST", "/api/check/resources", question)
        assert status == 200
        effect: str = answer["results"][0]["actions"][action]
        return effect

    @contextlib.contextmanager
    def stub(self) -> Iterator[svc_pb2_grpc.CerbosAdminServiceStub]:
        """Open a channel for the official generated client."""
        with grpc.insecure_channel(self.service.served.grpc) as channel:
            yield svc_pb2_grpc.CerbosAdminServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


@contextlib.contextmanager
def served(
    storage: Mapping[str, Any], *, blocks: Mapping[str, Any] | None = None, **admin: Any
) -> Iterator[Served]:
    """Serve a store; *admin* are further keys of ``adminAPI``, *blocks* further blocks."""
    api = {
        "enabled": True,
        "adminCredentials": {"username": USERNAME, "passwordHash": password_hash()},
        **admin,
    }
    server = {"httpListenAddr": "127.0.0.1:0", "grpcListenAddr": "127.0.0.1:0", "adminAPI": api}
    text = json.dumps({"server": server, "storage": storage, **(blocks or {})}).replace("$", "$$")
    with running(text) as service:
        client = httpx.Client(
            base_url=service.served.http, headers={"authorization": BASIC}, timeout=60, trust_env=False
        )
        with client:
            yield Served(service, client)


def sqlite(folder: Path) -> dict[str, Any]:
    """Return the ``storage`` block of a database in *folder*."""
    return {"driver": "sqlite3", "sqlite3": {"dsn": f"file:{folder}/policies.db?mode=rwc&_fk=true"}}


def disk(folder: Path) -> dict[str, Any]:
    """Return the ``storage`` block of a directory."""
    return {"driver": "disk", "disk": {"directory": str(folder)}}


# --- policies ---------------------------------------------------------------------------------------------


def resource(
    kind: str = "album", *, effect: str = "EFFECT_ALLOW", scope: str = "", **more: Any
) -> dict[str, Any]:
    """Return a resource policy by which users may view."""
    rules = [{"actions": ["view"], "effect": effect, "roles": ["user"]}]
    body = {"resource": kind, "version": "default", "scope": scope, "rules": rules, **more}
    return {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": body}


def roles(name: str = "roles") -> dict[str, Any]:
    """Return a set of derived roles."""
    match = {"match": {"expr": "R.attr.owner == P.id"}}
    definitions = [{"name": "owner", "parentRoles": ["user"], "condition": match}]
    return {"apiVersion": "api.cerbos.dev/v1", "derivedRoles": {"name": name, "definitions": definitions}}


def owned(kind: str = "album", sets: tuple[str, ...] = ("roles",)) -> dict[str, Any]:
    """Return a resource policy that imports derived roles."""
    rules = [{"actions": ["view"], "effect": "EFFECT_ALLOW", "derivedRoles": ["owner"]}]
    body = {"resource": kind, "version": "default", "importDerivedRoles": list(sets), "rules": rules}
    return {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": body}
