"""What a target finds out for an action and the roles of a principal, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.engine import Engine
from engine.rules import Selector

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

POLICY = """
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  rules:
    - {actions: ["edit:*", "e*"], effect: EFFECT_ALLOW, roles: [user, admin]}
"""


def test_an_action_is_matched_once_for_all_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many roles a principal has, the globs of a rule look at an action once."""
    (tmp_path / "doc.yaml").write_text(POLICY, encoding="utf-8")
    target = Engine.from_directory(tmp_path).table.target("doc", "default", "")
    assert target is not None
    asked, count = [], Selector.count

    def counted(self: Selector, texts: tuple[str, ...]) -> int:
        asked.append(texts)
        return count(self, texts)

    monkeypatch.setattr(Selector, "count", counted)
    ways = target.ways("edit:1", (*(f"r{n}" for n in range(100)), "user"))
    assert asked.count(("edit:1",)) == 1
    assert [len(way) for way in ways] == [0] * 100 + [1]
