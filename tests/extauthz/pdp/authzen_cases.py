"""What tests of the AuthZEN calls share: decision tables, their policies, keys and tokens."""

from __future__ import annotations

import base64
import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.extauthz.key_server import jwks, token

FOLDER = Path(__file__).resolve().parents[2] / "cases" / "authzen"
POLICIES = FOLDER / "policies"
AUX_DATA: dict[str, Any] = {
    "jwt": {"keySets": [{"id": "company", "local": {"data": base64.b64encode(jwks("rsa")).decode()}}]}
}


def cases(name: str) -> list[dict[str, Any]]:
    """Read the table *name*; tokens are filled in."""
    loaded: list[dict[str, Any]] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return [{**case, "request": with_tokens(case["request"])} for case in loaded]


@cache
def _tokens() -> dict[str, str]:
    soon = time.time() + 3600
    return {
        f"${department}": token({"sub": "alice", "department": department, "exp": soon})
        for department in ("legal", "sales")
    }


def with_tokens(value: Any) -> Any:
    """Put a token where its name stands: ``$legal``, ``$sales``."""
    match value:
        case dict():
            return {name: with_tokens(item) for name, item in value.items()}
        case list():
            return [with_tokens(item) for item in value]
        case str():
            return _tokens().get(value, value)
        case _:
            return value
