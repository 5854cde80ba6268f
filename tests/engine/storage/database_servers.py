"""Real database servers, started by the tests on loopback, with TLS, as a user who is not root.

They come from Debian: ``postgresql`` and ``mariadb-server``. Where one is missing its tests are skipped,
except in CI (``CI=true``), where that is a failure.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pymysql
import pytest
from psycopg import sql

from tests.e2e.certificates import issue
from tests.engine.storage.git_servers import needed
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 60.0
STOP_SECONDS = 30.0
PASSWORD = "s3cr3t/p@ss:w"


ACCESS_DENIED = 1045
"""The number of MySQL's error."""

_STARTER = ThreadPoolExecutor(1, "database-servers")
"""The thread that starts servers: the kernel ends them together with it, which is when the tests end."""


def ddl(name: str) -> str:
    """Return the SQL that we ship."""
    return importlib.resources.files("engine.storage.sql.ddl").joinpath(f"{name}.sql").read_text()


def _stands_still(process: int) -> bool:
    """Tell whether every thread of a process is stopped: the signal reaches them one by one."""
    states = (
        file.read_text().rpartition(")")[2].split()[0]
        for file in Path(f"/proc/{process}/task").glob("*/stat")
    )
    return all(state == "T" for state in states)


class Server:
    """A server in a directory of its own."""

    name: ClassVar[str]
    user: ClassVar[str]
    death_signal: ClassVar[str]
    """What the kernel sends it when the tests end without stopping it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        issue(self.folder / "tls", "localhost")
        self.authority = self.folder / "tls" / "ca.crt"
        self.certificate, self.key = (self.folder / "tls" / f"localhost.{end}" for end in ("crt", "key"))
        self.key.chmod(0o600)
        self._own(self.folder)

    # -- life ----------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Make the data directory."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return what runs the server."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Tell whether the server takes connections."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = _STARTER.submit(self._spawn).result()
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - a server of the system
                [*self._as_user(death=self.death_signal), *self.command()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, and wait until it has ended."""
        process = self._process
        if process is None:
            return
        self.resume()
        processes = list(self._processes())
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        end = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{each}").exists() for each in processes):  # those of a killed one end later
            assert time.monotonic() < end, "the server's processes do not end"
            time.sleep(0.02)

    def pause(self) -> None:
        """Let it take connections and answer nothing."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)
            while not _stands_still(process):
                time.sleep(0.01)
        self._paused = True

    def resume(self) -> None:
        """Let it answer again."""
        if self._paused:
            for process in self._processes():
                os.kill(process, signal.SIGCONT)
            self._paused = False

    def remove(self) -> None:
        """Kill it, for nobody needs what it would write, and take everything away."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return the end of what it wrote."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def _processes(self) -> Iterator[int]:
        """Yield the server's processes."""
        if self._process is not None:
            yield self._process.pid
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            yield from map(int, children.read_text().split())

    def _as_user(self, *, death: str = "") -> list[str]:
        """Return what runs a command as the server's user, and ends it when we end."""
        signals = [f"--pdeathsig={death}"] if death else []
        if os.geteuid() != 0:
            return ["setpriv", *signals] if signals and shutil.which("setpriv") else []
        entry = pwd.getpwnam(self.user)
        who = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        return ["setpriv", *who, *signals]

    def _own(self, path: Path) -> None:
        if os.geteuid() != 0:
            return
        entry = pwd.getpwnam(self.user)
        for each in (path, *path.rglob("*")):
            os.chown(each, entry.pw_uid, entry.pw_gid)

    def run(self, command: Sequence[str]) -> None:
        """Run a command as the server's user."""
        done = subprocess.run(  # noqa: S603 - a program of the system
            [*self._as_user(), *command],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Postgres(Server):
    """A PostgreSQL server; each test has a database of its own in it."""

    name = "postgres"
    user = "postgres"
    death_signal = "QUIT"

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._programs = programs
        self._databases = 0

    def install(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._own(password)
        options = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-N", "-E", "UTF8"]
        self.run([str(self._programs / "initdb"), "-D", str(self.folder / "data"), *options])

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(self.certificate),
            "ssl_key_file": str(self.key),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [
            str(self._programs / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            *options,
        ]

    def answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it without waiting for its clients."""
        super().stop(number)

    def connect(self, database: str, **more: Any) -> psycopg.Connection[Any]:
        """Connect as the superuser."""
        arguments = {"user": "postgres", "password": PASSWORD, "host": "127.0.0.1", "port": self.port, **more}
        return psycopg.connect(dbname=database, autocommit=True, connect_timeout=5, **arguments)

    def database(self, *scripts: str) -> str:
        """Make a database; return its name. *scripts* are names of ours, run in it."""
        self._databases += 1
        name = f"policies{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with self.connect(name) as connection:
            for script in scripts:
                connection.execute(ddl(script).encode())
        return name

    def url(self, database: str, parameters: str = "search_path=cerbos", user: str = "postgres") -> str:
        """Return the URL of a database."""
        password = "s3cr3t%2Fp%40ss%3Aw"
        return f"postgres://{user}:{password}@127.0.0.1:{self.port}/{database}?{parameters}"


class Mysql(Server):
    """A MariaDB server; each test has a database of its own in it."""

    name = "mariadb"
    user = "mysql"
    death_signal = "KILL"

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server
        self._databases = 0

    def install(self) -> None:
        data = f"--datadir={self.folder / 'data'}"
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        self.run(["mariadb-install-db", "--no-defaults", data, *options])

    def command(self) -> list[str]:
        return [
            self._server,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--ssl-cert={self.certificate}",
            f"--ssl-key={self.key}",
            "--innodb-flush-log-at-trx-commit=2",
        ]

    def start(self) -> None:
        """Start it; the first time, give the users passwords."""
        first = not (self.folder / "users").exists()
        super().start()
        if first:
            with self.connect(
                unix_socket=str(self.folder / "socket"), user="root", password=""
            ) as connection:
                cursor = connection.cursor()
                cursor.execute("CREATE USER tester@'%%' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT ALL ON *.* TO tester@'%' WITH GRANT OPTION")
            (self.folder / "users").touch()

    def answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.OperationalError as error:
            return bool(error.args[0] == ACCESS_DENIED)  # there are no users yet
        return True

    def connect(self, database: str | None = None, **more: Any) -> pymysql.Connection[Any]:
        """Connect as one who may do everything."""
        arguments = {"user": "tester", "password": PASSWORD, "host": "127.0.0.1", "port": self.port, **more}
        return pymysql.connect(database=database, autocommit=True, connect_timeout=5, **arguments)

    def database(self) -> str:
        """Make a database with Cerbos's tables; return its name."""
        self._databases += 1
        name = f"policies{self._databases}"
        script = (
            ddl("mysql")
            .replace("IF NOT EXISTS cerbos", f"IF NOT EXISTS {name}")
            .replace("USE cerbos", f"USE {name}")
        )
        lines = [line for line in script.splitlines() if not line.startswith("--")]
        with self.connect() as connection:
            for statement in "\n".join(lines).split(";\n"):
                if statement.strip():
                    connection.cursor().execute(statement)
        return name

    def dsn(self, database: str, parameters: str = "", user: str = "tester") -> str:
        """Return the DSN of a database."""
        return f"{user}:{PASSWORD}@tcp(127.0.0.1:{self.port})/{database}?interpolateParams=true{parameters}"


@contextlib.contextmanager
def running(server: Server) -> Iterator[Any]:
    """Run a server until the end."""
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.remove()


def postgres_programs() -> Path | None:
    """Return the directory of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def mysql_program() -> str | None:
    """Return the path of MariaDB's server."""
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    programs = postgres_programs()
    needed(None if programs is None else str(programs), "PostgreSQL (Debian's `postgresql`)")
    assert programs is not None
    with running(Postgres(programs)) as server:
        yield server


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Mysql]:
    program = mysql_program()
    needed(program, "MariaDB (Debian's `mariadb-server`)")
    assert program is not None
    with running(Mysql(program)) as server:
        yield server
