"""Nested lines drawn as a tree, or only indented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Node:
    """A line and what stands below it; further lines of *text* are indented as far as the first."""

    text: str
    children: tuple[Node, ...] = ()


def tree_lines(nodes: Sequence[Node], prefix: str = "") -> Iterator[str]:
    """Draw nodes with the lines that join them."""
    for node in nodes:
        last = node is nodes[-1]
        joint = "└─" if last else "├─"
        below = f"{prefix}{'  ' if last else '│ '}"
        yield from _lines(f"{prefix}{joint}{'┬' if node.children else '─'}", below, node.text)
        yield from tree_lines(node.children, below)


def list_lines(nodes: Sequence[Node], prefix: str = "") -> Iterator[str]:
    """Indent nodes by their depth."""
    for node in nodes:
        yield from _lines(prefix, prefix, node.text)
        yield from list_lines(node.children, f"{prefix}  ")


def _lines(first: str, further: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n")):
        yield f"{further if number else first}{line}"
