"""Policies in a git repository, served by real servers."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import shutil
import socket
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob

from engine import Engine
from engine.storage import Store, StoreError, open_store
from engine.storage.git.remote import Remote
from engine.storage.git.store import default_checkout
from tests.engine.storage.contract import (
    FilesContract,
    LookingContract,
    RetryingContract,
    StoreContract,
    WatchedContract,
    actions,
    allows,
    closed,
    eventually,
    policy,
    reading,
)
from tests.engine.storage.git_servers import (
    Files,
    GitServer,
    HttpServer,
    Repository,
    SshServer,
    served_over_https,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dulwich.objects import ObjectID

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
    with served_over_https(repository, tmp_path / "certificates", monkeypatch) as server:
        yield server


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer(tmp_path / "ssh")
    server.start()
    yield server
    server.stop()


class GitContract(FilesContract, WatchedContract, LookingContract, RetryingContract):
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


class TestSsh(StoreContract, WatchedContract, LookingContract, RetryingContract):
    """And over ssh, with a key. Which files count was told above; connections take their time."""

    has_revision = True
    unreachable = r"of `ssh://127\.0\.0\.1:\d+/.*policies\.git`: cannot connect to `127\.0\.0\.1` port \d+: "

    @pytest.fixture
    def server(self, ssh: SshServer) -> GitServer:
        return ssh


# --- the branch moves -------------------------------------------------------------------------------------


def test_a_rewritten_branch_is_followed(repository: Repository, changer: Branch, store: Store) -> None:
    """A force-push, also to something that has nothing to do with what was there."""
    changer.put("a.yaml", policy("a"))
    changer.put("b.yaml", policy("b"))
    before = store.read()
    first = repository.commit({"a.yaml": policy("a", "edit")}, onto="nothing")
    after = store.read()
    assert (after.revision, actions(after.files)) == (first, {"a": "edit"})
    repository.git("update-ref", "refs/heads/main", before.revision)
    assert store.read().revision == before.revision


def test_only_what_has_changed_is_read(
    repository: Repository, changer: Branch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that another commit has too are not read again, even under another path."""
    contents = {f"{number}.yaml": policy(f"kind{number}") for number in range(50)}
    changer.together(contents)
    before = store.read()
    read: list[bytes] = []
    get_raw = DiskObjectStore.get_raw

    def counted(objects: DiskObjectStore, name: ObjectID) -> tuple[int, bytes]:
        kind, content = get_raw(objects, name)
        if kind == Blob.type_num and "checkouts" in str(objects.path):  # and not where it is fetched from
            read.append(content)
        return kind, content

    monkeypatch.setattr(DiskObjectStore, "get_raw", counted)
    repository.commit({"7.yaml": policy("kind7", "edit"), "8.yaml": None, "moved.yaml": contents["8.yaml"]})
    after = store.read()
    assert after.files["moved.yaml"] is before.files["8.yaml"]
    assert read == [policy("kind7", "edit")]


@pytest.mark.parametrize("protocol", ["https", "old https", "ssh"])
def test_only_what_has_changed_is_fetched(
    protocol: str, https: HttpServer, ssh: SshServer, changer: Branch, tmp_path: Path
) -> None:
    """A server sends what another commit has more, and not everything again; nor any history."""
    servers: dict[str, GitServer] = {"https": https, "ssh": ssh}
    changer.server, checkout = servers[protocol.removeprefix("old ")], tmp_path / "checkout"
    https.is_old = protocol == "old https"
    changer.put("old.yaml", policy("old"))
    changer.together({f"{number}.yaml": policy(f"kind{number}") for number in range(50)} | {"old.yaml": b"x"})
    with closed(changer.open(checkoutDir=str(checkout))) as store:
        store.read()
        assert packed(checkout) == [54]  # a commit, its tree, 52 files
        changer.put("7.yaml", policy("kind7", "edit"))
        store.read()
    more, all_of_before = packed(checkout)
    assert (more <= 6, all_of_before) == (True, 54)  # with what the differences are to


