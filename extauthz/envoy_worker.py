"""A worker whose gRPC port is an Envoy's: the process that starts that Envoy and stays beside it.

It serves nothing. It passes on what Envoy logs, in our form, tells the Python inside Envoy
(:mod:`extauthz.hosted`) to leave, renews its certificate, and ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from extauthz.board import Board, State
from extauthz.hosted import LEAVE, PLACE, RELOAD, RELOADED, Place
from extauthz.transport import envoy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from extauthz.certificates import Certificates
    from extauthz.transport.calls import Options

logger = logging.getLogger(__name__)

GRACE: Final = 5.0
"""Seconds beyond the drain timeout after which an Envoy that does not end is killed; less than the
supervisor's patience with this process."""
LOOK: Final = 1.0
"""Seconds between two looks at the certificate files."""
KILLED: Final = 1
"""Exit code when Envoy did not end by itself."""
MAX_LINE: Final = 64 * 1024
"""Bytes that are kept of a line that does not end."""
SCRATCH: Final = Path("/dev/shm")  # noqa: S108  # in memory; a directory of our own is made in it

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_VERBOSITY: Final = {"debug": "info"}
"""How much Envoy is to log, by our level: its lines tell about Envoy, which concerns few."""


@dataclass(frozen=True, slots=True)
class Program:
    """What the Envoys run, and what it needs to know beside its place."""

    app: str = envoy.APP
    environment: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"
    log_format: str = "auto"


@dataclass(frozen=True, slots=True)
class Plan:
    """What all workers have in common; times in seconds."""

    program: Program
    listener: envoy.Configuration
    http: socket.socket
    board: Board
    workers: int
    options: Options
    certificates: Certificates | None
    drain_timeout: float


