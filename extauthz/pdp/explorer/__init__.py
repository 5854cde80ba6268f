"""The explorer: a page to look at the PDP API and to try it, served at ``/``.

It is one HTML document that loads nothing but our own OpenAPI document, and says so to the browser: its
script and its style are allowed by their digests, connections only to where the page came from, and nobody
may show it in a frame. ``page.html`` is the frame for ``page.css`` and ``page.js``.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STYLE: Final = "/*STYLE*/"
SCRIPT: Final = "/*SCRIPT*/"


class Page(NamedTuple):
    """An HTML document and the headers that it has to come with."""

    body: bytes
    headers: Mapping[str, str]


@cache
def page() -> Page:
    """Put the page together."""
    style, script = _source("page.css"), _source("page.js")
    body = _source("page.html").replace(STYLE, style).replace(SCRIPT, script)
    return Page(body.encode(), _headers(style, script))


def _source(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _headers(style: str, script: str) -> Mapping[str, str]:
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _policy(style, script),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }


def _policy(style: str, script: str) -> str:
    directives = {
        "default-src": "'none'",
        "script-src": _digest(script),
        "style-src": _digest(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _digest(source: str) -> str:
    """Name a script or style by its digest (Content Security Policy Level 3, §2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
