"""Policies in buckets: of a real server that speaks S3, and of an emulator of Google Cloud Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import S3Store

from engine.storage import Store, open_store
from tests.engine.storage.contract import (
    FilesContract,
    RetryingContract,
    WatchedContract,
)
from tests.engine.storage.peers import binary
from tests.engine.storage.processes import ServerProcess, required

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BUCKET = "policies"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}


class BucketChanger:
    """Changes objects, and lets the server go away."""

    def __init__(self, server: ServerProcess, settings: dict[str, Any], directory: Path) -> None:
        self.server = server
        self.settings = settings
        self._directory = directory
        self._opened = 0

    def put(self, path: str, content: bytes) -> None:
        """Upload an object."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Delete an object."""
        raise NotImplementedError

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Upload objects one after the other: a bucket knows no other way."""
        for path, content in contents.items():
            self.put(path, content)

    def open(self, **settings: Any) -> Store:
        """Open a store that knows nothing of earlier ones."""
        self._opened += 1
        work = str(self._directory / f"work{self._opened}")
        return open_store("blob", {**self.settings, "workDir": work, **settings})

    def go_away(self) -> None:
        """Stop the server."""
        self.server.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.server.start()


class S3Changer(BucketChanger):
    """A bucket of an S3 server."""

    def __init__(self, server: ServerProcess, settings: dict[str, Any], directory: Path) -> None:
        super().__init__(server, settings, directory)
        self.client = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{server.port}",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            region="us-east-1",
        )

    def put(self, path: str, content: bytes) -> None:
        """Upload an object."""
        obstore.put(self.client, f"team/{path}", content)

    def remove(self, path: str) -> None:
        """Delete an object."""
        obstore.delete(self.client, f"team/{path}")


@pytest.fixture
def changer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Changer]:
    program = required(binary("versitygw"))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "s3"
    (root / BUCKET).mkdir(parents=True)
    server = ServerProcess(
        lambda port: [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(root)],
        tmp_path / "versitygw.log",
        {
            "ROOT_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        },
    )
    options = f"region=us-east-1&endpoint=127.0.0.1:{server.port}&use_path_style=true&disable_https=true"
    settings = {
        "bucket": f"s3://{BUCKET}?{options}",
        "prefix": "team",
        "updatePollInterval": 0.1,
    }
    yield S3Changer(server, settings, tmp_path)
    server.stop()


@pytest.fixture
def store(changer: S3Changer) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestBlobStore(FilesContract, WatchedContract, RetryingContract):
    """The blob store keeps the contract of all stores, but for what no bucket can do."""

    unreachable = r"`s3://policies` cannot be reached: Connection refused"
