"""The real ``cerbosctl``, and ours: the same commands to the real Cerbos and to us, on SQLite stores."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pytest
from click.testing import CliRunner

from extauthz.admin.credentials import made_hash
from extauthz.ctl.commands import ctl as ctl_command
from tests.differential.oracle import cerbos, cerbosctl_binary
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

USERNAME, PASSWORD = "ada", "a password of hers"
SECONDS = 120

ROLES = """
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions: [{name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}]
"""
ALBUM = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: album
  version: default
  importDerivedRoles: [roles]
  variables: {local: {public: R.attr.public}}
  rules:
    - {actions: [view, "edit:*"], effect: EFFECT_ALLOW, derivedRoles: [owner]}
    - {actions: [view], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: V.public}}}
"""
ALBUM_OF_ACME = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: album
  version: default
  scope: acme
  rules: [{actions: [view], effect: EFFECT_DENY, roles: [guest]}]
"""
ADA = """
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: ada
  version: "20260101"
  rules: [{resource: album, actions: [{action: view, effect: EFFECT_ALLOW}]}]
"""
ACCOUNTANT = """
apiVersion: api.cerbos.dev/v1
rolePolicy:
  {role: accountant, scope: acme, parentRoles: [user], rules: [{resource: album, allowActions: [view]}]}
