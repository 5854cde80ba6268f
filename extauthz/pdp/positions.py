"""Where in a JSON text a value stands: asked only about texts that were refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)


class Spot(NamedTuple):
    """A place in a text, counted from 1, and what stands there: a name, a scalar, an opening bracket."""

    line: int
    column: int
    token: str


def spot(text: bytes, path: Sequence[str | int], *, of_name: bool = False) -> Spot:
    """Find the value that *path* leads to in a valid JSON text, or with *of_name* the name before it.

    Time is linear in the text up to there.
    """
    characters = text.decode()
    found = _find(characters, path, of_name=of_name)
    before = characters[: found.start()]
    line = before.count("\n") + 1
    return Spot(line, found.start() - (before.rfind("\n") + 1) + 1, found[0])


def _find(text: str, path: Sequence[str | int], *, of_name: bool) -> re.Match[str]:
    """Walk over the tokens, knowing the way to each: names for objects, indexes for lists."""
    wanted, name_next = list(path), False
    way: list[str | int] = []
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "}]":
            way.pop()
            name_next = False
        elif first == "," and isinstance(way[-1], int):
            way[-1] += 1
        elif first == ",":
            name_next = True
        elif first != ":":
            if name_next:
                way[-1] = json.loads(token[0])
            if way == wanted and name_next is of_name:
                return token
            if not name_next and first in "{[":
                way.append("" if first == "{" else 0)
            name_next = first == "{"
    raise LookupError("the text has no such value")
