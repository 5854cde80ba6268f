"""Many small artefacts in one piece of memory, which is given back as a whole.

Tens of thousands of objects of their own, made in between what stays, would leave holes that last as long as
the process.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping


class Shelf(MutableMapping[bytes, bytes]):
    """Artefacts by key. What is replaced or removed goes on to take room."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {}

    def __setitem__(self, key: bytes, artefact: bytes) -> None:
        start = len(self._content)
        self._content += artefact
        self._places[key] = start, len(self._content)

    def __getitem__(self, key: bytes) -> bytes:
        start, end = self._places[key]
        return bytes(self._content[start:end])

    def __delitem__(self, key: bytes) -> None:
        del self._places[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
