"""Phases of a check: route, token, policy, and the whole from bytes to bytes."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from engine import AuxData, CheckInput, Engine, Principal, Resource
from extauthz import wire
from extauthz.facts import Facts
from tests.bench.measure import Case, Measurement, paired
from tests.bench.service import request, running, user_token, write_policies
from tests.extauthz.key_server import private_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from extauthz.app import App
    from extauthz.authorizer import Authorizer

QUESTION = CheckInput(
    Principal("alice@example.com", ("user", "manager"), {"region": "EMEA", "department": "SALES"}),
    Resource(
        "expense",
        "42",
        {"ownerId": "alice@example.com", "region": "EMEA", "channel": "web", "status": "OPEN"},
    ),
    ("read",),
    AuxData(jwt={"sub": "alice@example.com"}),
)


def route(rounds: int) -> Iterator[Measurement]:
    """Find the route of a request among 10 and among 1,000."""
    with ExitStack() as stack:
        tables = {number: _service(stack, number).authorizer for number in (10, 1000)}
        facts = Facts(wire.decode(request()))
        cases = {
            f"{number:,} routes": Case(lambda table=table: table._route(facts))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            for number, table in tables.items()
        }
        yield from paired("route", cases, rounds)


def token(rounds: int) -> Iterator[Measurement]:
    """Identify the caller by a token that is remembered, and by one that is verified."""
    with ExitStack() as stack:
        made = _service(stack)
        facts = Facts(wire.decode(request()))
        entry = _identity(made)
        entry.identify(facts)
        verify = entry._entrances[0].entries[0].verify
        signed = {alg: user_token(key, alg) for key, alg in (("rsa", "RS256"), ("ec", "ES256"))}
        private_key("rsa")
        cases = {
            "remembered": Case(lambda: entry.identify(facts)),
            **{f"verified, {alg}": Case(lambda text=text: verify(text)) for alg, text in signed.items()},  # type: ignore[misc] # as above
        }
        yield from paired("token", cases, rounds)


def policy(rounds: int) -> Iterator[Measurement]:
    """Decide among 10 policies and among 10,000: the engine alone, as a library."""
    with ExitStack() as stack:
        engines = {number: _engine(stack, number) for number in (10, 10_000)}
        cases = {
            f"{number:,} policies": Case(lambda engine=engine: engine.check(QUESTION), budget=8)  # type: ignore[misc] # as above
            for number, engine in engines.items()
        }
        yield from paired("policy", cases, rounds)


def check(rounds: int) -> Iterator[Measurement]:
    """Answer requests from bytes to bytes, with the token remembered."""
    with ExitStack() as stack:
        authorizer = _service(stack).authorizer
        requests = {
            "allowed": request(),
            "denied": request(method="DELETE"),
            "no route": request(url="https://api.example.com/nowhere"),
            "no token": request(bearer="raw"),
            "traversal": request(url="https://api.example.com/api/expenses/..%2fadmin"),
        }
        budgets = {"allowed": 25.0}
        cases = {
            name: Case(lambda data=data: authorizer.check(data), budgets.get(name))  # type: ignore[misc] # as above
            for name, data in requests.items()
        }
        _expect_an_allow(authorizer, requests["allowed"])
        yield from paired("check", cases, rounds)


def _expect_an_allow(authorizer: Authorizer, data: bytes) -> None:
    """Make sure that what is measured is an allow with its three headers."""
    answer = authorizer.check(data)
    assert isinstance(answer, bytes)
    assert b"owner of 5b1f0f0a" in answer, answer


def _service(stack: ExitStack, routes: int = 1) -> App:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return stack.enter_context(running(directory, routes))


def _engine(stack: ExitStack, policies: int) -> Engine:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    write_policies(directory, policies)
    return stack.enter_context(Engine.from_directory(directory))


def _identity(made: App):  # type: ignore[no-untyped-def] # the class is private to its route
    return made.authorizer._match(wire.decode(request())).route.identity  # type: ignore[union-attr] # the request has a route
