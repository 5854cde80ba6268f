"""Policies in a git repository, served by real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.storage import Store, open_store
from tests.engine.storage.contract import FilesContract, RetryingContract, StoreContract, WatchedContract
from tests.engine.storage.git_servers import Files, GitServer, HttpServer, Repository, SshServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POLL = 0.2


class Branch:
    """Changes the files of a repository's branch, each time with a commit."""

    def __init__(self, repository: Repository, server: GitServer, checkouts: Path) -> None:
        self.repository = repository
        self.server = server
        self.checkouts = checkouts
        self._opened = 0

    def put(self, path: str, content: bytes) -> None:
        """Commit a file."""
        self.repository.commit({path: content})

    def remove(self, path: str) -> None:
        """Commit that a file is gone."""
        self.repository.commit({path: None})

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Commit many files."""
        self.repository.commit(contents)

    def open(self, **more: Any) -> Store:
        """Open a store of the branch, by default with a clone of its own."""
        self._opened += 1
        settings = {
            **self.server.settings(self.repository.path),
            "branch": "main",
            "checkoutDir": str(self.checkouts / str(self._opened)),
            "updatePollInterval": POLL,
            **more,
        }
        return open_store("git", settings)

    def go_away(self) -> None:
        """Stop the server."""
        self.server.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.server.start()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repositories" / "policies.git")


@pytest.fixture
def server(repository: Repository) -> GitServer:
    return Files(repository.path.parent)


@pytest.fixture
def changer(repository: Repository, server: GitServer, tmp_path: Path) -> Branch:
    return Branch(repository, server, tmp_path / "checkouts")


@pytest.fixture
def store(changer: Branch) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


@pytest.fixture
def https(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    server = HttpServer(repository.path.parent, tmp_path / "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates / "ca.crt"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer(tmp_path / "ssh")
    server.start()
    yield server
    server.stop()


class GitContract(FilesContract, WatchedContract, RetryingContract):
    """What the git store has to do, over whatever protocol."""

    has_revision = True


class TestFile(GitContract):
    """The git store keeps the contract of all stores, for a repository on disk."""

    unreachable = r"cannot read branch `main` of `.*policies\.git`: there is no git repository"


class TestHttps(GitContract):
    """And over HTTPS, with a user and a password."""

    unreachable = r"of `https://localhost:\d+/policies\.git`: cannot connect to `localhost` port \d+: "

    @pytest.fixture
    def server(self, https: HttpServer) -> GitServer:
        return https


class TestSsh(StoreContract, WatchedContract, RetryingContract):
    """And over ssh, with a key. Which files count was told above; connections take their time."""

    has_revision = True
    unreachable = r"of `ssh://127\.0\.0\.1:\d+/.*policies\.git`: cannot connect to `127\.0\.0\.1` port \d+: "

    @pytest.fixture
    def server(self, ssh: SshServer) -> GitServer:
        return ssh
