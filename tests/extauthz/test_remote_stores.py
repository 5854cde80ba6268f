"""Remote stores in a service: what the configuration says, and what readiness tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from extauthz.app import App, build
from extauthz.config import parse
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, WebServer, bundle, certificate
from tests.engine.storage.contract import policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.storage.following.FIRST_DELAY", 0.01)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    server = WebServer(*certificate(tmp_path / "tls"))
    server.files["/b"] = bundle({"doc.yaml": policy()}, 7, version="v1")
    yield server
    server.stop()


def started(storage: dict[str, object]) -> App:
    """Build a service as a configuration file says."""
    return build(parse(json.dumps({"storage": storage}), "extauthz.yaml", {}).config)


def told(app: App) -> tuple[bool, str]:
    """Return whether there are policies to decide by, and what is said about them."""
    (part,) = (each for each in app.readiness().components if each.name == "policies")
    return part.ready, part.detail


async def test_a_bundle(web: WebServer, tmp_path: Path) -> None:
    """Readiness names the bundle; when it comes from disk, that is said, and why."""
    block = {
        "url": f"{web.url}/b",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(tmp_path / "cache"),
        "https": {"caCert": str(tmp_path / "tls" / "cert.pem")},
    }
    app = started({"driver": "bundle", "bundle": block})
    assert told(app) == (True, "1 policy of revision expenses#7 (v1)")
    await app.stop()
    web.stop()
    app = started({"driver": "bundle", "bundle": block})
    ready, detail = told(app)
    assert ready
    assert detail.startswith("1 policy of revision expenses#7 (v1); cannot reach `https://localhost:")
    assert detail.endswith("; what was kept on disk is used")
    await app.stop()


async def test_an_overlay(web: WebServer, tmp_path: Path) -> None:
    """Readiness says that the fallback is in force."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "doc.yaml").write_bytes(policy())
    web.stop()
    app = started(
        {
            "driver": "overlay",
            "overlay": {"baseDriver": "bundle", "fallbackDriver": "disk"},
            "disk": {"directory": str(tmp_path / "policies")},
            "bundle": {
                "url": f"{web.url}/b",
                "name": NAME,
                "publicKeys": [{"data": PUBLIC_KEY}],
                "cacheDir": str(tmp_path / "cache"),
            },
        }
    )
    ready, detail = told(app)
    assert ready
    assert detail.startswith(
        "1 policy of revision disk; the fallback `disk` is in force, as the base `bundle` fails: cannot reach"
    )
    await app.stop()
