"""The example of docs/planning.md runs, and says what it says that it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/planning.md"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example makes the filter, the condition and the answer that its comments promise."""
    (tmp_path / "policies").mkdir()
    text = DOCUMENT.read_text(encoding="utf-8")
    [policy] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "policies/document.yaml").write_text(policy)
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    for block in code:
        exec(block, names)  # noqa: S102 - our own documentation
    assert names["plan"].debug in code[0]
    assert "documents.public" in str(names["query"])
    assert names["may_read"]({"owner": "alice", "public": False}) is True
    assert names["may_read"]({"owner": "bob", "public": False}) is False
