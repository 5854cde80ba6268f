"""Several workers: a process that serves nothing itself starts them, watches them, passes signals on.

Workers are forked, not spawned: what the parent has imported is there at once and its pages are shared.
That is safe because the parent has one thread and makes nothing of gRPC's, whose threads and descriptors do
not survive a fork: gRPC starts in each worker, with its first server.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from extauthz.board import Board, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    RunWorker = Callable[[int, int], int]
    """Called in the new process with the worker's index and the descriptor that ends with the parent; returns
    the exit code."""

logger = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
STEADY: Final = 60.0
"""Seconds of life after which a worker's earlier crashes are forgotten."""
MARGIN: Final = 10.0
"""Seconds beyond the drain timeout after which a worker that does not stop is killed."""

_STOP: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class _Seat:
    """A worker's place: its process comes and goes."""

    index: int
    pid: int = 0
    """0 while no process runs."""
    since: float = 0.0
    due: float = 0.0
    """When to start it, while no process runs."""
    crashes: int = 0
    served: bool = False
    """Whether a process in this seat ever got as far as serving."""


def delay(crashes: int) -> float:
    """Seconds to wait before the start after the *crashes*-th crash in a row (from 1)."""
    return min(FIRST_DELAY * 2.0 ** min(crashes - 1, 16), LONGEST_DELAY)


class Supervisor:
    """Keeps *count* workers running until a signal says stop."""

    def __init__(self, count: int, run_worker: RunWorker, board: Board, *, drain_timeout: float) -> None:
        self._seats = [_Seat(index) for index in range(count)]
        self._run_worker = run_worker
        self._board = board
        self._drain_timeout = drain_timeout
        self._code = 0
        self._stop_signals = 0
        self._forwarded = 0
        self._reload = False
        self._kill_at = float("inf")
        self._parent_read, self._parent_write = os.pipe()

    def run(self) -> int:
        """Supervise; return the exit code: 0 after a clean stop, else that of a worker that failed."""
        gc.collect()
        gc.freeze()  # the collector must not write to pages that the workers share
        with self._signals() as woken:
            while self._has_work():
                self._start_due()
                _wait(woken, self._next_event() - time.monotonic())
                self._forward_stop()
                self._forward_reload()
                self._reap()
        return self._code

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Count signals to stop, and make every signal, a child's end too, wake the yielded descriptor."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (*_STOP, signal.SIGHUP, signal.SIGCHLD)
        }
        previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield read
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number in _STOP:
            self._stop_signals += 1
        elif number == signal.SIGHUP:
            self._reload = True

    @property
    def _stopping(self) -> bool:
        return self._stop_signals > 0

    def _has_work(self) -> bool:
        return any(seat.pid for seat in self._seats) or not self._stopping

    def _next_event(self) -> float:
        waiting = [] if self._stopping else [seat.due for seat in self._seats if not seat.pid]
        return min((self._kill_at, *waiting))

    def _start_due(self) -> None:
        for seat in self._seats:
            if not seat.pid and not self._stopping and seat.due <= time.monotonic():
                self._start(seat)

    def _start(self, seat: _Seat) -> None:
        self._board[seat.index] = State.STARTING
        sys.stdout.flush()
        sys.stderr.flush()
        seat.since = time.monotonic()
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, (*_STOP, signal.SIGHUP)
        )  # none may reach our handlers in the new process
        seat.pid = os.fork()
        if seat.pid == 0:
            self._be_worker(seat.index)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be_worker(self, index: int) -> NoReturn:
        """Run in the new process; it must never return into the parent's code."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent passes it on
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload: it reads all when it starts
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOP, signal.SIGHUP))
            os.close(self._parent_write)
            code = self._run_worker(index, self._parent_read)
        except BaseException:
            logger.exception("worker %d ended", index + 1)
        finally:
            logging.shutdown()
            os._exit(code)

    def _forward_stop(self) -> None:
        """Pass on what has arrived; kill what has not ended in time."""
        now = time.monotonic()
        if self._stopping and self._kill_at == float("inf"):
            self._kill_at = now + self._drain_timeout + MARGIN
        for _ in range(min(self._stop_signals, 2) - self._forwarded):
            self._forwarded += 1
            self._send(signal.SIGTERM)
        if now >= self._kill_at:
            logger.error("workers did not stop in time: killed")
            self._code = self._code or 1
            self._send(signal.SIGKILL)
            self._kill_at = now + 1.0

    def _forward_reload(self) -> None:
        """Let every worker read its policies again."""
        if self._reload:
            self._reload = False
            self._send(signal.SIGHUP)

    def _send(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(seat.pid, number)

    def _reap(self) -> None:
        for seat in self._seats:
            if not seat.pid:
                continue
            pid, status = os.waitpid(seat.pid, os.WNOHANG)
            if pid:
                self._ended(seat, os.waitstatus_to_exitcode(status))

    def _ended(self, seat: _Seat, code: int) -> None:
        seat.pid = 0
        seat.served = seat.served or self._board[seat.index] != State.STARTING
        self._board[seat.index] = State.STARTING
        if self._stopping:
            self._code = self._code or (
                0 if code == -signal.SIGTERM else abs(code)
            )  # it had not begun to serve
        elif not seat.served:
            logger.critical("worker %d could not start: stopping", seat.index + 1)
            self._code = code if code > 0 else 1
            self._stop_signals = max(self._stop_signals, 1)
            self._forward_stop()
        else:
            self._restart_later(seat, code)

    def _restart_later(self, seat: _Seat, code: int) -> None:
        now = time.monotonic()
        seat.crashes = 1 if now - seat.since >= STEADY else seat.crashes + 1
        seat.due = now + delay(seat.crashes)
        logger.error(
            "worker %d ended (%s): starting it again in %.1f s",
            seat.index + 1,
            _reason(code),
            delay(seat.crashes),
        )


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _wait(descriptor: int, seconds: float) -> None:
    """Sleep until a signal comes or the time is over, and forget what woke us."""
    timeout = None if seconds == float("inf") else max(seconds, 0)
    if select.select([descriptor], [], [], timeout)[0]:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 4096)
