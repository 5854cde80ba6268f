"""What a gRPC port serves and within which limits: the words that all gRPC transports share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.descriptor_pool import DescriptorPool

    from extauthz.readiness import Readiness

    Pairs = tuple[tuple[str, str | bytes], ...]
    Metadata = Callable[[], Mapping[str, str]]

logger = logging.getLogger(__name__)

SERVICE: Final = "envoy.service.auth.v3.Authorization"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
HEALTH_NAMES: Final = ("", SERVICE)

PEER: Final = ":peer"
"""Beside the metadata of a call: the address of the client. No metadata can have this name."""

LEAVING: Final = (("x-envoy-immediate-health-check-fail", "true"),)
"""Response header by which Envoy's router takes a host with active health checks out of use at once
(Envoy, "Fast failure through active health checks")."""

QUIET: Final = 1.0
"""Seconds without a Check after which a draining server believes that its clients have gone."""
HEALTH_INTERVAL: Final = 0.25
"""Seconds between two looks at the readiness for the health service."""

CHECK_FAILED: Final = "the check failed"
"""What a client hears of an authorizer that raised or had no answer."""


class Authorizer(Protocol):
    """Decides. It never raises and never answers nothing: to Envoy an empty CheckResponse is an ALLOW."""

    def check(self, request: bytes) -> bytes | Awaitable[bytes]:
        """Answer a serialized CheckRequest with a serialized CheckResponse."""
        ...


class Refusal(Exception):  # noqa: N818  # it is an answer
    """The answer to a call that has none: a status code, a sentence for the client, metadata at the end."""

    def __init__(self, code: int, message: str, trailing: Pairs = ()) -> None:
        self.code = code
        self.message = message
        self.trailing = trailing
        super().__init__(message)


class Procedure(Protocol):
    """Answers one call of a service beside Check."""

    def __call__(self, request: bytes, metadata: Metadata) -> Awaitable[bytes]:
        """Answer a serialized request with a serialized response; raises :class:`Refusal`."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What the port serves beside Check: procedures by service and method."""

    procedures: Mapping[str, Mapping[str, Procedure]] = field(default_factory=dict)
    metadata: Pairs = ()
    """Sent with every answer of theirs."""
    pool: DescriptorPool | None = None
    """The descriptors of the services, for reflection."""


@dataclass(frozen=True, slots=True)
class Options:
    """Limits of the gRPC port; times in seconds."""

    max_receive_bytes: int = 4 * 1024 * 1024
    max_concurrent_streams: int = 1024
    """For each connection; 0 means no limit."""
    max_connection_age: float = 600.0
    """After this a client is asked to connect anew, so that load spreads over the workers; 0 means never."""
    max_connection_age_grace: float = 60.0
    """How long requests may still run on a connection that was asked to go."""
    connection_timeout: float = 60.0
    """For the TLS and HTTP/2 handshakes."""
    min_ping_interval: float = 5.0
    """Clients may send keepalive pings this often, also without requests. gRPC's own limit of five minutes
    would cut off a gateway with ``connection_keepalive``."""


def is_ready(readiness: Readiness) -> bool:
    """Tell what the health service says; when the state cannot be found out, that nothing is ready."""
    try:
        return readiness().ready
    except Exception:
        logger.exception("the state could not be found out; health says NOT_SERVING")
        return False
