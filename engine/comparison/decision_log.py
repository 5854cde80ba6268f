"""Questions that were really asked: decision logs in Cerbos's form, one JSON object a line.

Only what was asked is read (``checkResources.inputs``), and when. Other kinds of entries, of access logs or
of plans, ask nothing that could be compared.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

from engine.cel import Timestamp
from engine.comparison.cases import A_MOMENT, Case
from engine.document import Fault
from engine.model import AuxData, CheckInput, Principal, Resource, json_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE = 16 * 1024 * 1024
"""Bytes of an entry; a request of Cerbos's API is 4 MiB at most, and its answer repeats some of it."""


class LogError(Exception):
    """A line of a log cannot be used; *fault* says where and why."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


def from_decision_log(lines: Iterable[bytes], file: str) -> Iterator[Case]:
    """Yield the questions of a log; *file* is its name, for people.

    Raises:
        LogError: a line is not an entry. An entry half written, at the end of a file, is one of these.

    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield from _cases(line, f"{file}:{number}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"lacks `{error.args[0]}`" if isinstance(error, KeyError) else str(error)
            raise LogError(Fault(file, number, 1, f"not an entry of a decision log: {reason}")) from None


def _cases(line: bytes, name: str) -> Iterator[Case]:
    if len(line) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE >> 20} MiB")
    try:
        entry: Any = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    now = _moment(entry.get("timestamp"))
    for question in (entry.get("checkResources") or {}).get("inputs", ()):
        yield Case("log", name, _question(question), now)


def _moment(text: Any) -> Timestamp:
    if text is None:
        return A_MOMENT
    moment = datetime.datetime.fromisoformat(text)
    return Timestamp(int(moment.timestamp() * 1_000_000) * 1000)


def _question(entry: Any) -> CheckInput:
    principal, resource, aux_data = entry["principal"], entry["resource"], entry.get("auxData", {})
    return CheckInput(
        Principal(
            _text(principal["id"]),
            tuple(map(_text, principal["roles"])),
            json_value(principal.get("attr", {})),
            _text(principal.get("policyVersion", "")),
            _text(principal.get("scope", "")),
        ),
        Resource(
            _text(resource["kind"]),
            _text(resource.get("id", "")),
            json_value(resource.get("attr", {})),
            _text(resource.get("policyVersion", "")),
            _text(resource.get("scope", "")),
        ),
        tuple(map(_text, entry["actions"])),
        AuxData(json_value(aux_data.get("jwt", {})), json_value(aux_data.get("jwts", {}))),
        _text(entry.get("requestId", "")),
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"`{value}` is not text")
