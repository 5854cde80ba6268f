"""What the form of an artefact depends on beside its text: versions, and settings that change a meaning."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import engine
from engine.messages import SCHEMA_SUFFIX

if TYPE_CHECKING:
    from engine.rules import Settings

LIBRARIES = ("cel-expr-python", "protobuf", "envoy-data-plane", "PyYAML", "google-re2")
"""Packages that have a hand in what a text becomes."""


def edition(settings: Settings) -> bytes | None:
    """Return a digest that is the same wherever the same text becomes the same artefact.

    ``None`` where that cannot be told, because the source of this package is not to be had.
    """
    source = _source()
    if source is None:
        return None
    known = [
        _digest(source),
        sys.version,
        sys.implementation.cache_tag,
        importlib.util.MAGIC_NUMBER.hex(),
        platform.machine(),
        sys.byteorder,
        [(name, _version(name)) for name in LIBRARIES],
        settings.runtime_action,
        settings.schema_enforcement != "none",  # then expressions are looked into
    ]
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=32).digest()


def key_of(edition: bytes, kind: str, content: bytes) -> bytes:
    """Return the key of the artefact of *kind* that is made of *content*."""
    return hashlib.blake2b(content, digest_size=32, key=edition, person=kind.encode()).digest()


@functools.cache
def _source() -> tuple[tuple[str, bytes], ...] | None:
    """Return the source of this package; it is what decides, not the number of the version."""
    folder = Path(engine.__file__).parent
    try:
        files = sorted(file for file in folder.rglob("*") if file.suffix in {".py", SCHEMA_SUFFIX})
        found = tuple(
            (str(file.relative_to(folder)), hashlib.blake2b(file.read_bytes()).digest()) for file in files
        )
    except OSError:
        return None
    return found or None


def _digest(source: tuple[tuple[str, bytes], ...]) -> str:
    known = hashlib.blake2b()
    for name, content in source:
        known.update(name.encode() + b"\0" + content)
    return known.hexdigest()


@functools.cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