def packed(checkout: Path) -> list[int]:
    """Count the objects in each pack, in order."""
    packs = (checkout / "clone" / "objects" / "pack").glob("*.pack")
    return sorted(int.from_bytes(file.read_bytes()[8:12], "big") for file in packs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: found.git("update-ref", "-d", "refs/heads/main"), "there is no branch `main`"),
        (
            lambda found: found.commit({"policies/doc.yaml": None, "moved/doc.yaml": policy()}),
            r"there is no directory `policies` \(`subDir`\) in commit [0-9a-f]{40}",
        ),
    ],
    ids=["branch", "directory"],
)
def test_what_is_gone_leaves_the_last_good_set(
    repository: Repository, changer: Branch, change: Callable[[Repository], object], reason: str
) -> None:
    """A branch or a directory that is gone is told, and followed again when it is back."""
    commit = repository.commit({"policies/doc.yaml": policy(), "other.yaml": b"no policy"})
    with closed(changer.open(subDir="policies/")) as store, Engine.from_store(store) as engine:
        change(repository)
        told = engine.reload()
        assert re.search(reason, str(told.faults[0]))
        assert allows(engine)
        repository.git("update-ref", "refs/heads/main", commit)
        assert engine.reload().ok


def test_a_branch_with_a_slash_and_another_default(repository: Repository, changer: Branch) -> None:
    """Any branch is followed, and no other one; without one it is `master`, as in Cerbos."""
    repository.commit({"doc.yaml": policy("doc", "stage")}, branch="team/staging")
    repository.commit({"doc.yaml": policy("doc", "main")})
    with closed(changer.open(branch="team/staging")) as store:
        assert actions(store.read().files) == {"doc": "stage"}
    with (
        pytest.raises(StoreError, match="there is no branch `master`"),
        closed(changer.open(branch="")) as one,
    ):
        one.read()


# --- what a commit may hold -------------------------------------------------------------------------------


def test_links_stay_inside(repository: Repository, changer: Branch) -> None:
    """A link to a file of the repository is followed; one that leads out of it, or nowhere, is a fault."""
    repository.commit({"policies/a.yaml": policy("a"), "shared/b.yaml": policy("b"), "policies/deep/x": b"x"})
    links = {
        "policies/b.yaml": b"../shared/b.yaml",
        "policies/deep/c.yaml": b"../../policies/b.yaml",
        "policies/dir.yaml": b"deep",
    }
    repository.commit(links, mode="120000")
    with closed(changer.open(subDir="policies")) as store:
        found = store.read()
        assert found.faults == ()
        assert dict(found.files) == {
            "a.yaml": policy("a"),
            "b.yaml": policy("b"),
            "deep/c.yaml": policy("b"),
        }
        out = (b"/etc/passwd", b"../../../../etc/passwd", b"nowhere.yaml", b"self.yaml")
        for target in out:
            repository.commit({"policies/self.yaml": target}, mode="120000")
            (fault,) = store.read().faults
            assert str(fault) == "self.yaml: the link leads to nothing inside of the repository"


def test_submodules_are_left_out(repository: Repository, changer: Branch, store: Store) -> None:
    """A submodule is a name for a commit elsewhere."""
    changer.put("doc.yaml", policy())
    commit = repository.git("rev-parse", "main")
    blob = repository.git("rev-parse", "main:doc.yaml")
    entries = f"100644 blob {blob}\tdoc.yaml\n160000 commit {commit}\tsub.yaml\n"
    tree = repository.git("mktree", given=entries.encode())
    made = repository.git("commit-tree", tree, "-m", "Submodule")
    repository.git("update-ref", "refs/heads/main", made)
    assert list(store.read().files) == ["doc.yaml"]


def test_trees_that_are_none(repository: Repository, changer: Branch, store: Store) -> None:
    """Git's own tools make no tree that has a name twice; a server may send one all the same."""
    blob = bytes.fromhex(repository.git("hash-object", "-w", "--stdin", given=policy()))
    for names in ((b"a.yaml", b"a.yaml"), (b"deep/a.yaml",), (b"..",)):
        raw = b"".join(b"100644 " + name + b"\0" + blob for name in names)
        tree = repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=raw)
        made = repository.git("commit-tree", tree, "-m", "Hostile")
        repository.git("update-ref", "refs/heads/main", made)
        with pytest.raises(StoreError, match="names that are no names of files"):
            store.read()


