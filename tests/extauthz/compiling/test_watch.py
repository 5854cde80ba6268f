"""`extauthz compile --watch`, as a process and with edits as people make them."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from extauthz.compiling import watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: document
  version: default
  rules: [{actions: [read], effect: EFFECT_ALLOW, roles: [user], condition: {match: {expr: R.attr.x == 1}}}]
"""
SUITE = """\
name: documents
principals: {ann: {id: ann, roles: [user]}}
resources: {one: {kind: document, id: one, attr: {x: 1}}}
tests:
  - name: reading
    input: {principals: [ann], resources: [one], actions: [read]}
    expected: [{principal: ann, resource: one, actions: {read: EFFECT_ALLOW}}]
"""
PATIENCE = 60.0


class Watched:
    """The command as a process, and what it has printed."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "extauthz", "compile", str(directory), "--watch", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def round(self) -> str:
        """Return what one round prints."""
        deadline, found = time.monotonic() + PATIENCE, ""
        while "waiting for changes" not in found:
            found += self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
        return found

    def is_quiet(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self._lines.empty()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "document.yaml").write_text(POLICY)
    (policies / "document_test.yaml").write_text(SUITE)
    return policies


@pytest.fixture
def watched(directory: Path) -> Iterator[Watched]:
    started = Watched(directory, "--coverage", f"html:{directory / 'coverage.html'}")
    yield started
    started.close()


def test_it_runs_again_after_each_edit(directory: Path, watched: Watched) -> None:
    """Good edits, broken ones and deletions are each followed by one round; Ctrl-C ends it well."""
    assert "1 tests executed [1 OK]" in watched.round()
    policy = directory / "document.yaml"

    policy.write_text(POLICY.replace("== 1", "== 2"))
    assert "tests failed" in watched.round()

    policy.write_text("apiVersion: [")
    assert "Load failures" in watched.round()

    replacement = directory / "document.yaml.new"
    replacement.write_text(POLICY)
    replacement.rename(policy)  # as editors save
    assert "1 tests executed [1 OK]" in watched.round()

    (directory / "document_test.yaml").unlink()
    assert "0 tests executed" in watched.round()
    assert watched.interrupt() == 0


def test_several_changes_are_one(directory: Path, watched: Watched) -> None:
    """Changes that come together are followed by one round; what does not concern policies by none."""
    watched.round()
    for number in range(5):
        (directory / f"more{number}.yaml").write_text(POLICY.replace("document", f"more{number}"))
    assert "1 tests executed [1 OK]" in watched.round()
    (directory / "notes.txt").write_text("nothing")
    assert watched.is_quiet(2.0)


def test_a_directory_that_is_replaced_is_found_again(directory: Path, watched: Watched) -> None:
    """A checkout that moves the directory away and puts another in its place is a change like any."""
    watched.round()
    directory.rename(directory.with_name("old"))
    other = directory.with_name("other")
    other.mkdir()
    (other / "document.yaml").write_text(POLICY)
    other.rename(directory)
    (directory / "document_test.yaml").write_text(SUITE)
    rounds = iter(watched.round, "")
    assert any("--- " in shown and "1 tests executed [1 OK]" in shown for shown in rounds)
    (directory / "document.yaml").write_text(POLICY.replace("== 1", "== 2"))
    assert "tests failed" in watched.round()


def test_a_bug_does_not_end_the_watch(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a round raises is shown, and the next change waited for."""

    def occasions(*_: Any) -> Iterator[None]:
        yield from (None, None)

    def fail() -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(watch, "_occasions", occasions)
    watch.repeat(fail, [directory])
    shown = capsys.readouterr()
    assert shown.err.count("internal error: ValueError('a bug')") == 2
    assert shown.out.count("waiting for changes") == 2
