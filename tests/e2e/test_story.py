"""The story of the demo, row by row, through a real Envoy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from stack import HERE
from tests.e2e.harness import BY_NAME, Gateway, Reply, cases
from tokens import ADMINISTRATOR, EMEA_MANAGER, SALES

DEMO = HERE / "demo.py"


def name(row: dict[str, Any]) -> str:
    return f"{row['who'] or 'nobody'}: {row['request']}"


def ask(gateway: Gateway, row: dict[str, Any]) -> Reply:
    body = {"amount": 10, "region": "EMEA"} if row["request"].startswith("POST") else None
    return gateway.send(row["request"], BY_NAME[row["who"]] if row["who"] else None, json=body)


@pytest.mark.parametrize("row", cases("story"), ids=name)
def test_row(gateway: Gateway, row: dict[str, Any]) -> None:
    """Each request of the story gets the status, and the API exactly the headers, that the table says."""
    reply = ask(gateway, row)
    assert reply.status == row["status"], reply
    assert reply.headers.get("x-denial-reason") == row.get("denial")
    if "arrives" not in row:
        assert reply.arrivals == ()
        return
    assert dict(reply.identity) == row["arrives"]
    assert len(reply.identity) == len(row["arrives"])
    assert reply.arrived["target"] == row.get("target", row["request"].split(" ", 1)[1])


def test_administrators_delete(gateway: Gateway) -> None:
    """What an administrator deletes is gone."""
    created = gateway.send("POST /api/expenses", SALES, json={"amount": 1})
    expense = created.headers["location"]
    assert gateway.send(f"DELETE {expense}", ADMINISTRATOR).status == httpx.codes.NO_CONTENT
    assert gateway.send(f"GET {expense}", ADMINISTRATOR).status == httpx.codes.NOT_FOUND


def test_new_expense_belongs_to_whom_the_token_names(gateway: Gateway) -> None:
    """The API takes owner and region from the headers that extauthz sets, not from what the client writes."""
    body = {"amount": 5, "ownerId": "derek", "region": "NA"}
    headers = {"x-authz-principal": "derek", "x-authz-region": "NA"}
    created = gateway.send("POST /api/expenses", SALES, headers=headers, json=body)
    record = gateway.send(f"GET {created.headers['location']}", SALES)
    assert '"ownerId":"sally"' in record.text
    assert '"region":"EMEA"' in record.text


def test_listing_shows_only_what_the_policy_lets_see(gateway: Gateway) -> None:
    """The API, which would list everything, is asked for the manager's region only."""
    listed = httpx.Response(200, text=gateway.send("GET /api/expenses", EMEA_MANAGER).text).json()
    assert listed
    assert {record["region"] for record in listed} == {"EMEA"}


def test_no_token_is_told_how_to_log_in(gateway: Gateway) -> None:
    """401 names the scheme (RFC 9110 §11.6.1), and the body is a problem."""
    reply = gateway.send("GET /api/expenses/1")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.problem["status"] == httpx.codes.UNAUTHORIZED


def test_denial_explains_itself(gateway: Gateway) -> None:
    """A manager who asks for another region's expense learns why not, in header and body of the 403."""
    reply = gateway.send("GET /api/expenses/3", EMEA_MANAGER)
    assert reply.status == httpx.codes.FORBIDDEN
    assert reply.headers["x-denial-reason"] == "expense 3 belongs to NA, you manage EMEA"
    assert reply.problem["status"] == httpx.codes.FORBIDDEN


@pytest.mark.parametrize(
    "claims", [{"exp": 1}, {"iss": "https://evil.example/"}, {"aud": "other"}, {"exp": None}], ids=str
)
def test_token_that_is_not_good(gateway: Gateway, claims: dict[str, Any]) -> None:
    """A token that is expired, endless, somebody else's or for something else is no token."""
    reply = gateway.send("GET /api/expenses/1", token=gateway.stack.issuer.token(SALES, **claims))
    assert reply.status == httpx.codes.UNAUTHORIZED
    assert reply.arrivals == ()


def test_demo_once() -> None:
    """`make demo ONCE=1` shows the table, finds every row as expected and leaves nothing running."""
    done = subprocess.run(  # noqa: S603  # our own script
        [sys.executable, str(DEMO), "--once"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expense 3 belongs to NA, you manage EMEA" in done.stdout
    assert leftovers() == []


def test_demo_stays_until_interrupted(tmp_path: Path) -> None:
    """Without ONCE the demo says what to try, and an interrupt ends it and its servers."""
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, str(DEMO)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while "Ctrl-C ends it" not in log.read_text() and time.monotonic() < deadline and demo.poll() is None:
            time.sleep(0.1)
        assert "curl -i" in log.read_text()
        demo.send_signal(signal.SIGINT)
        demo.wait(20)
    finally:
        demo.kill()
        demo.wait()
    assert leftovers() == []


def leftovers() -> list[str]:
    """Find processes that still work in a demo's temporary folder."""
    commands = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if entry.exists()]
    return [command.decode() for command in commands if b"extauthz-demo-" in command]