# --- the checkout -----------------------------------------------------------------------------------------


def test_a_foreign_directory_is_left_alone(tmp_path: Path, changer: Branch) -> None:
    """What is not ours is refused, and nothing in it is touched; an empty directory is fine."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with closed(changer.open(checkoutDir=str(foreign))) as store:
        assert dict(store.read().files) == {}
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    with (
        closed(changer.open(checkoutDir=str(precious))) as store,
        pytest.raises(StoreError, match=r"`.*precious` \(`checkoutDir`\) holds something that is not ours"),
    ):
        store.read()
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


def rewritten(pattern: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what changes the bytes of the files of that pattern."""

    def rewrite(checkout: Path) -> None:
        for file in (checkout / PACKS).glob(pattern):
            file.chmod(0o644)
            file.write_bytes(change(file.read_bytes()))

    return rewrite


def removed(*patterns: str) -> Callable[[Path], None]:
    """Return what removes files and folders of these patterns."""

    def remove(checkout: Path) -> None:
        for path in [path for pattern in patterns for path in checkout.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return remove


def leave_over(checkout: Path) -> None:
    """Leave what a process leaves that is killed."""
    (checkout / PACKS / "tmp1.pack").write_bytes(b"PACK")
    (checkout / PACKS / "pack-1.idx.lock").touch()
    (checkout / "aside-1" / "clone").mkdir(parents=True)
    (checkout / "clone" / "commit.new").touch()


PACKS = "clone/objects/pack"
DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "a cut pack": rewritten("*.pack", lambda data: data[: len(data) // 2]),
    "a damaged pack": rewritten("*.pack", lambda data: data[:20] + b"\xff" * 40 + data[60:]),
    "an empty pack": rewritten("*.pack", lambda _: b""),
    "a cut index": rewritten("*.idx", lambda data: data[: len(data) // 2]),
    "an empty index": rewritten("*.idx", lambda _: b""),
    "packs without an index": removed(f"{PACKS}/*.idx"),
    "no packs": removed(PACKS),
    "no objects": removed("clone/objects"),
    "nothing": removed("clone"),
    "no commit": removed("clone/commit"),
    "half a commit": lambda checkout: (checkout / "clone" / "commit").write_bytes(b"0123"),
    "a commit that is none": lambda checkout: (checkout / "clone" / "commit").write_bytes(b"f" * 40),
    "leftovers": leave_over,
}
"""Ways in which a clone may be found."""


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_clone_is_fetched_anew(
    changer: Branch, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """However a clone of ours is found, the next start reads the right files, and so does the one after."""
    checkout = tmp_path / "checkout"
    contents = {f"{number}.yaml": policy(f"kind{number}", "x" * 60) for number in range(20)}
    changer.together(contents)
    with closed(changer.open(checkoutDir=str(checkout))) as store:
        store.read()
    damage(checkout)
    for _ in range(2):
        with closed(changer.open(checkoutDir=str(checkout))) as store:
            assert dict(store.read().files) == dict(sorted(contents.items()))
    assert sorted(path.name for path in checkout.iterdir()) == ["clone", "extauthz.lock"]


def test_packs_do_not_pile_up(changer: Branch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many updates everything is fetched anew, so that looking for an object stays quick."""
    monkeypatch.setattr("engine.storage.git.clone.MAX_PACKS", 5)
    checkout = tmp_path / "checkout"
    with closed(changer.open(checkoutDir=str(checkout))) as store:
        for number in range(12):
            changer.put("doc.yaml", policy("doc", f"state{number}"))
            assert actions(store.read().files) == {"doc": f"state{number}"}
            assert len(list((checkout / "clone" / "objects" / "pack").glob("*.pack"))) <= 5


def test_stores_share_a_directory(changer: Branch, tmp_path: Path) -> None:
    """Workers use one `checkoutDir` at the same time: each reads whole states, in the end the last one."""
    kinds = [f"kind{number}" for number in range(8)]
    with contextlib.ExitStack() as opened:
        checkout = str(tmp_path / "checkout")
        stores = [opened.enter_context(closed(changer.open(checkoutDir=checkout))) for _ in range(3)]
        changer.together({f"{kind}.yaml": policy(kind, "state0") for kind in kinds})
        found = [opened.enter_context(reading(store, threads=1)) for store in stores]
        for number in range(1, 15):
            changer.together({f"{kind}.yaml": policy(kind, f"state{number}") for kind in kinds})
        for states in found:
            eventually(lambda states=states: states and set(states[-1].values()) == {"state14"})  # type: ignore[misc]  # bound to this round
    assert all(len(state) == 8 and len(set(state.values())) == 1 for states in found for state in states)


# --- servers that are not to be trusted -------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores try only once at the start."""
    monkeypatch.setattr("engine.storage.git.store.ATTEMPTS", 1)


@pytest.fixture
def silent() -> Iterator[int]:
    """Listen on a port, accept, and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def dripping() -> Iterator[int]:
    """Listen on a port, and send an answer that takes years, a byte at a time: no silence is ever long."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n"
            )
            connection.sendall(b"fff0")
            while not ended.wait(0.05):
                connection.sendall(b"x")

    def listen(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("protocol", ["http", "https", "ssh"])
def test_a_server_that_never_answers(protocol: str, silent: int, changer: Branch, ssh: SshServer) -> None:
    """`operationTimeout` ends what would hang for ever."""
    key = {"privateKeyFile": str(ssh.directory / "user"), "knownHostsFile": str(ssh.known_hosts)}
    url = f"{protocol}://127.0.0.1:{silent}/policies.git"
    assert_ends_in_time(changer, protocol=protocol, url=url, ssh=key, https=None)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_answers_too_slowly(dripping: int, changer: Branch) -> None:
    """And also what is never quite silent."""
    assert_ends_in_time(changer, protocol="http", url=f"http://127.0.0.1:{dripping}/policies.git")


@pytest.mark.usefixtures("impatient")
def test_a_name_that_is_never_found(changer: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a resolver that does not answer hold anybody up."""
    ended = threading.Event()

    def never(*_: object, **__: object) -> list[object]:
        ended.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    try:
        assert_ends_in_time(changer, protocol="http", url="http://git.example.com/policies.git")
    finally:
        ended.set()


def assert_ends_in_time(changer: Branch, **settings: object) -> None:
    store = changer.open(operationTimeout=0.5, **settings)
    with closed(store), pytest.raises(StoreError, match=r"no end within 0.5 s \(`operationTimeout`\)"):
        store.read()


def test_closing_ends_a_hanging_fetch(silent: int, changer: Branch) -> None:
    """Whoever closes the store does not wait for the server."""
    store = changer.open(protocol="http", url=f"http://127.0.0.1:{silent}/x.git", operationTimeout=600.0)
    told: list[StoreError] = []

    def read() -> None:
        try:
            store.read()
        except StoreError as error:
            told.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    time.sleep(0.2)
    store.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "the store is closed" in str(told[0])


def test_redirects(https: HttpServer, changer: Branch, repository: Repository, tmp_path: Path) -> None:
    """One that stays on the server is followed; one to another server or protocol is refused, and told."""
    changer.put("doc.yaml", policy())
    other = HttpServer(https.root, tmp_path / "other", tls=False)
    other.start()
    https.redirects = {
        "/old": "/policies.git",
        "/host": f"https://127.0.0.1:{https.port}/policies.git",
        "/port": f"{other.url}/policies.git",
        "/file": f"file://{repository.path}",
        "/loop": "/loop",
    }
    block = https.settings(repository.path)
    with closed(changer.open(**block | {"url": f"{https.url}/old"})) as store:
        assert actions(store.read().files) == {"doc": "read"}
    for path, reason in {
        "host": r"redirects to `https://127\.0\.0\.1/policies\.git/info/refs`, which is refused",
        "port": r"redirects to `http://localhost/policies\.git/info/refs`, which is refused",
        "file": "which is refused",
        "loop": "redirects without end",
    }.items():
        url = f"{https.url}/{path}"
        with closed(changer.open(**block | {"url": url})) as one, pytest.raises(StoreError, match=reason):
            one.read()
    other.stop()
    assert other.requests == []


def test_secrets_are_not_told(
    https: HttpServer, changer: Branch, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither errors nor logs show what stands in `url` or in `https`, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    url = https.settings(repository.path)["url"]
    secret = "hunter2"
    tried: list[dict[str, Any]] = [
        {"url": url, "https": {"username": "ann", "password": secret}},
        {"url": url.replace("https://", f"https://ann:{secret}@"), "https": None},
        {
            "url": url.replace("https://", f"https://ann:{secret}@").replace("policies", "nothing"),
            "https": None,
        },
        {"url": f"https://ann:{secret}@localhost:1/x.git", "https": None},
        {"url": f"https://ann:{secret}@localhost:nonsense/x.git", "https": None},
        {"url": f"ssh://ann:{secret}@localhost/x.git", "protocol": "ssh"},
        {"url": f"http://ann:{secret}@localhost/x.git", "protocol": "http"},
        {"url": f"http://ann:{secret}@localhost/x.git"},
    ]
    for each in tried:
        with (
            pytest.raises(StoreError) as told,
            closed(changer.open(**{"protocol": "https", **each})) as store,
        ):
            store.read()
        assert secret not in str(told.value)
        assert secret not in repr(store) + repr(getattr(store, "remote", ""))
    assert secret not in caplog.text
    assert "cannot connect to `localhost` port 1" in caplog.text


def test_the_user_may_stand_in_the_url(https: HttpServer, changer: Branch, repository: Repository) -> None:
    """`https://user:password@host`, as git itself takes it."""
    user, password = quote(https.user, safe=""), quote(https.password, safe="")
    url = https.settings(repository.path)["url"].replace("https://", f"https://{user}:{password}@")
    with closed(changer.open(protocol="https", url=url, https=None)) as store:
        assert store.read().revision


def test_certificates_are_checked(
    https: HttpServer, changer: Branch, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose certificate nobody vouches for is refused."""
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        closed(changer.open(**https.settings(repository.path))) as store,
        pytest.raises(StoreError, match="the certificate of `localhost` is not trusted"),
    ):
        store.read()


def test_a_web_page_is_no_repository(changer: Branch, repository: Repository, tmp_path: Path) -> None:
    """A server that speaks HTTP and not git is told from one that does."""
    site = tmp_path / "site"
    (site / "policies.git" / "info").mkdir(parents=True)
    (site / "policies.git" / "info" / "refs").write_text("<html>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        for path, reason in {
            "policies": "a web page and no git repository",
            "x": "there is no repository",
        }.items():
            url = f"http://127.0.0.1:{server.server_address[1]}/{path}.git"
            with (
                closed(changer.open(protocol="http", url=url)) as store,
                pytest.raises(StoreError, match=reason),
            ):
                store.read()
        server.shutdown()
        thread.join()


# --- ssh --------------------------------------------------------------------------------------------------


def test_host_keys_are_checked(
    ssh: SshServer, changer: Branch, repository: Repository, tmp_path: Path
) -> None:
    """A host that is not known is refused, and all the more one with another key than it should have."""
    block = ssh.settings(repository.path)
    other = SshServer(tmp_path / "other")
    unknown, wrong = tmp_path / "unknown", tmp_path / "wrong"
    unknown.write_text("")
    wrong.write_text(other.known_hosts.read_text().replace(str(other.port), str(ssh.port)))
    for file, reason in {
        unknown: r"the host key of `127\.0\.0\.1` is not known: check it and add it to `.*unknown`",
        wrong: r"the host key of `127\.0\.0\.1` is another one than the known hosts say: refused",
        tmp_path / "missing": r"there is no file `.*missing` \(`ssh.knownHostsFile`\)",
    }.items():
        with (
            closed(changer.open(**block | {"ssh": block["ssh"] | {"knownHostsFile": str(file)}})) as store,
            pytest.raises(StoreError, match=reason),
        ):
            store.read()


def test_keys(changer: Branch, repository: Repository, ssh: SshServer, tmp_path: Path) -> None:
    """A key with a password is opened with it; what is wrong with a key is told."""
    locked = SshServer(tmp_path / "locked", key_password="correct horse")
    locked.start()
    try:
        block = locked.settings(repository.path)
        with closed(changer.open(**block)) as store:
            assert store.read().revision
        for change, reason in (
            ({"password": "battery staple"}, r"cannot be used: is `ssh.password` right\?"),
            ({"password": ""}, r"cannot be used: does it need `ssh.password`\?"),
            ({"privateKeyFile": str(tmp_path / "none")}, r"cannot read `.*none` \(`ssh.privateKeyFile`\)"),
            (
                {"privateKeyFile": str(ssh.directory / "user"), "password": ""},
                "does not accept the key for user",
            ),
        ):
            with (
                closed(changer.open(**block | {"ssh": block["ssh"] | change})) as one,
                pytest.raises(StoreError, match=reason) as told,
            ):
                one.read()
            assert "staple" not in str(told.value)
    finally:
        locked.stop()


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"protocol": "git", "url": "x"}, "unknown `protocol` `git`"),
        ({"protocol": "htps", "url": "x"}, "did you mean `https`"),
        ({"protocol": "https"}, "needs a `url`"),
        ({"protocol": "https", "url": "ssh://host/x"}, "has to begin with `https://host`"),
        ({"protocol": "https", "url": "https://host/x?y"}, "no `\\?`"),
        ({"protocol": "file", "url": "https://host/x"}, "has to be `file:///path`"),
        ({"protocol": "ssh", "url": "nonsense", "ssh": {"privateKeyFile": "k"}}, "`ssh://host/path` or"),
        ({"protocol": "ssh", "url": "host:x"}, "needs `ssh.privateKeyFile`"),
        ({"protocol": "ssh", "url": "host:x", "ssh": {"key": "k"}}, "unknown setting `key` of `ssh`"),
        ({"protocol": "file", "url": "/x", "scratchDir": "/y"}, "unknown setting `scratchDir`"),
        ({"protocol": "file", "url": "/x", "subDir": "../y"}, "has to be a path inside the repository"),
        ({"protocol": "file", "url": "/x", "subDir": "/y"}, "has to be a path inside the repository"),
        ({"protocol": "file", "url": "/x", "operationTimeout": 0}, "more than 0"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], reason: str) -> None:
    """What cannot work is refused before anything is fetched."""
    with pytest.raises(StoreError, match=reason):
        open_store("git", settings)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git@example.com:team/policies.git", ("git", "example.com", 22, "team/policies.git")),
        ("example.com:/srv/policies.git", ("bob", "example.com", 22, "/srv/policies.git")),
        ("ssh://ann@example.com:2222/srv/x.git", ("ann", "example.com", 2222, "/srv/x.git")),
        ("ssh://[::1]/x.git", ("bob", "::1", 22, "/x.git")),
    ],
)
def test_addresses_over_ssh(url: str, expected: tuple[str, str, int, str]) -> None:
    """Addresses are those that git takes; a user in them counts more than the setting."""
    found = Remote.from_settings(
        {"protocol": "ssh", "url": url, "ssh": {"user": "bob", "privateKeyFile": "key"}}
    )
    assert (found.user, found.host, found.port, found.path) == expected


def test_each_repository_has_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `checkoutDir` fetched objects are in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    one, other = (Remote("https", path, "example.com", 443) for path in ("/a.git", "/b.git"))
    assert default_checkout(one).parent == Path("/cache/extauthz/git")
    assert default_checkout(one) != default_checkout(other)
