"""What the stores of remote places keep on disk, after the process was killed while it wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine.storage import open_store
from engine.storage.blob import BlobStore
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, WebServer, certificate
from tests.engine.storage.bundle.test_bundle_https import PATH, WebPublisher
from tests.engine.storage.contract import actions, closed
from tests.engine.storage.killed import KINDS, Victims, assert_whole, tries, updates
from tests.engine.storage.test_blob import S3Changer, changer
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from tests.engine.storage.contract import Changer

__all__ = ["changer"]  # the fixture


class Unhurried:
    """Lets a place rest after each change, so that somebody can follow."""

    def __init__(self, changer: Changer, seconds: float) -> None:
        self._changer = changer
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._changer, name)

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Change, and rest."""
        self._changer.together(contents)
        time.sleep(self._seconds)


def test_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle in `cacheDir` is a whole one, and none that the next start would have to go behind."""
    monkeypatch.setattr("engine.storage.following.FIRST_DELAY", 0.001)
    cert, key = certificate(tmp_path / "tls")
    web = WebServer(cert, key)
    settings: dict[str, Any] = {
        "url": f"{web.url}{PATH}",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(tmp_path / "cache"),
        "https": {"caCert": str(cert)},
    }
    away = {**settings, "url": f"https://localhost:{free_port()}/away"}
    newest = 0
    try:
        with (
            updates(Unhurried(WebPublisher(web, cert, tmp_path), 0.03)) as done,
            Victims("bundle", settings) as victims,
        ):
            for _ in range(tries() // 4):
                before = done[-1]
                assert assert_whole(victims.kill_and_read()) >= before
                with closed(open_store("bundle", away)) as store:
                    found = store.read().files
                kept = assert_whole({path: content.decode() for path, content in found.items()})
                assert kept >= max(before, newest)
                newest = kept
    finally:
        web.stop()
    assert list((tmp_path / "cache").glob(".*.part")) == []


def test_blob(changer: S3Changer) -> None:
    """The state in `workDir` is one that the bucket was in, object by object in the order of the uploads."""
    settings = {**changer.settings, "workDir": str(changer.directory / "work")}
    with updates(Unhurried(changer, 0.15)), Victims("blob", settings) as victims:
        for _ in range(tries() // 4):
            assert_was_there(victims.kill_and_read())
            with closed(open_store("blob", settings)) as store:
                assert isinstance(store, BlobStore)
                kept = store._kept_state.read()
            assert kept is not None
            assert_was_there({path: held.content.decode() for path, held in kept.items()})
    assert list((changer.directory / "work").glob(".*.part")) == []


def assert_was_there(files: Mapping[str, str]) -> None:
    """Fail unless the objects are of one version, the first ones perhaps of the next."""
    found = actions({path: content.encode() for path, content in files.items()})
    versions = [int(found[kind].removeprefix("version")) for kind in KINDS]
    assert versions == sorted(versions, reverse=True)
    assert versions[0] - versions[-1] <= 1
