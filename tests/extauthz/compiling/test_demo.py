"""The demo's policies have tests of their own, as those of any repository."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from extauthz.cli import main

POLICIES = Path(__file__).resolve().parents[3] / "envoy/demo/policies"


def test_the_tests_of_the_demo_pass() -> None:
    """``extauthz compile`` finds the demo's policies and tests good, and says so as the README does."""
    result = CliRunner().invoke(main, ["compile", str(POLICIES)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "24 tests executed [24 OK]"
