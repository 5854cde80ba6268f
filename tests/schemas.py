"""Writes the schemas of messages anew: ``python -m tests.schemas``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from envoy_data_plane.cel.expr import CheckedExpr, ParsedExpr
from envoy_data_plane.envoy.service.auth import v3 as auth

from tests.message_schemas import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import betterproto2

ROOT: Final = Path(__file__).resolve().parents[1]
SCHEMAS: Final[Mapping[Path, tuple[type[betterproto2.Message], ...]]] = {
    ROOT / "engine/cel/checked_expr.binpb": (CheckedExpr, ParsedExpr),
    ROOT / "extauthz/check_request.binpb": (auth.CheckRequest,),
}

if __name__ == "__main__":
    for file, roots in SCHEMAS.items():
        file.write_bytes(schema(*roots))
