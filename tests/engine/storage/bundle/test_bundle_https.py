"""Bundles from a web server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.storage import open_store
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, Publisher, WebServer
from tests.engine.storage.contract import FilesContract, RetryingContract, WatchedContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.storage import Store

PATH = "/expenses.bundle"


class WebPublisher(Publisher):
    """Publishes on a web server."""

    def __init__(self, web: WebServer, settings: dict[str, Any], directory: Path) -> None:
        super().__init__(lambda data: web.files.__setitem__(PATH, data))
        self.web = web
        self.settings = settings
        self._directory = directory
        self._opened = 0
        self.together({})

    def open(self, **settings: Any) -> Store:
        """Open a store that knows nothing of earlier ones."""
        self._opened += 1
        cache = str(self._directory / str(self._opened))
        return open_store("bundle", {**self.settings, "cacheDir": cache, **settings})

    def go_away(self) -> None:
        """Stop the server."""
        self.web.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.web.start()


@pytest.fixture
def changer(web: WebServer, certificate_files: tuple[Path, Path], tmp_path: Path) -> WebPublisher:
    settings = {
        "url": f"{web.url}{PATH}",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "updatePollInterval": 0.1,
        "https": {"caCert": str(certificate_files[0])},
    }
    return WebPublisher(web, settings, tmp_path)


@pytest.fixture
def store(changer: WebPublisher) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestBundleStore(FilesContract, WatchedContract, RetryingContract):
    """The bundle store keeps the contract of all stores."""

    has_revision = True
    unreachable = r"cannot reach `https://localhost:\d+/expenses\.bundle`: cannot connect"
