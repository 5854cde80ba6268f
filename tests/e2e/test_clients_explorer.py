"""The explorer page: what it is made of, and how it works in a real browser.

Where there is no Chromium (``CHROMIUM`` names one, else it is on the ``PATH``) the tests in the browser are
skipped; in CI they fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from extauthz.pdp.explorer import page
from tests.e2e.node_clients import REQUIRED, node_command
from tests.e2e.pdp_server import extauthz
from tests.e2e.test_clients import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.pdp_server import Served

BROWSER_SECONDS = 120.0
LIGHT, DARK = "rgb(251, 251, 249)", "rgb(21, 23, 28)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with extauthz(tmp_path_factory.mktemp("explorer"), POLICIES) as served:
        yield served


# --- the document -----------------------------------------------------------------------------------------


class _Parts(HTMLParser):
    """Collects the tags of a document, and the texts of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in self.inline and data.strip():
            self.inline[self._open].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


@pytest.fixture(scope="module")
def parts() -> _Parts:
    found = _Parts()
    found.feed(page().body.decode())
    return found


def policy(header: str) -> dict[str, list[str]]:
    directives = (each.split() for each in header.split(";"))
    return {name: values for name, *values in directives}


def test_the_page_is_served_with_its_policy(server: Served) -> None:
    """The root of the HTTP port answers the page, with the headers that belong to it."""
    response = httpx.get(server.http + "/")
    assert response.content == page().body
    assert {name: response.headers[name] for name in page().headers} == page().headers


def test_only_our_script_and_style_may_run(parts: _Parts) -> None:
    """The policy allows nothing but the one script and the one style of the page, by their digests."""
    found = policy(page().headers["content-security-policy"])
    assert found["default-src"] == ["'none'"]
    for kind in ("script", "style"):
        (source,) = parts.inline[kind]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert found[f"{kind}-src"] == [f"'sha256-{digest}'"]


def test_the_page_cannot_be_framed_or_led_astray() -> None:
    """No frame around it, no other base for its addresses, forms sent nowhere, connections to us alone."""
    found = policy(page().headers["content-security-policy"])
    for name in ("frame-ancestors", "base-uri", "form-action"):
        assert found[name] == ["'none'"]
    assert found["connect-src"] == ["'self'"]
    assert "unsafe" not in page().headers["content-security-policy"]


def test_nothing_comes_from_elsewhere(parts: _Parts) -> None:
    """No tag loads anything, and no address of another host stands in the page."""
    loaded = {
        value for _, attributes in parts.tags for name, value in attributes.items() if name in {"src", "href"}
    }
    assert loaded == {"data:,", "#request", "schema/swagger.json"}
    assert not re.findall(rb"https?://|//[a-z]+\.", page().body)


def test_no_handler_or_style_in_a_tag(parts: _Parts) -> None:
    """What the policy would forbid is not there: no event handlers and no styles in tags."""
    names = {name for _, attributes in parts.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}


def test_every_control_has_a_name(parts: _Parts) -> None:
    """Each field has a label, so that a screen reader can say what it is."""
    labelled = {attributes["for"] for tag, attributes in parts.tags if tag == "label"}
    controls = {attributes["id"] for tag, attributes in parts.tags if tag in {"select", "textarea", "input"}}
    assert controls <= labelled


def test_the_page_can_be_switched_off(tmp_path: Path) -> None:
    """Without `server.apiExplorerEnabled` there is no page."""
    off = {"server": {"apiExplorerEnabled": False}}
    with extauthz(tmp_path, POLICIES, off) as served:
        assert httpx.get(served.http + "/").status_code == 404


