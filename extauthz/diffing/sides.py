"""The two states that are compared: a directory, an archive, a bundle, or a commit of a git repository."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.engine import Loader
from engine.load import PolicyError
from engine.rules import Settings
from engine.storage import StoreError, open_store
from engine.storage.bundle.format import is_bundle, open_unverified
from engine.storage.tree import snapshot_of
from engine.verify import suite_files
from engine.verify.loading import TEST_DATA, is_suite_file
from extauthz.compiling.problems import problems_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dulwich.objects import Commit
    from dulwich.repo import Repo

    from engine.rules import RuleTable
    from engine.storage import Snapshot
    from extauthz.compiling.problems import Problems


NOT_THERE = "there is no file or directory `{}`"


class SideError(Exception):
    """A state cannot be had; worded for whoever named it."""


class NotCompiledError(Exception):
    """The policies of a state do not compile."""

    def __init__(self, name: str, problems: Problems) -> None:
        self.problems = problems
        super().__init__(f"the policies of `{name}` do not compile")


@dataclass(frozen=True, slots=True)
class Side:
    """One state of the policies, compiled, and the tests that are kept with it."""

    name: str
    table: RuleTable
    suites: Mapping[str, bytes]
    """Suites and fixtures by path."""


def load_side(name: str, repository: Path, directory: str) -> Side:
    """Load what *name* means: a path, if there is one, else a commit of *repository*.

    *directory* is where in the commit the policies are; ``REVISION:DIRECTORY`` says it for one side.

    Raises:
        SideError: there is nothing of that name, or it cannot be read.
        NotCompiledError: the policies do not compile.

    """
    try:
        snapshot, suites = (
            _from_path(name) if Path(name).exists() else _from_commit(name, repository, directory)
        )
    except (StoreError, OSError) as error:
        raise SideError(f"cannot read `{name}`: {error}") from error
    try:
        table = Loader(Settings(schema_enforcement="reject")).table(snapshot)
    except PolicyError as error:
        raise NotCompiledError(name, problems_of(error, snapshot)) from None
    return Side(name, table, suites)


def _from_path(name: str) -> tuple[Snapshot, Mapping[str, bytes]]:
    if is_bundle(name):
        # Whoever compares two files has them at hand; that somebody signed one is for those who follow it.
        opened = open_unverified(Path(name).read_bytes())
        return snapshot_of(opened.files, revision=opened.manifest.revision), {}
    store = open_store("disk", {"directory": os.fspath(name)})
    try:
        return store.read(), suite_files(name)
    finally:
        store.close()


def _from_commit(name: str, repository: Path, directory: str) -> tuple[Snapshot, Mapping[str, bytes]]:
    revision, colon, within = name.partition(":")
    contents = commit_files(repository, revision, within if colon else directory)
    return snapshot_of(contents), {path: text for path, text in contents.items() if _belongs_to_tests(path)}


def _belongs_to_tests(path: str) -> bool:
    *folders, name = path.split("/")
    return is_suite_file(name) or TEST_DATA in folders[-1:]


def commit_files(repository: Path, revision: str, directory: str) -> dict[str, bytes]:
    """Return the files below *directory* of a commit, by path.

    Links and submodules are left out.

    Raises:
        SideError: there is no such repository, commit or directory.

    """
    try:
        from dulwich.errors import NotGitRepository  # noqa: PLC0415 - only for commits
        from dulwich.repo import Repo  # noqa: PLC0415 - the same
    except ImportError as error:
        hint = "revisions of git need `dulwich`; install `extauthz[git]`"
        raise SideError(f"{NOT_THERE.format(revision)}, and {hint}") from error

    try:
        found = Repo.discover(str(repository))
    except NotGitRepository:
        raise SideError(f"{NOT_THERE.format(revision)}, and no git repository at `{repository}`") from None
    with found as repo:
        try:
            tree = _ancestor(repo, revision).tree
        except (KeyError, ValueError):
            raise SideError(f"{NOT_THERE.format(revision)}, and no commit of that name") from None
        prefix = f"{directory.strip('/')}/".encode() if directory.strip("/") else b""
        wanted = {
            entry.path.removeprefix(prefix).decode("utf-8", "backslashreplace"): entry.sha
            for entry in repo.object_store.iter_tree_contents(tree)
            if entry.path.startswith(prefix) and stat.S_ISREG(entry.mode)
        }
        if not wanted:
            raise SideError(f"there is no file in `{directory or '/'}` of commit `{revision}`")
        return {path: repo[sha].as_raw_string() for path, sha in wanted.items()}


_STEPS = re.compile(r"(?:~[0-9]{0,4}|\^)+$")


def _ancestor(repo: Repo, revision: str) -> Commit:
    """Find a commit by its name or id, and go back as ``~2`` and ``^`` after it say; raises KeyError."""
    from dulwich.objectspec import parse_commit  # noqa: PLC0415 - only for commits

    steps = _STEPS.search(revision)
    commit = parse_commit(repo, revision[: steps.start()] if steps else revision)
    back = re.findall(r"~([0-9]*)|\^", steps[0]) if steps else []
    for _ in range(sum(int(count or 1) for count in back)):
        if not commit.parents:
            raise KeyError(revision)
        commit = parse_commit(repo, commit.parents[0])
    return commit
