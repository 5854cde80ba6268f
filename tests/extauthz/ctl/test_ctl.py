"""``extauthz ctl`` as people use it, against a real server."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import yaml
from click.testing import CliRunner

from extauthz.admin.credentials import read_hash
from extauthz.certificates import Certificates
from extauthz.ctl.commands import ctl
from extauthz.ctl.connection import CtlError, netrc_credentials
from extauthz.ctl.files import (
    AT_A_TIME,
    BYTES_AT_A_TIME,
    BrokenFilesError,
    in_calls,
    read_policies,
    write_tree,
)
from extauthz.ctl.shown import row
from extauthz.pdp.admin_messages import Policy
from tests.e2e.certificates import issue
from tests.extauthz.admin.serving import (
    PASSWORD,
    USERNAME,
    Served,
    owned,
    password_hash,
    resource,
    roles,
    served,
    sqlite,
)
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(sqlite(tmp_path_factory.mktemp("store"))) as service:
        yield service


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what whoever runs the tests has configured out of them."""
    for name in ("CERBOS_SERVER", "CERBOS_USERNAME", "CERBOS_PASSWORD", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", os.fspath(folder))
    return folder


def run(*arguments: str, **options: Any) -> Result:
    found = CliRunner().invoke(ctl, [*arguments], **options)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def with_password(server: Served, *arguments: str) -> Result:
    address = ("--server", server.service.served.grpc, "--plaintext")
    return run(*address, "--username", USERNAME, "--password", PASSWORD, *arguments)


def written(folder: Path, files: dict[str, Any]) -> Path:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return folder


TREE = {
    "a_album.yaml": owned(),
    "deep/photo_acme.yml": resource("photo", scope="acme"),
    "photo.json": json.dumps(resource("photo")),
    "z_roles.yaml": roles(),
    "testdata/fixture.yaml": "nothing of ours",
    "photo_test.yaml": "name: tests",
    ".hidden/x.yaml": "nothing",
    "_schemas/album.json": '{"type": "object"}',
    "README.md": "# hello",
}


# --- putting, getting, exporting --------------------------------------------------------------------------


def test_a_tree_goes_in_and_comes_out(server: Served, tmp_path: Path) -> None:
    """A repository of policies is put with one command, whatever its files are called, and exported again."""
    tree = written(tmp_path / "tree", TREE)
    put = with_password(server, "put", "policy", "-R", str(tree))
    assert (put.exit_code, put.stdout) == (0, "Uploaded: 4\n")
    assert with_password(server, "put", "schemas", "-R", str(tree)).stdout == "Uploaded: 1\n"
    assert with_password(server, "get", "rp", "--no-headers").stdout.splitlines() == [
        "resource.album.vdefault       album  default",
        "resource.photo.vdefault       photo  default",
        "resource.photo.vdefault/acme  photo  default  acme",
    ]
    assert with_password(server, "get", "schema").stdout == "SCHEMA ID\nalbum.json\n"
    out = tmp_path / "out"
    exported = with_password(server, "store", "export", str(out))
    assert exported.stdout.splitlines()[-1] == f"Exported 4 policies and 1 schemas to {out}"
    assert yaml.safe_load((out / "resource.album.vdefault.yaml").read_text()) == owned()
    assert yaml.safe_load((out / "resource.photo.vdefault_acme.yaml").read_text()) == resource(
        "photo", scope="acme"
    )
    assert json.loads((out / "_schemas" / "album.json").read_text()) == {"type": "object"}
    for name in ("all.zip", "all.tgz", "all.tar"):
        archive = tmp_path / name
        assert with_password(server, "store", "export", str(archive)).exit_code == 0
        assert with_password(server, "put", "policies", str(archive)).stdout == "Uploaded: 4\n"
        assert with_password(server, "put", "s", str(archive)).stdout == "Uploaded: 1\n"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_forms(server: Served, tmp_path: Path) -> None:
    """A policy is shown as JSON in one line, as JSON for people, or as YAML."""
    file = written(tmp_path, {"form.yaml": resource("form")}) / "form.yaml"
    assert with_password(server, "put", "p", str(file)).exit_code == 0
    shown = {
        form: with_password(server, "get", "rp", "resource.form.vdefault", "-o", form).stdout
        for form in ("json", "prettyjson", "yaml")
    }
    assert shown["json"].count("\n") == 1
    assert shown["prettyjson"].count("\n") > 10
    assert shown["yaml"].startswith("---\napiVersion: api.cerbos.dev/v1\n")
    documents = [json.loads(shown["json"]), json.loads(shown["prettyjson"]), yaml.safe_load(shown["yaml"])]
    assert documents[0] == documents[1] == documents[2]


def test_what_is_not_there(server: Served) -> None:
    """Asking for something that is not there is told, and ends with 1."""
    found = with_password(server, "get", "rp", "resource.nothing.vdefault", "derived_roles.roles")
    assert found.exit_code == 1
    told = "error: there is no resource policy `derived_roles.roles`, `resource.nothing.vdefault`\n"
    assert found.stderr == told


def test_broken_files_are_told_with_their_places(server: Served, tmp_path: Path) -> None:
    """All faults of all files are listed, each with line and column, and nothing is sent."""
    tree = written(
        tmp_path / "tree",
        {
            "a.yaml": "apiVersion: api.cerbos.dev/v1\nresourcePolicy: {resource: a, versoin: default}\n",
            "b.yaml": "a: [",
            "good.yaml": resource("good"),
            "same.yaml": resource("good"),
        },
    )
    found = with_password(server, "put", "policy", str(tree))
    assert found.exit_code == 1
    assert f"{tree}/a.yaml:2:31: unknown field" in found.stderr
    assert f"{tree}/b.yaml:" in found.stderr
    assert f"{tree}/same.yaml: `resource.good.vdefault` is in `{tree}/good.yaml` as well" in found.stderr
    assert with_password(server, "get", "rp", "resource.good.vdefault").exit_code == 1


def test_a_refusal_says_how_far_it_went(server: Served, tmp_path: Path) -> None:
    """When the server refuses a later call, what was put before is told."""
    many = {f"a{number:03}.yaml": resource(f"kind{number:03}") for number in range(AT_A_TIME)}
    bad = resource("zz", rules=[{"actions": ["a"], "effect": "EFFECT_ALLOW", "roles": ["u"],
                                 "condition": {"match": {"expr": "nothing"}}}])  # fmt: skip
    tree = written(tmp_path / "tree", {**many, "z.yaml": bad})
    found = with_password(server, "put", "policy", str(tree))
    assert found.exit_code == 1
    assert found.stderr.startswith("error: 100 of 101 policies were put, then: the policies cannot be put: ")


def test_nothing_to_put(server: Served, tmp_path: Path) -> None:
    """A directory without policies is a mistake, not a success."""
    found = with_password(server, "put", "policy", str(tmp_path))
    assert (found.exit_code, found.stderr) == (1, "error: there are no policies in what was named\n")


def test_delete_disable_enable(server: Served, tmp_path: Path) -> None:
    """Policies are taken out of force, put in again and deleted; what others need stays, and why is said."""
    tree = written(tmp_path / "tree", {"a.yaml": owned("one", ("needed",)), "b.yaml": roles("needed")})
    assert with_password(server, "put", "policy", str(tree)).exit_code == 0
    found = with_password(server, "delete", "p", "derived_roles.needed")
    assert found.exit_code == 1
    assert "`derived_roles.needed` is needed by `resource.one.vdefault`" in found.stderr
    for verb, count in (("disable", 1), ("enable", 1), ("delete", 1), ("delete", 0)):
        done = with_password(server, verb, "policy", "resource.one.vdefault")
        assert done.stdout == f"Number of policies {verb}d is {count}\n"


def test_inspect_and_store(server: Served, tmp_path: Path) -> None:
    """What policies refer to is shown; the store is reloaded, and its revisions are purged."""
    tree = written(tmp_path / "tree", {"a.yaml": owned("seen", ("seen",)), "b.yaml": roles("seen")})
    assert with_password(server, "put", "policy", str(tree)).exit_code == 0
    found = with_password(server, "inspect", "policies", "derived_roles.seen")
    assert found.stdout.splitlines()[:3] == [
        "POLICY ID    : derived_roles.seen",
        "DERIVED ROLES: owner",
        "ATTRIBUTES   : R.attr.owner",
    ]
    shown = json.loads(with_password(server, "inspect", "p", "resource.seen.vdefault", "-o", "json").stdout)
    assert shown["actions"] == ["view"]
    assert with_password(server, "store", "reload", "--wait").stdout == "Successfully reloaded the store\n"
    assert with_password(server, "store", "r").exit_code == 0
    assert with_password(server, "store", "revisions", "purge").stdout.startswith(
        "Number of rows affected is "
    )


# --- connecting -------------------------------------------------------------------------------------------


def test_credentials_from_the_environment(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of cerbosctl say where the server is and who asks; options say otherwise."""
    monkeypatch.setenv("CERBOS_SERVER", server.service.served.grpc)
    monkeypatch.setenv("CERBOS_USERNAME", USERNAME)
    monkeypatch.setenv("CERBOS_PASSWORD", PASSWORD)
    assert run("get", "ev", "--plaintext").exit_code == 0
    for line in (("get", "ev", "--password", "another"), ("--password", "another", "get", "ev")):
        refused = run("--plaintext", *line)
        assert (refused.exit_code, refused.stderr[:28]) == (1, "error: incorrect credentials")


def test_credentials_from_netrc(server: Served, home: Path) -> None:
    """Without anything else, `~/.netrc` has the credentials, by the name of the server."""
    file = home / ".netrc"
    file.write_text(f'machine localhost login {USERNAME} password "{PASSWORD}"\n', encoding="utf-8")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert run("--server", server.service.served.grpc, "--plaintext", "get", "ec").exit_code == 0
    assert netrc_credentials("elsewhere:3593") == ("", "")
    assert netrc_credentials("unix:/run/x.sock") == ("", "")
    file.write_text("machine", encoding="utf-8")
    with pytest.raises(CtlError, match=r"cannot read .*\.netrc"):
        netrc_credentials("localhost:3593")


def test_no_credentials(server: Served) -> None:
    """Nothing is asked in nobody's name."""
    found = run("--server", server.service.served.grpc, "--plaintext", "get", "rp")
    assert found.exit_code == 2
    assert "no credentials: give `--username` and `--password`" in found.stderr


def test_who_is_there_needs_no_credentials(server: Served) -> None:
    """The version of the server is told to anyone."""
    found = run("version", "--server", server.service.served.grpc, "--plaintext")
    assert found.exit_code == 0
    assert "Server version 0.55.0+extauthz." in found.stdout


def test_nobody_there() -> None:
    """A server that cannot be reached is said to be so, with what to look at."""
    found = run("--server", "127.0.0.1:1", "--plaintext", "--username", "a", "--password", "b", "get", "s")
    assert found.exit_code == 1
    assert "is it running, is the address right, does it talk TLS (`--plaintext`)?" in found.stderr


def test_a_server_without_an_admin_api(tmp_path: Path) -> None:
    """What is not enabled is said to be so."""
    text = json.dumps({"storage": {"driver": "disk", "disk": {"directory": str(tmp_path)}}})
    with running(text) as service:
        asked = ("--server", service.served.grpc, "--plaintext", "--username", "a", "--password", "b")
        found = run(*asked, "get", "rp")
    told = "error: the server has no admin API: it has to be enabled in its configuration\n"
    assert (found.exit_code, found.stderr) == (1, told)


def test_tls(tmp_path: Path) -> None:
    """TLS is spoken unless told otherwise: by a CA, with a certificate of ours, or without verifying."""
    pki = tmp_path / "pki"
    issue(pki, "localhost", "admin")
    admin = {"enabled": True, "adminCredentials": {"username": USERNAME, "passwordHash": password_hash()}}
    block = {"httpListenAddr": "127.0.0.1:0", "grpcListenAddr": "127.0.0.1:0", "adminAPI": admin}
    text = json.dumps({"server": block, "storage": sqlite(tmp_path)}).replace("$", "$$")
    who = ("--username", USERNAME, "--password", PASSWORD, "get", "s")
    own = Certificates(str(pki / "localhost.crt"), str(pki / "localhost.key"), None)
    with running(text, certificates=own) as service:
        server = ("--server", service.served.grpc)
        assert run(*server, "--ca-cert", str(pki / "ca.crt"), *who).exit_code == 0
        assert run(*server, "--insecure", *who).exit_code == 0
        assert run(*server, *who).exit_code == 1
        assert run(*server, "--plaintext", *who).exit_code == 1
        assert run(*server, "--plaintext", "--insecure", *who).exit_code == 2
        assert run(*server, "--client-cert", str(pki / "admin.crt"), *who).exit_code == 2
    mutual = Certificates(str(pki / "localhost.crt"), str(pki / "localhost.key"), str(pki / "ca.crt"))
    with running(text, certificates=mutual) as service:
        verified = ("--server", service.served.grpc, "--ca-cert", str(pki / "ca.crt"))
        ours = ("--client-cert", str(pki / "admin.crt"), "--client-key", str(pki / "admin.key"))
        assert run(*verified, *ours, *who).exit_code == 0
        assert run(*verified, *who).exit_code == 1


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_hostile_archives_are_refused(tmp_path: Path, name: str) -> None:
    """An archive is read as one that is a store: when it leads out of itself or is broken, it is refused."""
    files = {"ok.json": json.dumps(roles()).encode(), "../up.json": json.dumps(resource()).encode()}
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as zipped:
            for path, content in files.items():
                zipped.writestr(path, content)
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                tarred.addfile(member, io.BytesIO(content))
    with pytest.raises(CtlError, match="is refused"):
        read_policies([archive], recursive=False)
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(CtlError):
        read_policies([archive], recursive=False)


def test_what_others_need_is_sent_first(tmp_path: Path) -> None:
    """Exports come first, then derived roles, then policies from the root of scopes downwards."""
    constants = {"apiVersion": "api.cerbos.dev/v1", "exportConstants": {"name": "c", "definitions": {"a": 1}}}
    tree = written(
        tmp_path,
        {
            "1.yaml": resource(scope="a.b"),
            "2.yaml": resource(scope="a"),
            "3.yaml": resource(),
            "4.yaml": roles(),
            "5.yaml": constants,
        },
    )
    assert [row(each).id for each in read_policies([tree], recursive=False)] == [
        "export_constants.c",
        "derived_roles.roles",
        "resource.album.vdefault",
        "resource.album.vdefault/a",
        "resource.album.vdefault/a.b",
    ]


def test_calls_keep_to_the_limits_of_a_server() -> None:
    """No call has more policies or bytes than a server takes, and none is lost."""
    small, large = Policy(b"x"), Policy(b"x" * (BYTES_AT_A_TIME // 2 + 1))
    assert [len(each) for each in in_calls([small] * (2 * AT_A_TIME + 1))] == [AT_A_TIME, AT_A_TIME, 1]
    assert [len(each) for each in in_calls([small, large, large, small])] == [2, 2]
    assert list(in_calls([])) == []


def test_a_hostile_server_writes_nowhere_else(tmp_path: Path) -> None:
    """A path that leads out of where an export is to go is refused before anything is written."""
    for path in ("../x.yaml", "/etc/x.yaml", "a/../../x.yaml", "a\\..\\x.yaml"):
        with pytest.raises(CtlError, match="not a path inside of a directory"):
            write_tree(tmp_path / "out", {"ok.yaml": b"", path: b""})
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_policy(tmp_path: Path) -> None:
    """A file that is named by hand is read whatever it is called; one with nothing in it is passed over."""
    tree = written(tmp_path, {"notes.txt": "hello", "empty.yaml": "# later"})
    assert read_policies([tree], recursive=False) == []
    with pytest.raises(BrokenFilesError):
        read_policies([tree / "notes.txt"], recursive=False)


# --- password-hash ----------------------------------------------------------------------------------------


def test_password_hash() -> None:
    """What the configuration wants is made of a password from standard input."""
    found = run("password-hash", "--cost", "10", input="correct horse\n")
    assert bcrypt.checkpw(b"correct horse", read_hash(found.stdout))
    empty = run("password-hash", input="\n")
    assert (empty.exit_code, empty.stderr) == (1, "error: a password must not be empty or hold NUL\n")
