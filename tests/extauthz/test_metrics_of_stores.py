"""A store that becomes unreachable and comes back, as metrics of a real service tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from tests.e2e.pdp_server import extauthz
from tests.engine.storage.contract import policy
from tests.engine.storage.git_servers import HttpServer, Repository
from tests.extauthz.processes import waited
from tests.extauthz.scraped import Samples, scrape, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CURRENT = "extauthz_policies_current"
REFRESHED = "cerbos_dev_store_last_successful_refresh"
ERRORS = "cerbos_dev_store_sync_error_count_total"
POLLS = "cerbos_dev_store_poll_count_total"
RELOADS = "extauthz_policy_reloads_total"


class Place(Protocol):
    """Where policies are."""

    driver: str

    def storage(self) -> dict[str, Any]:
        """Return the driver's block."""

    def put(self, name: str, content: bytes) -> str:
        """Add or replace a policy; return the revision."""

    def go_away(self) -> None:
        """Let it be unreachable."""

    def come_back(self) -> None:
        """Let it be reachable again."""


class Folder:
    driver = "disk"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def storage(self) -> dict[str, Any]:
        return {"directory": str(self.root), "watchForChanges": True}

    def put(self, name: str, content: bytes) -> str:
        (self.root / name).write_bytes(content)
        return ""

    def go_away(self) -> None:
        self.root.rename(self.root.with_name("away"))

    def come_back(self) -> None:
        self.root.with_name("away").rename(self.root)


class Branch:
    driver = "git"

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "served" / "policies.git")
        self.server = HttpServer(root / "served", root / "certificates", tls=False)
        self.server.start()
        self.checkout = root / "checkout"

    def storage(self) -> dict[str, Any]:
        settings = self.server.settings(self.repository.path)
        return {
            **settings,
            "branch": "main",
            "checkoutDir": str(self.checkout),
            "updatePollInterval": "200ms",
        }

    def put(self, name: str, content: bytes) -> str:
        return self.repository.commit({name: content})

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()


@pytest.fixture(params=["disk", "git"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "disk":
        yield Folder(tmp_path / "policies")
        return
    branch = Branch(tmp_path)
    yield branch
    branch.server.stop()


def revisions(samples: Samples) -> list[str]:
    return [dict(labels)["revision"] for labels in samples["extauthz_policies"]]


def allows(http: str, action: str) -> bool:
    question = {
        "principal": {"id": "ann", "roles": ["user"]},
        "resources": [{"resource": {"kind": "doc", "id": "1"}, "actions": [action]}],
    }
    answer = httpx.post(f"{http}/api/check/resources", json=question, timeout=30)
    return bool(answer.json()["results"][0]["actions"][action] == "EFFECT_ALLOW")


def test_metrics_tell_that_the_store_is_gone(place: Place, tmp_path: Path) -> None:
    """While the store is away the policies stay in force, and metrics say so until it is back."""
    first = place.put("doc.yaml", policy(action="read"))
    folder = tmp_path / "server"
    folder.mkdir()
    settings = {
        "server": {"workers": 2},
        "storage": {"driver": place.driver, place.driver: place.storage()},
    }
    with extauthz(folder, tmp_path, settings) as served:
        driver = {"driver": place.driver}
        begin = waited(
            lambda: s if value(s := scrape(served.http), "extauthz_workers", state="ready") == 2 else None
        )
        assert begin is not None
        assert value(begin, CURRENT) == value(begin, "cerbos_dev_index_entry_count") == 1
        assert revisions(begin) == [first, first]
        assert value(begin, REFRESHED, **driver) > 1.7e12
        assert value(begin, ERRORS, **driver) == 0

        place.go_away()
        away = waited(lambda: s if value(s := scrape(served.http), CURRENT) == 0 else None)
        assert away is not None
        waited(lambda: value(scrape(served.http), ERRORS, **driver) >= 2)  # counted again and again
        assert value(away, RELOADS, result="failed") >= 1
        assert value(away, "cerbos_dev_index_entry_count") == 1
        assert value(away, "extauthz_ready", component="policies") == 1
        assert allows(served.http, "read")
        waited(
            lambda: value(scrape(served.http), POLLS, **driver) > value(away, POLLS, **driver)
        )  # it goes on looking

        place.come_back()
        waited(lambda: value(scrape(served.http), CURRENT) == 1)
        second = place.put("doc.yaml", policy(action="edit"))
        waited(lambda: allows(served.http, "edit"))
        waited(lambda: revisions(scrape(served.http)) == [second, second])
        again = waited(
            lambda: (
                s
                if value(s := scrape(served.http), REFRESHED, **driver) > value(away, REFRESHED, **driver)
                else None
            )
        )
        assert again is not None
        assert value(again, RELOADS, result="ok") >= 2
        assert value(again, "extauthz_pdp_requests_total", call="CheckResources", outcome="ok") >= 2


def test_policies_that_do_not_compile_are_told_apart(tmp_path: Path) -> None:
    """A change that cannot be used is a failed reload, and no error of the store."""
    place = Folder(tmp_path / "policies")
    place.put("doc.yaml", policy())
    folder = tmp_path / "server"
    folder.mkdir()
    settings = {"storage": {"driver": "disk", "disk": place.storage()}}
    with extauthz(folder, tmp_path, settings) as served:
        place.put("doc.yaml", b"resourcePolicy: 1\n")
        broken = waited(lambda: s if value(s := scrape(served.http), CURRENT) == 0 else None)
        assert broken is not None
        assert value(broken, RELOADS, result="failed") >= 1
        assert value(broken, ERRORS, driver="disk") == 0
        place.put("doc.yaml", policy(action="edit"))
        waited(lambda: value(scrape(served.http), CURRENT) == 1)


def test_calls_are_counted_by_their_outcome(tmp_path: Path) -> None:
    """Calls of the PDP API are counted by what became of them; nothing in a request makes a label."""
    place = Folder(tmp_path / "policies")
    place.put("doc.yaml", policy())
    folder = tmp_path / "server"
    folder.mkdir()
    with extauthz(folder, place.root) as served:
        assert allows(served.http, "read")
        assert httpx.post(f"{served.http}/api/check/resources", json={}).status_code == 400
        assert httpx.post(f"{served.http}/api/made/up", json={}).status_code == 404
        counted = scrape(served.http)["extauthz_pdp_requests_total"]
    assert {tuple(sorted(dict(labels).items())): count for labels, count in counted.items()} == {
        (("call", "CheckResources"), ("outcome", "ok")): 1,
        (("call", "CheckResources"), ("outcome", "invalid_argument")): 1,
    }
