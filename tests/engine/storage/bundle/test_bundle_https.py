"""Bundles from a web server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.bundle.publisher import FollowedPublisher, WebServer
from tests.engine.storage.contract import FilesContract, LookingContract, RetryingContract, WatchedContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.storage import Store

PATH = "/expenses.bundle"


class WebPublisher(FollowedPublisher):
    """Publishes on a web server."""

    def __init__(self, web: WebServer, ca: Path, directory: Path) -> None:
        self.web = web
        settings = {"url": f"{web.url}{PATH}", "https": {"caCert": str(ca)}}
        super().__init__(lambda data: web.files.__setitem__(PATH, data), settings, directory)

    def go_away(self) -> None:
        """Stop the server."""
        self.web.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.web.start()


@pytest.fixture
def changer(web: WebServer, certificate_files: tuple[Path, Path], tmp_path: Path) -> WebPublisher:
    return WebPublisher(web, certificate_files[0], tmp_path)


@pytest.fixture
def store(changer: WebPublisher) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestBundleStore(FilesContract, WatchedContract, LookingContract, RetryingContract):
    """The bundle store keeps the contract of all stores."""

    has_revision = True
    unreachable = r"cannot reach `https://localhost:\d+/expenses\.bundle`: cannot connect"