def run(plan: Plan, index: int, parent: int) -> int:
    """Be the worker *index* until its Envoy has ended; *parent* is a descriptor that ends with the parent."""
    with _directory() as directory:
        return _EnvoyWorker(plan, index, parent, directory).run()


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Make a directory for sockets and keys that only this user can enter."""
    place = SCRATCH if os.access(SCRATCH, os.W_OK) else None
    made = Path(tempfile.mkdtemp(prefix="extauthz-", dir=place))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class _EnvoyWorker:
    def __init__(self, plan: Plan, index: int, parent: int, directory: Path) -> None:
        self._plan = plan
        self._index = index
        self._parent: int | None = parent
        self._supervisor = os.getppid()
        self._admin = str(directory / "admin.sock")
        self._directory = directory
        self._material = None if plan.certificates is None else plan.certificates.current()
        self._control, self._inside = socket.socketpair()
        self._listening = True
        """Whether the Python inside Envoy may still say something."""
        self._stops = 0
        self._reload = False
        self._told = 0
        self._kill_at = float("inf")
        self._code: int | None = None

    def run(self) -> int:
        """Start Envoy, mind it, and return the exit code."""
        if self._material is not None:
            envoy.write_secrets(self._directory, self._material)
        with _woken_by(signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, call=self._on_signal) as woken:
            process = self._spawned()
            self._inside.close()
            log = _Log(process)
            while process.poll() is None:
                self._wait(woken, log)
                self._pass_on_reload()
                self._pass_on_stop(process)
                self._renew_certificate()
            log.read()
            self._hear()
            return self._exit_code(process.returncode)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._stops += number == signal.SIGTERM
        self._reload |= number == signal.SIGHUP

    def _spawned(self) -> subprocess.Popen[bytes]:
        plan, program = self._plan, self._plan.program
        log = os.dup(sys.stderr.fileno())  # Envoy's own standard error is a pipe to us
        place = Place(
            index=self._index,
            workers=plan.workers,
            board=plan.board.file,
            control=self._inside.fileno(),
            http=plan.http.fileno(),
            log=log,
            admin=self._admin,
            log_level=program.log_level,
            log_format=program.log_format,
        )
        configuration = envoy.bootstrap(
            plan.listener,
            plan.options,
            admin=self._admin,
            secrets=None if self._material is None else self._directory,
            client_certificate=self._material is not None and self._material.client_ca is not None,
            app=program.app,
        )
        try:
            return subprocess.Popen(  # noqa: S603  # our own command line, no shell
                envoy.command(configuration, _VERBOSITY.get(program.log_level, "warning")),
                stdin=subprocess.DEVNULL,
                process_group=0,  # a terminal's Ctrl-C is for the supervisor, which passes it on
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **envoy.environment(), **program.environment, PLACE: place.write()},
                pass_fds=(place.board, place.control, place.http, log),
            )
        finally:
            os.close(log)

    def _wait(self, woken: int, log: _Log) -> None:
        """Sleep until something happens, and deal with what can be read."""
        timeouts = [self._kill_at - time.monotonic(), LOOK if self._material is not None else float("inf")]
        timeout = max(min(timeouts), 0)
        sources = [woken, *log.descriptors]
        sources += [] if self._parent is None else [self._parent]
        sources += [self._control.fileno()] if self._listening else []
        ready = select.select(sources, [], [], None if timeout == float("inf") else timeout)[0]
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if self._control.fileno() in ready:
            self._hear()
        if self._parent in ready:
            logger.error("the supervising process is gone: stopping")
            self._parent = None
            self._stops = max(self._stops, 1)
        log.read()

    def _hear(self) -> None:
        """Take what the Python inside Envoy says: that all workers are to reload, and at its end its code."""
        with contextlib.suppress(BlockingIOError, OSError):
            said = self._control.recv(1, socket.MSG_DONTWAIT)
            if said == RELOADED:
                if os.getppid() == self._supervisor:  # and not whoever adopts orphans
                    os.kill(self._supervisor, signal.SIGHUP)
            elif said:
                self._code = said[0]
            self._listening = bool(said)

    def _pass_on_reload(self) -> None:
        if self._reload:
            self._reload = False
            self._say(RELOAD)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it is ending already
            self._control.send(word)

    def _pass_on_stop(self, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        if self._stops > self._told and self._plan.board[self._index] == State.STARTING:
            process.kill()  # nobody was served yet, and an Envoy that is starting hears no signal
            self._told, self._code = self._stops, 0
        while self._told < min(self._stops, 2):
            self._told += 1
            self._kill_at = now + (self._plan.drain_timeout if self._told == 1 else 0) + GRACE
            self._say(LEAVE)
        if now >= self._kill_at:
            logger.error("Envoy did not stop in time: killed", extra={"envoy": process.pid})
            process.kill()
            self._code, self._kill_at = KILLED, float("inf")

    def _renew_certificate(self) -> None:
        if self._plan.certificates is None:
            return
        material = self._plan.certificates.current()
        if material is not self._material:
            self._material = material
            envoy.write_secrets(self._directory, material)

    def _exit_code(self, returned: int) -> int:
        """Return what the service said; else, of an Envoy that ended by itself, something that is not 0."""
        if self._code is not None:
            return self._code
        if returned < 0:
            logger.error("Envoy ended by a signal: %s", signal.Signals(-returned).name)
        return returned if returned > 0 else KILLED


@contextlib.contextmanager
def _woken_by(*numbers: signal.Signals, call: Callable[[int, FrameType | None], None]) -> Iterator[int]:
    """Let *call* have the signals, and each of them wake the yielded descriptor."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    for number in numbers:
        signal.signal(number, call)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    yield read  # this process ends with what runs here: nothing is put back


class _Log:
    """What an Envoy prints: its own lines are JSON (see :func:`extauthz.transport.envoy.bootstrap`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None:
            raise ValueError("the output of the process is not read by us")
        self._pid = process.pid
        self._stream = process.stdout.fileno()
        os.set_blocking(self._stream, False)
        self._rest = b""
        self.descriptors = [self._stream]
        """To wait for; none when there is nothing more to come."""

    def read(self) -> None:
        """Log what has come, in whole lines."""
        while self.descriptors:
            try:
                got = os.read(self._stream, 65536)
            except BlockingIOError:
                return
            *lines, self._rest = (self._rest + got).split(b"\n")
            if not got:
                self.descriptors = []
                lines.append(self._rest)
            for line in lines:
                self._log(line)
            if len(self._rest) > MAX_LINE:
                self._log(self._rest)
                self._rest = b""

    def _log(self, line: bytes) -> None:
        name, level, message = _parsed(line)
        if message and logging.getLogger(name).isEnabledFor(level):
            known = {"name": name, "levelno": level, "levelname": logging.getLevelName(level)}
            record = logging.makeLogRecord({**known, "msg": message, "process": self._pid})
            logging.getLogger(name).handle(record)


def _parsed(line: bytes) -> tuple[str, int, str]:
    """Return logger, level and message of a line; what is not Envoy's, pyvoy printed in need."""
    try:
        entry = orjson.loads(line)
        return f"envoy.{entry[envoy.LINE]}", _LEVELS.get(entry["level"], logging.INFO), entry["message"]
    except (ValueError, TypeError, KeyError):
        return "envoy", logging.ERROR, line.decode("utf-8", "replace").strip()
