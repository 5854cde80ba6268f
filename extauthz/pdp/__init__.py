"""The PDP API of Cerbos: calls on values (:class:`Pdp`), and how they travel over REST and gRPC."""

from __future__ import annotations

from extauthz.pdp.calls import Pdp, RequestLimits
from extauthz.pdp.errors import Code, PdpError

__all__ = ["Code", "Pdp", "PdpError", "RequestLimits"]
