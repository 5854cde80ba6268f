"""What the PDP API says it is."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Final

API_VERSION: Final = "0.55.0"
"""Of the Cerbos whose API this is; clients look at it to know what they may use."""


@cache
def version() -> str:
    """Tell what we are, in a form that compares like the version of the API (https://semver.org, §10)."""
    return f"{API_VERSION}+extauthz.{importlib.metadata.version('extauthz')}"
