"""Servers that the tests of bundles follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.bundle.publisher import WebServer, certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def certificate_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web(certificate_files: tuple[Path, Path]) -> Iterator[WebServer]:
    server = WebServer(*certificate_files)
    yield server
    server.stop()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores try again at the start without waiting long in between."""
    monkeypatch.setattr("engine.storage.following.FIRST_DELAY", 0.01)
