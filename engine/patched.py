"""Large mappings of which each differs from the one before in a few values.

Of ten thousand policies one changes. To copy every index for that takes milliseconds, in which the
interpreter does nothing else; to write into an index takes it from those who are reading it. So a new mapping
shares the old one's dict, and says besides what is different. When that has become much, it has a dict of its
own; where there are few values, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST, PART = 128, 1 / 32
"""So many values are different at most, and such a part of all. What they stand in for is still held."""


class Patched(Mapping[Key, Value]):
    """A mapping that never changes. Others with the same keys, in the same order, are made of it."""

    __slots__ = ("_base", "_patch")

    def __init__(self, base: dict[Key, Value]) -> None:
        """Whoever made *base* leaves it alone from now on."""
        self._base = base
        self._patch: dict[Key, Value] = {}

    def patched(self, values: Mapping[Key, Value]) -> Patched[Key, Value]:
        """Return the mapping in which *values* stand in for those of the same keys.

        Raises:
            KeyError: there is no such key.

        """
        for key in values:
            if key not in self._base:
                raise KeyError(key)
        if not values:
            return self
        patch = {**self._patch, **values}
        if len(patch) > min(MOST, len(self._base) * PART):
            return Patched({**self._base, **patch})
        made = Patched(self._base)
        made._patch = patch
        return made

    def differs(self, other: Patched[Key, Value]) -> list[Key] | None:
        """Return the keys whose values are other objects in *other*; ``None`` if it has other keys.

        That is fast when one was made of the other.
        """
        if other._base is self._base:
            return [key for key in {**self._patch, **other._patch} if self[key] is not other[key]]
        if not self.is_alike(other):
            return None
        return [key for key, value in self.items() if value is not other[key]]

    def is_alike(self, other: Patched[Key, Any]) -> bool:
        """Tell whether *other* has the same keys. That is fast when one was made of the other."""
        return other._base is self._base or other.keys() == self.keys()

    def _flat(self) -> dict[Key, Value]:
        return {**self._base, **self._patch} if self._patch else self._base

    def __getitem__(self, key: Key) -> Value:
        return self._patch[key] if key in self._patch else self._base[key]

    def __contains__(self, key: object) -> bool:
        return key in self._base

    def __len__(self) -> int:
        return len(self._base)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._base)

    def keys(self) -> KeysView[Key]:
        """Return the keys."""
        return self._base.keys()

    def values(self) -> ValuesView[Value]:
        """Return the values as they are, in the order of the keys."""
        return self._flat().values()

    def items(self) -> ItemsView[Key, Value]:
        """Return keys and values as they are."""
        return self._flat().items()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._flat()!r})"
