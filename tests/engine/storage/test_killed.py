"""A process may be killed at any moment of an update: the next start serves one whole version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.storage.git_servers import Files, Repository
from tests.engine.storage.killed import Victims, assert_whole, tries, updates
from tests.engine.storage.test_git import Branch

if TYPE_CHECKING:
    from pathlib import Path


def test_git(tmp_path: Path) -> None:
    """Whatever is left in the `checkoutDir`: all files are those of one commit, and not of an old one."""
    repository = Repository(tmp_path / "repositories" / "policies.git")
    server = Files(repository.path.parent)
    settings = {
        **server.settings(repository.path),
        "branch": "main",
        "checkoutDir": str(tmp_path / "checkout"),
    }
    with (
        updates(Branch(repository, server, tmp_path)) as done,
        Victims("git", settings) as victims,
    ):
        for _ in range(tries()):
            before = done[-1]
            assert assert_whole(victims.kill_and_read()) >= before
