"""Servers under measurement: started, awaited; what the kernel accounts to them and their children."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import engine
import extauthz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

PATIENCE: Final = 60.0
"""Seconds in which a server has to come up; and to leave when it is asked to."""
LOOK_AGAIN: Final = 0.02
TICKS: Final = os.sysconf("SC_CLK_TCK")
LOG_LINES: Final = 20


class StartError(RuntimeError):
    """A server did not come up; says which, and the end of what it printed."""


@contextmanager
def running(
    command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command*, its output in *log*; at the end it is asked to go, and killed if it does not.

    What it leaves behind is killed, too. If we are killed, the kernel asks it to go.
    """
    if setpriv := shutil.which("setpriv"):  # it becomes the command and stays the same process
        command = [setpriv, "--pdeathsig=TERM", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 # our own words
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)
    finally:  # also when whoever waits has had enough and presses Ctrl-C again
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], patience: float = PATIENCE
) -> None:
    """Wait until *ready*.

    Raises:
        StartError: the process has ended, or *patience* (seconds) is over.

    """
    deadline = time.monotonic() + patience
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            what = "ended" if ended else f"was not ready after {patience:.0f} s"
            raise StartError(f"`{process.args!r}` {what}; it said:\n{said}")
        time.sleep(LOOK_AGAIN)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def compile_modules() -> None:
    """Leave our modules compiled, as pip does when it installs them.

    In a clone they may not be: every start would compile them anew where ``PYTHONDONTWRITEBYTECODE`` is set,
    0.2 s of the 0.95 s that a server took.
    """
    for package in (engine, extauthz):
        compileall.compile_dir(Path(package.__path__[0]), quiet=1)


# --- accounts of the kernel -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes hold, in MiB."""

    rss: float
    """Pages in memory, those that several processes share counted for each."""
    pss: float
    """The same, shared pages counted once, in parts (``proc_pid_smaps(5)``)."""


def tree(roots: Iterable[int]) -> list[int]:
    """List processes and all that they have started."""
    found = list(roots)
    for pid in found:
        found += [child for child in _children(pid) if child not in found]
    return found


def _children(pid: int) -> list[int]:
    """List the processes that any thread of a process has started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for file in files for each in _read(file).split()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user and system time of processes so far (``proc_pid_stat(5)``, fields 14 and 15)."""
    stats = [_read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats if fields) / TICKS


def machine_cpu_seconds() -> float:
    """Return what all processes of the machine have used of its processors so far (``proc_stat(5)``)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / TICKS


def memory(pids: Iterable[int]) -> Memory:
    """Add up what processes hold."""
    kibibytes = {"Rss": 0, "Pss": 0}
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            name, _, value = line.partition(":")
            if name in kibibytes:
                kibibytes[name] += int(value.split()[0])
    return Memory(kibibytes["Rss"] / 1024, kibibytes["Pss"] / 1024)


def _read(file: Path) -> str:
    """Read a file of a process; nothing when the process has ended meanwhile."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
