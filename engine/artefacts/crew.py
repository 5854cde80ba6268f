"""Processes that read files and compile expressions beside this one.

Each is a Python of its own, started anew and not forked: this process may have threads, and what libraries
hold does not survive a fork. It runs nothing of the program that uses the engine. Files go to it through a
pipe, artefacts come back; with the pipe it ends. What it does not deliver is made here.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import marshal
import os
import struct
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, cast

from engine.artefacts.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.artefacts.bench import Bench
    from engine.cel import Environment, Expression
    from engine.rules import Settings

logger = logging.getLogger(__name__)

CHUNK = 40
"""Files that are handed over at a time."""

PATIENCE = 30.0
"""Seconds that a process has to deliver its last files once there are no more; then it is given up."""

MOST = 8
"""More processes than that are not started, however many processors there are."""

MAX_ANSWER = 1 << 30

_SIZE = struct.Struct("<Q")

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from engine.artefacts.crew import work; work()"
)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_together(
    bench: Bench,
    settings: Settings,
    environment: Environment,
    files: Mapping[str, bytes],
    helpers: int,
) -> list[Expression]:
    """Read *files* and compile their expressions onto *bench*, here and in so many other processes.

    Returns what has to be held for as long as *environment* is to remember the expressions made here.
    """
    waiting = _Chunks(files)
    crew = [_Helper(bench.edition, settings, waiting) for _ in range(helpers)]
    for helper in crew:
        helper.start()
    held: list[Expression] = []
    try:
        while (chunk := waiting.take()) is not None:
            held += bench.make(chunk, environment)
    finally:
        for helper in crew:
            bench.made.update(helper.ended())
    return held


class _Chunks:
    """The files that nobody has taken yet."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        pairs = list(files.items())
        starts = range(0, len(pairs), CHUNK)
        self._waiting = collections.deque(dict(pairs[start : start + CHUNK]) for start in starts)

    def take(self) -> dict[str, bytes] | None:
        """Return some files, ``None`` when there are no more."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def give_back(self, chunk: dict[str, bytes]) -> None:
        """Let somebody else have them."""
        self._waiting.append(chunk)


class _Helper(threading.Thread):
    """One process, and the thread that talks to it."""

    def __init__(self, edition: bytes, settings: Settings, waiting: _Chunks) -> None:
        super().__init__(name="policy-compiler", daemon=True)
        self._hello = edition, settings.runtime_action, settings.schema_enforcement
        self._waiting = waiting
        self._made = Shelf()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def ended(self) -> Mapping[bytes, bytes]:
        """Wait for the end, not for ever; return what was made."""
        self.join(PATIENCE)
        if self.is_alive():
            self._given_up = True
            self._end()
            self.join(PATIENCE)
            return {}
        return self._made

    def run(self) -> None:
        """Hand over files until there are none, or until the process fails."""
        chunk: dict[str, bytes] | None = None
        try:
            talk = self._begun()
            while not self._given_up and (chunk := self._waiting.take()) is not None:
                self._made.update(talk(chunk))
        except Exception as error:  # whatever it is, the work is done without this process
            logger.info("a process that compiles policies failed (%r): going on without it", error)
            if chunk is not None:
                self._waiting.give_back(chunk)
        finally:
            self._end()

    def _begun(self) -> Callable[[Any], Any]:
        if not sys.executable:
            raise OSError("the path of the Python interpreter is not known")
        self._process = process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-I", "-c", PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        there, back = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

        def talk(message: Any) -> Any:
            _send(there, message)
            return _receive(back)

        edition = self._hello[0]
        if talk(self._hello) != edition:
            raise OSError("it is of another edition")
        return talk

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()  # it keeps nothing that could be lost
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _send(pipe: IO[bytes], message: Any) -> None:
    data = marshal.dumps(message)
    pipe.write(_SIZE.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    (size,) = _SIZE.unpack(_exactly(pipe, _SIZE.size))
    if size > MAX_ANSWER:
        raise OSError("the answer is too large")
    return marshal.loads(_exactly(pipe, size))  # noqa: S302 - from a process that we have started


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError("it has ended")
    return data


# -- in the other process ----------------------------------------------------------------------------------


def work() -> None:
    """Answer what comes through the pipe until it ends."""
    import gc  # noqa: PLC0415 - this half runs in a process of its own

    from engine.artefacts.bench import Bench  # noqa: PLC0415 - as above
    from engine.artefacts.edition import edition  # noqa: PLC0415
    from engine.compile import environment_of  # noqa: PLC0415
    from engine.rules import Settings  # noqa: PLC0415

    gc.disable()  # it makes no garbage in cycles, and does not live long
    here, back = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed by mistake must not get between the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        wanted, runtime_action, enforcement = _receive(here)
        settings = Settings(runtime_action=runtime_action, schema_enforcement=enforcement)
        known = edition(settings)
        _send(back, known)
        environment = environment_of(settings)
        held = []  # a text that comes again is not compiled, and not sent, again
        while known == wanted:
            files = _receive(here)
            environment.kept = bench = Bench(wanted)
            held += bench.make(files, environment)
            _send(back, dict(bench.made))