# --- in the browser ---------------------------------------------------------------------------------------


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return found
    reason = "no Chromium: install it, or name it in CHROMIUM"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def seen(server: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Use the page, once; what was seen, and three pictures in pytest's temporary folder."""
    folder = str(tmp_path_factory.mktemp("screenshots"))
    command, environment = node_command("browser", "explorer.mjs", chromium(), server.http + "/", folder)
    said = subprocess.run(  # noqa: S603  # node, and a script of ours
        command, capture_output=True, text=True, timeout=BROWSER_SECONDS, check=False, env=environment
    )
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_all_requests_go_to_us(seen: dict[str, Any], server: Served) -> None:
    """In all that was done, the browser asked nobody but us; the one address elsewhere was refused to it."""
    others = {url for url in seen["requests"] if not url.startswith((server.http, "data:"))}
    assert others <= {"http://127.0.0.1:9/"}
    assert seen["steps"]["forbidden"] == {"trusted": "TypeError", "ran": False, "connected": "refused"}


def test_the_browser_has_no_complaints(seen: dict[str, Any]) -> None:
    """Nothing is wrong with the page itself: the console has only the refusals that we provoked."""
    provoked = ("400", "Content Security Policy", "TrustedScript", "Failed to load resource", "violates")
    assert [each for each in seen["complaints"] if not any(part in each for part in provoked)] == []


def test_every_call_is_listed(seen: dict[str, Any], server: Served) -> None:
    """The page lists the calls of the document."""
    paths = httpx.get(server.http + "/schema/swagger.json").json()["paths"]
    operations = [each["operationId"] for verbs in paths.values() for each in verbs.values()]
    assert sorted(seen["steps"]["calls"]) == sorted(f"#{name}" for name in operations)


def test_the_keyboard_suffices(seen: dict[str, Any]) -> None:
    """The tab key reaches everything in order, Enter opens a call, and the focus moves to its title."""
    first, second, third, *calls = seen["steps"]["order"]
    assert (first, second, third) == ("Skip to the request", "document", "theme")
    assert ["Check resources" in calls[0], "Plan resources" in calls[1]] == [True, True]
    assert seen["steps"]["afterEnter"] == {"title": "Plan resources", "focus": "title"}


def test_answers_are_shown(seen: dict[str, Any]) -> None:
    """An example is answered, with status, time and size; effects stand out."""
    plan, check = seen["steps"]["plan"], seen["steps"]["check"]
    assert plan["body"]["filter"]["kind"] == "KIND_ALWAYS_DENIED"
    assert re.fullmatch(r"200 OK\s*[\d.]+ ms\s*\d+ bytes", check["outcome"])
    assert check["body"]["requestId"] == "example-1"
    assert (check["allowed"], check["denied"]) == (1, 2)
    assert seen["steps"]["health"]["body"] == {"status": "SERVING"}


def test_faults_are_shown(seen: dict[str, Any]) -> None:
    """What is no JSON is marked while it is typed, and may be sent all the same: the refusal is shown."""
    assert seen["steps"]["broken"]["problem"].startswith("Not JSON yet: ")
    assert seen["steps"]["broken"]["invalid"] == "true"
    assert seen["steps"]["refused"]["outcome"].startswith("400")
    assert seen["steps"]["refused"]["body"]["code"] == 3


def test_answers_do_not_become_markup(seen: dict[str, Any]) -> None:
    """Markup in an answer is text."""
    assert '"<b>"' in seen["steps"]["markup"]["body"]["message"]
    assert seen["steps"]["markup"]["images"] == 0


def test_what_was_typed_is_kept(seen: dict[str, Any]) -> None:
    """A look at another call loses nothing; `Reset` brings the example back."""
    assert seen["steps"]["kept"] == '{"requestId": "kept"}'
    assert seen["steps"]["reset"]["requestId"] == "example-1"


def test_light_and_dark(seen: dict[str, Any]) -> None:
    """The page follows the system, unless a theme is chosen; the choice is remembered."""
    steps = seen["steps"]
    assert steps["light"]["backgroundColor"] == LIGHT
    assert steps["dark"]["backgroundColor"] == DARK
    assert steps["forcedLight"]["backgroundColor"] == LIGHT
    assert steps["forcedLight"]["label"] == steps["remembered"] == "Theme: light"


def test_nothing_is_cut_off_on_a_small_screen(seen: dict[str, Any]) -> None:
    """On a telephone the page does not scroll sideways."""
    assert seen["steps"]["overflow"] <= 0