"""
FILES = {
    "tree/a_roles.yaml": ROLES,
    "tree/b_album.yaml": ALBUM,
    "tree/deep/album_acme.yaml": ALBUM_OF_ACME,
    "tree/deep/ada.yml": ADA,
    "tree/role.yaml": ACCOUNTANT,
    "tree/testdata/not_a_policy.yaml": "nothing",
    "tree/b_album_test.yaml": "name: a suite",
    "schemas/album.json": '{"type": "object"}',
    "schemas/common/address.json": '{"type": "object", "properties": {"zip": {"type": "string"}}}',
    "broken.yaml": ALBUM.replace("album", "broken").replace("V.public", "V.public &&"),
}


class Step(NamedTuple):
    """A command, and what it is about."""

    arguments: tuple[str, ...]
    differs: str = ""
    """Why the two servers do not answer the same; then only what it is about is checked."""


def step(line: str, differs: str = "") -> Step:
    return Step(tuple(line.split()), differs)


STEPS = (
    step("get resource_policies"),
    step("put policy -R tree"),
    step("put policy tree/a_roles.yaml tree/b_album.yaml"),
    step("put schema -R schemas"),
    step("get resource_policies"),
    step("get rp --no-headers"),
    step("get rp --name album --version default"),
    step("get rp --name-regexp ^al.*m$ --scope-regexp ^acme$"),
    step("get rp --version-regexp 2026"),
    step("get rp --sort-by version"),
    step("get principal_policies"),
    step("get role_policies"),
    step("get derived_roles"),
    step("get export_variables"),
    step("get rp resource.album.vdefault -o yaml"),
    step("get rp resource.album.vdefault resource.album.vdefault/acme -o json"),
    step("get pp principal.ada.v20260101 -o prettyjson"),
    step("get rp resource.nothing.vdefault"),
    step("get rp derived_roles.roles"),
    step("get schemas"),
    step("get schema album.json common/address.json"),
    step("get schema nothing.json", "we say NotFound, Cerbos says Internal"),
    step("inspect policies"),
    step("inspect policies --name-regexp nothing"),
    step("inspect policies -o json --scope-regexp acme"),
    step("delete policy derived_roles.roles", "we say who needs it in the message too"),
    step("disable policy resource.album.vdefault", "we say who needs it in the message too"),
    step("disable policy resource.album.vdefault/acme"),
    step("get rp"),
    step("get rp --include-disabled"),
    step("enable policy resource.album.vdefault/acme nothing"),
    step("get rp"),
    step("delete policy principal.ada.v20260101 nothing"),
    step("delete schema common/address.json"),
    step("delete schema nothing.json"),
    step("store reload"),
    step("store reload --wait"),
    step("store export exported"),
    step("store export exported.zip"),
    step("put policy broken.yaml", "we do not take what does not compile"),
    step("store revisions purge --keep-last 1"),
    step("store revisions purge", "Cerbos took the broken policy, so it has one revision more"),
)


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    code: int
    output: str
    errors: str


def ctl(binary: Path, server: str, folder: Path, *arguments: str, password: str = PASSWORD) -> Ran:
    """Run the real cerbosctl."""
    options = ("--server", server, "--username", USERNAME, "--password", password, "--plaintext")
    return ran([os.fspath(binary), *arguments, *options], folder)


def our_ctl(server: str, *arguments: str) -> Ran:
    """Run ours, in this process."""
    options = ("--server", server, "--username", USERNAME, "--password", PASSWORD, "--plaintext")
    done = CliRunner().invoke(ctl_command, [*options, *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def ran(command: Sequence[str], folder: Path) -> Ran:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CERBOS_")}
    done = subprocess.run(  # noqa: S603  # what this file says
        command,
        cwd=folder,
        env={**kept, "HOME": os.fspath(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def comparable(text: str, folder: Path) -> list[str]:
    """Return the lines in one order, without what only Cerbos makes or makes anew each time.

    That are hashes of policies, moments, and the spaces with which protojson plays.
    """
    text = re.sub(r"20[0-9-]+T[0-9:]+Z", "now", text.replace(os.fspath(folder), "HERE"))
    text = re.sub(r"""\s*"?hash"?:\s*["']\d+["'],?""", "", text)
    return sorted(re.sub(r"(?<=[,:{\[]) +|\s+$", "", text, flags=re.MULTILINE).splitlines())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Lay out the same files twice."""
    made = (tmp_path / "ours", tmp_path / "theirs")
    for folder in made:
        for path, content in FILES.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return made


def storage(folder: Path) -> dict[str, object]:
    return {"driver": "sqlite3", "sqlite3": {"dsn": f"file:{folder}/policies.db?mode=rwc&_fk=true"}}


def admin() -> dict[str, object]:
    credentials = {"username": USERNAME, "passwordHash": made_hash(PASSWORD, 10)}
    return {"adminAPI": {"enabled": True, "adminCredentials": credentials}}


@pytest.fixture
def ours(folders: tuple[Path, Path]) -> Iterator[str]:
    """Serve, and tell the address."""
    server = {"httpListenAddr": "127.0.0.1:0", "grpcListenAddr": "127.0.0.1:0", **admin()}
    text = json.dumps({"server": server, "storage": storage(folders[0])}).replace("$", "$$")
    with running(text) as service:
        yield service.served.grpc.replace("localhost", "127.0.0.1")


@pytest.fixture
def theirs(folders: tuple[Path, Path]) -> Iterator[str]:
    """Let Cerbos serve, and tell the address."""
    with cerbos(folders[1], {"server": admin(), "storage": storage(folders[1])}) as oracle:
        yield oracle.grpc_address


def compare(
    run: Callable[[str, Path, tuple[str, ...]], Ran], ours: str, theirs: str, folders: tuple[Path, Path]
) -> Iterator[tuple[Step, Ran, Ran]]:
    """Run every step on both sides, hold what came of it side by side, and yield what is to differ."""
    for each in STEPS:
        mine, other = run(ours, folders[0], each.arguments), run(theirs, folders[1], each.arguments)
        if each.differs:
            yield each, mine, other
            continue
        assert mine.code == other.code, (each.arguments, mine, other)
        assert comparable(mine.output, folders[0]) == comparable(other.output, folders[1]), each.arguments
        assert comparable(mine.errors, folders[0]) == comparable(other.errors, folders[1]), each.arguments


def exported(folder: Path) -> set[str]:
    return {path.name for path in (folder / "exported").rglob("*")}


def test_cerbosctl_works_with_us_as_with_cerbos(
    ours: str, theirs: str, folders: tuple[Path, Path], record_property: Callable[[str, object], None]
) -> None:
    """Each command of cerbosctl says the same and ends the same, from one state of the store to the next."""
    binary = cerbosctl_binary()
    steps = compare(lambda server, folder, line: ctl(binary, server, folder, *line), ours, theirs, folders)
    listed = 0
    for each, mine, other in steps:
        listed += 1
        assert mine != other, f"{each.arguments} is no divergence any more: {each.differs}"
    record_property("compared", ("commands of cerbosctl", len(STEPS), listed))
    assert exported(folders[0]) == exported(folders[1]) != set()


def test_our_ctl_works_with_cerbos_as_with_us(
    ours: str, theirs: str, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of ours says the same and ends the same with a Cerbos as with us."""
    monkeypatch.setenv("HOME", os.fspath(folders[0]))

    def run(server: str, folder: Path, arguments: tuple[str, ...]) -> Ran:
        monkeypatch.chdir(folder)
        return our_ctl(server, *arguments)

    for each, mine, other in compare(run, ours, theirs, folders):
        assert mine.code == other.code or "broken.yaml" in each.arguments
    assert exported(folders[0]) == exported(folders[1]) != set()


def test_cerbosctl_is_refused_with_a_wrong_password(ours: str, folders: tuple[Path, Path]) -> None:
    """Without the right password nothing is done, and the words are Cerbos's."""
    found = ctl(cerbosctl_binary(), ours, folders[0], "get", "rp", password="another")
    assert (found.code, found.output) == (1, "")
    assert "code = Unauthenticated desc = incorrect credentials" in found.errors
