"""Log lines: JSON for machines, one line of text for people, and no secrets in either.

Every module logs with the standard library's ``logging``; ``extra={...}`` becomes fields of the line. What
looks like a credential is replaced wherever it stands: in the message, in a field, in a traceback.
"""

from __future__ import annotations

import datetime
import logging
import re
import sys
from typing import Final, TextIO

import orjson

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")

MAX_CHARACTERS: Final = 16 * 1024
"""Of one text: hostile input must not fill the disk line by line."""

_SECRETS: Final = (
    (re.compile(r"eyJ[\w-]{4,}\.[\w-]+\.?[\w-]*"), "[token]"),  # a JWT; also without its signature
    (re.compile(r"\b(bearer|basic|dpop)\s+[^\s'\",]+", re.IGNORECASE), r"\1 [hidden]"),
    (re.compile(r"(://)[^/@\s:]*:[^/@\s]*@"), r"\1[hidden]@"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*"), r"\1 [hidden] "),
    (
        re.compile(
            r"\b(password|passwd|secret|client_secret|api_?key|access_token)(['\"]?\s*[=:]\s*)[^\s,;&}]+",
            re.IGNORECASE,
        ),
        r"\1\2[hidden]",
    ),
)
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_CONTROL_BUT_NEWLINE: Final = {code: text for code, text in _CONTROL.items() if code not in {9, 10}}

_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(*, level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Send everything that is logged to *stream* (standard error).

    *level* is one of :data:`LEVELS`, *style* one of :data:`FORMATS`: ``auto`` is text on a terminal and JSON
    elsewhere.
    """
    out = sys.stderr if stream is None else stream
    as_json = style == "json" or (style == "auto" and not out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter() if as_json else ConsoleFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.error", "asyncio", "watchfiles"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
    logging.captureWarnings(True)


def without_secrets(text: str) -> str:
    """Replace what looks like a credential, and cut what is too long."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}... ({len(text)} characters)"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``pid``, ``message``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": without_secrets(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return orjson.dumps(line, default=_text, option=orjson.OPT_NON_STR_KEYS).decode()


class ConsoleFormatter(logging.Formatter):
    """One line for a person; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end. Control characters, which could forge lines, are escaped."""
        message = without_secrets(record.getMessage()).translate(_CONTROL_BUT_NEWLINE)
        fields = "".join(f" {name}={_text(value)}" for name, value in _fields(record).items())
        time = _time(record).astimezone().strftime("%H:%M:%S")
        line = f"{time} {record.levelname.lower():7} {message}{fields.translate(_CONTROL)}"
        if record.exc_info:
            line += "\n" + without_secrets(self.formatException(record.exc_info)).translate(
                _CONTROL_BUT_NEWLINE
            )
        return line


def _time(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {
        name: without_secrets(value) if isinstance(value, str) else value
        for name, value in vars(record).items()
        if name not in _OF_EVERY_RECORD
    }


def _text(value: object) -> str:
    return without_secrets(str(value))
