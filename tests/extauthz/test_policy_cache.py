"""The service keeps what its policies compile to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.artefacts import bench
from engine.load import load_policy
from tests.extauthz.service import CONFIGURATION, service

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: kind{number}
  version: default
  rules:
    - actions: [read]
      effect: EFFECT_ALLOW
      roles: [user]
      condition: {{match: {{expr: R.id == "{number}"}}}}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    for number in range(20):
        (directory / f"kind{number}.yaml").write_text(POLICY.format(number=number))
    return directory


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which files are read and not taken from the cache."""
    found: list[str] = []

    def noting(content: str | bytes, file: str) -> object:
        found.append(file)
        return load_policy(content, file)

    monkeypatch.setattr(bench, "load_policy", noting)
    return found


async def test_a_second_start_takes_policies_from_the_cache(
    policies: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word in the configuration, the cache is in the user's directory for caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    async with service(policies):
        pass
    assert len(read) == 21
    assert len(list((tmp_path / "caches/extauthz").glob("*.pack"))) == 1
    read.clear()
    async with service(policies) as made:
        assert made.readiness().components[0].detail == "21 policies"
    assert read == []


async def test_a_cache_that_cannot_be_made_stops_nothing(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no directory can be made, as in a container with a read-only root, policies are compiled."""
    (tmp_path / "caches").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    for _ in range(2):
        async with service(policies) as made:
            assert made.readiness().components[0].detail == "21 policies"


async def test_the_cache_can_be_switched_off(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    async with service(policies, configuration=f"{CONFIGURATION}\nengine: {{cache: {{enabled: false}}}}\n"):
        pass
    assert not (tmp_path / "caches").exists()
