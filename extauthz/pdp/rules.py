"""The rules that a field of a request keeps, as the published API declares them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rules:
    """What the value of a field must be like. Lengths are in characters, items, entries."""

    required: bool = False
    """Neither absent nor empty."""
    min_length: int = 0
    max_length: int | None = None
    min_bytes: int = 0
    pattern: str = ""
    """Of RE2, as the API spells it; for Python it must mean the same."""
    choices: tuple[str, ...] = ()
    """The only values there may be; any when empty."""
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False
    item_min_length: int = 0
    item_max_length: int | None = None
    min_pairs: int = 0
    key_min_length: int = 0

    @property
    def checks_something(self) -> bool:
        """Tell whether there is any rule."""
        return self != NONE


NONE: Final = Rules()
REQUIRED: Final = Rules(required=True)
NAME: Final = Rules(required=True, min_length=1)
"""A string that is not empty."""
VERSION: Final = Rules(pattern=r"^[\w]*$")
SCOPE: Final = Rules(pattern=r"^(^$|\.|[0-9a-zA-Z][\w\-]*(\.\w[\w\-]*)*)$")
NAMES: Final = Rules(required=True, min_items=1, unique=True, item_min_length=1)
"""Strings that are not empty and not repeated."""
KEYS: Final = Rules(key_min_length=1)
"""A map whose keys are not empty."""
ENTRIES: Final = Rules(required=True, min_items=1)
INSTANCES: Final = Rules(required=True, min_pairs=1)


def matcher(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of RE2 for Python, in which ``$`` is only the very end."""
    return re.compile(pattern.removesuffix("$") + r"\Z", re.ASCII)
