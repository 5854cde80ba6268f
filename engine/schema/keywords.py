"""Keywords and formats of JSON Schema where Cerbos's validator differs from ours.

Cerbos reads ``pattern`` as RE2, asserts what ``contentEncoding`` and ``contentMediaType`` say, knows some
formats by old names, and does not check those for internationalised names.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import re2  # type: ignore[import-untyped]  # ships no types

from engine.schema.messages import quoted

if TYPE_CHECKING:
    from collections.abc import Callable


class Pattern:
    """``pattern``, in RE2's syntax and linear time."""

    def __init__(self, _parent: dict[str, Any], value: Any, _path: list[str | int]) -> None:
        options = re2.Options()
        options.log_errors = False
        try:
            self._search = re2.compile(value, options).search
        except re2.error as error:
            raise ValueError(f"{quoted(value)} is not valid 'regex': {error}") from None
        self._message = f"does not match pattern {quoted(value)}"

    def validate(self, instance: Any) -> None:
        """Refuse text that the pattern is not found in.

        Raises:
            ValueError: with the message to report.

        """
        if isinstance(instance, str) and self._search(instance) is None:
            raise ValueError(self._message)


class ContentEncoding:
    """``contentEncoding``: only base64 is checked."""

    def __init__(self, _parent: dict[str, Any], value: Any, _path: list[str | int]) -> None:
        self._encoding = value

    def validate(self, instance: Any) -> None:
        """Refuse text that is not encoded so.

        Raises:
            ValueError: with the message to report.

        """
        if self._encoding == "base64" and isinstance(instance, str) and _decoded(instance) is None:
            raise ValueError("value is not base64 encoded")


class ContentMediaType:
    """``contentMediaType``: only JSON is checked; text that its encoding refuses is not looked at."""

    def __init__(self, parent: dict[str, Any], value: Any, _path: list[str | int]) -> None:
        self._media_type = value
        self._encoding = parent.get("contentEncoding")

    def validate(self, instance: Any) -> None:
        """Refuse text that is something else.

        Raises:
            ValueError: with the message to report.

        """
        if self._media_type != "application/json" or not isinstance(instance, str):
            return
        content = _decoded(instance) if self._encoding == "base64" else instance.encode()
        if self._encoding in (None, "base64") and content is not None and not _is_json(content):
            raise ValueError("value is not of mediatype 'application/json'")


_BASE64_LINE_BREAKS = str.maketrans("", "", "\r\n")


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.translate(_BASE64_LINE_BREAKS), validate=True)
    except ValueError:
        return None


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


KEYWORDS: dict[str, type[Any]] = {
    "contentEncoding": ContentEncoding,
    "contentMediaType": ContentMediaType,
    "pattern": Pattern,
}


# -- formats -----------------------------------------------------------------------------------------------


def _format(name: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = jsonschema_rs.validator_for(
        {"format": name}, validate_formats=True
    ).is_valid
    return check


_is_duration = _format("duration")
_is_moment = _format("date-time")


def _is_period(text: str) -> bool:
    """Tell whether *text* is an ISO 8601 period: two moments, or one and a duration."""
    start, slash, end = text.partition("/")
    if not slash:
        return False
    if _is_moment(start):
        return _is_moment(end) or _is_duration(end)
    return _is_duration(start) and _is_moment(end)


def _is_expression(text: str) -> bool:
    try:
        Pattern({}, text, [])
    except ValueError:
        return False
    return True


def _anything(_text: str) -> bool:
    return True


FORMATS: dict[str, Callable[[str], bool]] = {
    "idn-email": _anything,
    "idn-hostname": _anything,
    "ip-address": _format("ipv4"),
    "iriref": _format("iri-reference"),
    "period": _is_period,
    "regex": _is_expression,
    "uriref": _format("uri-reference"),
}
