"""A bounded memory of what was used recently."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Remembers values by string key, in bounded space, and forgets what was not used for long.

    Two generations: what is stored or found goes to the young one; when that is half the limit, the old one
    is dropped and the young one takes its place. So reading the young generation is one ``dict.get``,
    forgetting costs nothing per entry, and an entry in use is never forgotten. Several threads may use it.
    """

    __slots__ = ("_changing", "_max_entries", "_max_weight", "_old", "_weight", "young")

    def __init__(self, max_entries: int, max_weight: int) -> None:
        """Keep at most *max_entries* entries whose weights sum to at most *max_weight*, in any unit."""
        self._max_entries = max(1, max_entries // 2)
        self._max_weight = max_weight // 2
        self._weight = 0
        self._changing = threading.Lock()
        self._old: dict[str, tuple[Value, int]] = {}
        self.young: dict[str, tuple[Value, int]] = {}
        """Values with their weights; public so that a hot path can look here first, without a call."""

    def get(self, key: str) -> Value | None:
        """Give the value stored under *key*, if it is still remembered."""
        entry = self.young.get(key)
        if entry is not None:
            return entry[0]
        with self._changing:
            entry = self._old.pop(key, None)
            if entry is None:
                return None
            self._keep(key, entry)
        return entry[0]

    def put(self, key: str, value: Value, weight: int) -> None:
        """Remember *value* under *key*, unless it alone is heavier than half of what may be kept."""
        with self._changing:
            self._drop(key)
            if weight <= self._max_weight:
                self._keep(key, (value, weight))

    def drop(self, key: str) -> None:
        """Forget *key*."""
        with self._changing:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._changing:
            self.young, self._old, self._weight = {}, {}, 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def _drop(self, key: str) -> None:
        self._old.pop(key, None)
        entry = self.young.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]

    def _keep(self, key: str, entry: tuple[Value, int]) -> None:
        if len(self.young) >= self._max_entries or self._weight + entry[1] > self._max_weight:
            self._old, self.young, self._weight = self.young, {}, 0
        self.young[key] = entry
        self._weight += entry[1]
