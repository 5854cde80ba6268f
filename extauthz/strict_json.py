"""JSON from strangers, read so that no two readers can disagree about it.

What other parsers let pass is refused here: a key given twice (RFC 8259 §4 leaves its meaning open), NaN and
infinite numbers, lone surrogates, invalid UTF-8, a byte order mark, and nesting beyond 64 levels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from engine.model import JsonValue

MAX_DEPTH = 64


class StrictJsonError(ValueError):
    """The text is not JSON, or is JSON that could be read in two ways."""


def parse(text: bytes) -> JsonValue:
    """Read *text*; numbers become ``float``, as everywhere in the engine.

    The caller bounds the size. Time and memory are linear in it.

    Raises :class:`StrictJsonError`, with a message that repeats nothing of the text but a key given twice.
    """
    # orjson is strict about everything except duplicate keys, and it has a depth limit of its own, which
    # keeps the recursive scanner of the standard library, needed for the pairs, off hostile nesting.
    try:
        _check_depth(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise StrictJsonError(f"not valid JSON: {error.msg}") from None
    return _PAIRS.decode(text.decode())


def parse_object(text: bytes) -> dict[str, JsonValue]:
    """Read *text*, which must be a JSON object; see :func:`parse`."""
    value = parse(text)
    if not isinstance(value, dict):
        raise StrictJsonError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # set.add is the side effect wanted
    raise StrictJsonError(f"the key `{twice[:64]}` is given twice")


_PAIRS = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float)


def _check_depth(value: JsonValue) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for parent in level for item in _items(parent)]
        if not level:
            return
    raise StrictJsonError(f"nested deeper than {MAX_DEPTH} levels")


def _items(value: JsonValue) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
