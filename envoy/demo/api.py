"""The service behind the gateway: a few expenses in memory, over HTTP. It knows nothing of authorization.

Like many services that were written for a trusted network it believes what the request says: a new expense
belongs to whom the header ``x-authz-principal`` names. That is safe only because the gateway lets nobody else
set that header.

Beside its own API it remembers how the latest requests arrived, for the demo and the tests to look at (not
through the gateway): ``GET /arrivals?mark=M`` lists the requests with the header ``x-mark: M``.
"""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

Expense = dict[str, Any]

RECORDS: tuple[Expense, ...] = (
    {"id": "1", "ownerId": "sally", "region": "EMEA", "amount": 120.5, "status": "OPEN"},
    {"id": "2", "ownerId": "derek", "region": "EMEA", "amount": 890.0, "status": "APPROVED"},
    {"id": "3", "ownerId": "nora", "region": "NA", "amount": 42.0, "status": "OPEN"},
    {"id": "4", "ownerId": "sally", "region": "EMEA", "amount": 15.75, "status": "REJECTED"},
)
"""What is there at the start."""

FILTERS = ("region", "ownerId", "status")
"""The query parameters that narrow a listing."""

REMEMBERED = 20_000
"""So many arrivals are kept."""


class Expenses:
    """The records, by id."""

    def __init__(self, records: Iterable[Expense] = RECORDS) -> None:
        self._records = {record["id"]: dict(record) for record in records}
        self._ids = itertools.count(len(self._records) + 1)

    async def index(self, request: Request) -> Response:
        """``GET /api/expenses``: all of them, or those that the filters in the query leave."""
        wanted = {name: request.query_params[name] for name in FILTERS if name in request.query_params}
        return JSONResponse([record for record in self._records.values() if wanted.items() <= record.items()])

    async def create(self, request: Request) -> Response:
        """``POST /api/expenses``: a new one, of the person and the region that the headers name."""
        body = await request.json()
        record = {
            "id": str(next(self._ids)),
            "ownerId": request.headers.get("x-authz-principal", ""),
            "region": request.headers.get("x-authz-region") or body.get("region", ""),
            "amount": body.get("amount", 0),
            "status": "OPEN",
        }
        self._records[record["id"]] = record
        return JSONResponse(record, 201, headers={"location": f"/api/expenses/{record['id']}"})

    async def read(self, request: Request) -> Response:
        """``GET /api/expenses/{id}``."""
        record = self._records.get(request.path_params["id"])
        return not_found() if record is None else JSONResponse(record)

    async def delete(self, request: Request) -> Response:
        """``DELETE /api/expenses/{id}``."""
        record = self._records.pop(request.path_params["id"], None)
        return not_found() if record is None else Response(status_code=204)


class Arrivals:
    """ASGI middleware that remembers the request line and the headers of every request, as they came in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seen: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the request down and pass it on."""
        if scope["type"] == "http" and scope["path"] == "/arrivals":
            await self._tell(scope, receive, send)
            return
        if scope["type"] == "http":
            self._seen.append(arrival(scope))
        await self._app(scope, receive, send)

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        mark = Request(scope).query_params.get("mark")
        seen = [item for item in self._seen if mark is None or ["x-mark", mark] in item["headers"]]
        await JSONResponse(seen)(scope, receive, send)


def arrival(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a request: method, target and headers, nothing merged and nothing left out."""
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    return {"method": scope["method"], "target": target.decode("latin-1"), "headers": headers}


def not_found() -> Response:
    """Answer 404, as an API does that has no such record."""
    return JSONResponse({"error": "no such expense"}, 404)


def application() -> ASGIApp:
    """Build the API with its memory of arrivals around it."""
    expenses = Expenses()
    routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
        ("GET", "/api/expenses", expenses.index),
        ("POST", "/api/expenses", expenses.create),
        ("GET", "/api/expenses/{id}", expenses.read),
        ("DELETE", "/api/expenses/{id}", expenses.delete),
        ("GET", "/healthz", healthy),
    )
    return Arrivals(Starlette(routes=[Route(path, call, methods=[method]) for method, path, call in routes]))


async def healthy(_: Request) -> Response:
    """``GET /healthz``."""
    return PlainTextResponse("ok\n")


def main() -> None:
    """Serve on loopback until stopped."""
    parser = argparse.ArgumentParser(description="The expenses API of the demo.")
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    uvicorn.run(application(), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
