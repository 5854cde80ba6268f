"""`make demo`: a sample API behind a real Envoy, decisions by extauthz, and what came of each request."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack import POLICIES, ROOT, Stack, StartError
from story import STORY, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokens import Person

BODY = {"amount": 99.5, "region": "EMEA"}
"""What a new expense consists of."""

OURS = "x-authz-"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step."""

    step: Step
    status: int
    reason: str
    arrived: Mapping[str, str] | None
    """The identity headers that reached the API, aliases included; ``None``: it saw no such request."""
    target: str

    @property
    def faults(self) -> list[str]:
        """Where this is not what the story says."""
        step = self.step
        expected = step.target or step.request.split(" ", 1)[1]
        checks = {
            f"status {step.status}": self.status == step.status,
            f"reason {step.reason!r}": step.reason in self.reason,
            f"headers {step.arrives}": self.arrived == step.arrives,
            f"target {expected}": self.arrived is None or self.target == expected,
        }
        return [text for text, holds in checks.items() if not holds]


def perform(step: Step, stack: Stack, client: httpx.Client) -> Outcome:
    """Send the request through the gateway, then ask the API, directly, how it arrived."""
    mark = uuid.uuid4().hex
    method, target = step.request.split(" ", 1)
    headers = {"x-mark": mark, **step.headers, **credentials(step, stack)}
    body = BODY if method == "POST" else None
    response = client.request(method, stack.url + target, headers=headers, json=body)
    arrivals = client.get(f"http://127.0.0.1:{stack.ports.api}/arrivals", params={"mark": mark}).json()
    if not arrivals:
        return Outcome(step, response.status_code, told(response), None, "")
    return Outcome(
        step, response.status_code, told(response), identity(arrivals[0]["headers"]), arrivals[0]["target"]
    )


def credentials(step: Step, stack: Stack) -> dict[str, str]:
    """Make the Authorization header of whoever asks."""
    if step.who is None:
        return {}
    lifetime = {"lifetime": -86400.0} if step.expired else {}
    return {"authorization": f"Bearer {stack.issuer.token(step.who, **lifetime)}"}


def identity(headers: list[list[str]]) -> dict[str, str]:
    """Pick the headers that say who asks, under whatever spelling a service might read them."""
    return {
        name: value
        for name, value in headers
        if name.lower().replace("_", "-").replace(".", "-").startswith(OURS)
    }


def told(response: httpx.Response) -> str:
    """Find the reason that the client is given, in a header or in the body."""
    if response.is_success:
        return ""
    reason = response.headers.get("x-denial-reason")
    if reason:
        return str(reason)
    if "problem+json" in response.headers.get("content-type", ""):
        return str(response.json()["reason"])
    return response.text.strip()


def table(outcomes: list[Outcome]) -> Table:
    """Who, request, status, reason, what arrived."""
    shown = Table(title="extauthz decides, Envoy acts", title_justify="left", show_lines=True)
    for title in ("who", "request", "status", "reason", "arrived at the API"):
        shown.add_column(title, overflow="fold")
    for outcome in outcomes:
        shown.add_row(*cells(outcome))
    return shown


def cells(outcome: Outcome) -> tuple[str, ...]:
    """Write a row of the table."""
    step = outcome.step
    who = "nobody" if step.who is None else f"{step.who.name}\n[dim]{step.who.title}[/dim]"
    request = step.request + (f"\n[dim]{step.note}[/dim]" if step.note else "")
    colour = "green" if outcome.status < 400 else "yellow" if outcome.status < 500 else "red"
    status = f"[{colour}]{outcome.status}[/{colour}]"
    fault = "".join(f"\n[bold red]expected {text}[/bold red]" for text in outcome.faults)
    return who, request, status, outcome.reason + fault, arrival(outcome)


def arrival(outcome: Outcome) -> str:
    """Write the last cell: what reached the API."""
    if outcome.arrived is None:
        return "[dim]nothing[/dim]"
    lines = [f"{name}: {value}" for name, value in sorted(outcome.arrived.items())]
    asked = outcome.step.request.split(" ", 1)[1]
    return "\n".join(([outcome.target] if outcome.target != asked else []) + lines)


def invitation(stack: Stack, files: Mapping[Person, Path]) -> str:
    """Say what to try while everything runs."""
    policy = (POLICIES / "expense.yaml").relative_to(ROOT)
    lines = [
        "",
        "[bold]Everything keeps running. In another terminal:[/bold]",
        "",
        f"  cd {stack.directory}",
        f"  GATEWAY={stack.url}",
        *(
            f"  curl -i -H @{file.name} $GATEWAY/api/expenses/3   [dim]# {p.title}[/dim]"
            for p, file in files.items()
        ),
        "  curl -i -H @sally.header -H 'x-authz-roles: admin' $GATEWAY/api/expenses/2   [dim]# forged[/dim]",
        "  curl -i $GATEWAY/api/expenses/1   [dim]# no token[/dim]",
        "  JSON='content-type: application/json'",
        '  curl -i -H @sally.header -H "$JSON" -d \'{"amount": 12}\' $GATEWAY/api/expenses',
        "",
        f"Edit [bold]{policy}[/bold] and ask again: the answer changes within a second.",
        "Break it: no answer changes, and",
        f"  curl {stack.readyz()}   [dim]# says what is wrong, and where[/dim]",
        "  tail -f envoy.log extauthz.log   [dim]# each decision with its reason[/dim]",
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)


def failures(outcomes: list[Outcome]) -> list[str]:
    """List the rows that are not as expected, as JSON for a log."""
    wrong = [outcome for outcome in outcomes if outcome.faults]
    return [json.dumps({"request": outcome.step.request, "expected": outcome.faults}) for outcome in wrong]


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that no server is left behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(console: Console, directory: Path, *, once: bool) -> int:
    """Start everything, show the story, and stay or stop; the exit code."""
    stack = Stack(directory)
    try:
        with console.status("starting the API, extauthz and Envoy ..."):
            stack.start()
        return show(console, stack, once=once)
    finally:
        stack.close()


def show(console: Console, stack: Stack, *, once: bool) -> int:
    """Send the story's requests, print what came of them, and unless *once* wait to be interrupted."""
    with httpx.Client(timeout=5) as client:
        outcomes = [perform(step, stack, client) for step in STORY]
    console.print(table(outcomes))
    wrong = failures(outcomes)
    for line in wrong:
        console.print(line, style="bold red", markup=False)
    if not once:
        console.print(invitation(stack, stack.issuer.write_headers(stack.directory)), soft_wrap=True)
        signal.pause()
    return 1 if wrong else 0


@click.command()
@click.option("--once", is_flag=True, help="Stop after the table; exit code 1 if a row is not as expected.")
def main(once: bool) -> None:
    """Show a sample API behind a real Envoy, with extauthz deciding."""
    console = Console()
    with termination_as_exit(), tempfile.TemporaryDirectory(prefix="extauthz-demo-") as directory:
        try:
            sys.exit(run(console, Path(directory), once=once))
        except StartError as error:
            console.print(f"[bold red]the demo cannot start:[/bold red] {escape(str(error))}", soft_wrap=True)
            sys.exit(2)
        except KeyboardInterrupt:
            console.print("stopped")


if __name__ == "__main__":
    main()
