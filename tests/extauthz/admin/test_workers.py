"""Several workers share the ports: what one is told, all of them do."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tests.e2e.pdp_server import PATIENCE, extauthz
from tests.extauthz.admin.serving import BASIC, USERNAME, disk, password_hash, resource, sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.pdp_server import Served

WORKERS = 3
ENOUGH = 30
"""Fresh connections in a row after which every worker has answered, but for one time in 100,000."""


def settings(storage: dict[str, Any]) -> dict[str, Any]:
    credentials = {"username": USERNAME, "passwordHash": password_hash()}
    server = {"workers": WORKERS, "adminAPI": {"enabled": True, "adminCredentials": credentials}}
    return {"server": server, "storage": storage}


def effect(server: Served) -> str:
    """Ask over a connection of its own, which any worker may accept."""
    question = {
        "principal": {"id": "ann", "roles": ["user"]},
        "resources": [{"actions": ["view"], "resource": {"kind": "album", "id": "1"}}],
    }
    answer = httpx.post(f"{server.http}/api/check/resources", json=question, timeout=30, trust_env=False)
    found: str = answer.json()["results"][0]["actions"]["view"]
    return found


def await_everywhere(server: Served, wanted: str) -> float:
    """Wait until every worker answers *wanted*; return how long it took."""
    began, in_a_row = time.monotonic(), 0
    while in_a_row < ENOUGH:
        assert time.monotonic() - began < PATIENCE, "some worker has not heard of it"
        in_a_row = in_a_row + 1 if effect(server) == wanted else 0
    return time.monotonic() - began


def admin(server: Served, verb: str, path: str, body: object = None) -> int:
    content = None if body is None else json.dumps(body)
    response = httpx.request(
        verb,
        f"{server.http}{path}",
        content=content,
        headers={"authorization": BASIC},
        timeout=60,
        trust_env=False,
    )
    return response.status_code


def test_a_reload_reaches_all_workers(tmp_path: Path) -> None:
    """A directory that nobody watches is read by every worker when one of them is told to."""
    policies = tmp_path / "policies"
    policies.mkdir()
    with extauthz(tmp_path, policies, settings(disk(policies))) as server:
        await_everywhere(server, "EFFECT_DENY")
        (policies / "album.yaml").write_text(yaml.safe_dump(resource()), encoding="utf-8")
        assert admin(server, "GET", "/admin/store/reload?wait=true") == 200
        await_everywhere(server, "EFFECT_ALLOW")


def test_a_change_reaches_all_workers(tmp_path: Path) -> None:
    """What one worker has written to the database is in force in all, long before they would look for it."""
    storage = sqlite(tmp_path)
    storage["sqlite3"]["updatePollInterval"] = "600s"
    with extauthz(tmp_path, tmp_path, settings(storage)) as server:
        assert admin(server, "POST", "/admin/policy", {"policies": [resource()]}) == 200
        await_everywhere(server, "EFFECT_ALLOW")
        assert admin(server, "POST", "/admin/policy/disable?id=resource.album.vdefault") == 200
        await_everywhere(server, "EFFECT_DENY")
