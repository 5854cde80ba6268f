"""The PDP API and the admin API as a whole: what the HTTP port and the gRPC port need to serve them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extauthz.pdp import explorer as explorer_page
from extauthz.pdp import openapi, protojson
from extauthz.pdp.admin_methods import ADMIN, AUDIT_LOG, AUDIT_LOG_PATHS, NO_AUDIT_LOG
from extauthz.pdp.errors import Code, PdpError
from extauthz.pdp.rest import Rest
from extauthz.pdp.rpc import procedures, unimplemented
from extauthz.pdp.services import FILES, OURS, answers
from extauthz.pdp.version import version
from extauthz.transport.calls import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from extauthz.pdp.calls import Pdp
    from extauthz.pdp.cors import Cors
    from extauthz.pdp.method import Answer, Caller, Guard, Method
    from extauthz.pdp.rest import Health, Limits, Page

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdminService:
    """The admin API, ready to be served: what answers its methods, and who lets callers pass."""

    answers: Mapping[Method, Answer]
    guard: Guard


class PdpService:
    """The calls of a :class:`~extauthz.pdp.calls.Pdp`, for both ports."""

    def __init__(
        self,
        pdp: Pdp | None,
        *,
        admin: AdminService | None = None,
        cors: Cors | None = None,
        body_limits: Limits | None = None,
        explorer: bool = True,
        explain: bool = False,
        log_payloads: bool = False,
    ) -> None:
        """Serve *pdp*, and *admin*, where they are there.

        *cors* None: browsers let only our own pages use the API; *explorer*: whether there is one; *explain*:
        whether decisions are explained, which shows policies and attributes to whoever asks.
        """
        self.answered: Counter[tuple[str, ...]] = Counter()
        """Calls by name and outcome: `ok`, or the name of the gRPC status in lower case."""
        self._answers: Mapping[Method, Answer] = {} if pdp is None else answers(pdp, explain=explain)
        self._admin = admin
        if admin is not None:
            self._answers = {**self._answers, **admin.answers}
        if log_payloads:
            self._answers = {method: _logged(method, each) for method, each in self._answers.items()}
        self._answers = {
            method: _counted(method, each, self.answered) for method, each in self._answers.items()
        }
        self._cors, self._body_limits = cors, body_limits
        document = openapi.document(
            pdp=pdp is not None, explain=explain and pdp is not None, admin=admin is not None
        )
        self._pages = _pages(document) if explorer else {}
        self._guards = {} if admin is None else {ADMIN: admin.guard}

    def rpc(self) -> Services:
        """Return what the gRPC port serves."""
        called = {method: answer for method, answer in self._answers.items() if method.service != OURS}
        served = procedures(called, self._guards)
        if self._admin is not None:
            served[ADMIN][AUDIT_LOG] = unimplemented(NO_AUDIT_LOG, self._admin.guard)
        return Services(served, (("cerbos-version", version()),), FILES.pool)

    def rest(self, health: Health) -> Rest:
        """Make the application for the HTTP port; *health* tells the state of services."""
        return Rest(
            self._answers,
            health=health,
            version=version(),
            cors=self._cors,
            limits=self._body_limits,
            pages=self._pages,
            guards=self._guards,
            refusals={} if self._admin is None else dict.fromkeys(AUDIT_LOG_PATHS, (ADMIN, NO_AUDIT_LOG)),
        )


def _pages(document: bytes) -> Mapping[str, Page]:
    return {
        "/": explorer_page.page(),
        "/schema/swagger.json": (document, {"content-type": "application/json"}),
    }


def _logged(method: Method, answer: Answer) -> Answer:
    """Let *answer* log what comes and goes (``server.logRequestPayloads``); the log hides tokens."""
    name = f"/{method.service}/{method.name}"

    async def logged(request: Any, caller: Callable[[], Caller]) -> Any:
        logger.info("request", extra={"method": name, "content": _text(request)})
        response = await answer(request, caller)
        logger.info("response", extra={"method": name, "content": _text(response)})
        return response

    return logged


def _counted(method: Method, answer: Answer, counts: Counter[tuple[str, ...]]) -> Answer:
    """Count what becomes of calls; what is no readable request is not a call yet."""
    name = method.name

    async def counted(request: Any, caller: Callable[[], Caller]) -> Any:
        try:
            response = await answer(request, caller)
        except PdpError as error:
            counts[name, error.code.name.lower()] += 1
            raise
        except Exception:
            counts[name, Code.INTERNAL.name.lower()] += 1
            raise
        counts[name, "ok"] += 1
        return response

    return counted


def _text(message: Any) -> str:
    return protojson.encode(message).decode()
