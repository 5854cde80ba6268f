"""Outside test data: where it is, what is in it, and which cases are not met yet.

The data is never copied into this repository. ``CONFORMANCE_DIR`` says where it is; tests that need it are
skipped where it is absent, except in CI (``CI=true``), where that is a failure. A case that is not met stands
in ``gaps.yaml`` with its reason; when it starts to pass, the run fails until it is taken off the list.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("CONFORMANCE_DIR", ROOT / "../shared/conformance")).resolve()
GAPS = Path(__file__).with_name("gaps.yaml")
REQUIRED = os.environ.get("CI", "").lower() == "true"


@cache
def gaps() -> dict[str, dict[str, str]]:
    """Return the cases that are not met, by corpus, with their reasons."""
    return yaml.safe_load(GAPS.read_text()) or {}


def corpus(name: str) -> Path:
    """Return the folder of a corpus (``cerbos/engine``)."""
    return DATA / name


def parameters(name: str, cases: Iterable[tuple[str, Any]]) -> list[Any]:
    """Return the parameters of a test over all *cases* (name and value) of the corpus *name*.

    A listed gap is expected to fail. Without the data there is one parameter, which is skipped, or fails in
    CI.
    """
    if not corpus(name).is_dir():
        reason = f"no conformance data in {DATA} (set CONFORMANCE_DIR)"
        if REQUIRED:
            raise FileNotFoundError(reason)
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]
    listed = gaps().get(name, {})
    found = list(cases)
    unknown = listed.keys() - {case for case, _ in found}
    if unknown:
        raise ValueError(f"{GAPS.name}: {name} has no case {', '.join(sorted(unknown))}")
    return [pytest.param(value, id=case, marks=_marks(listed.get(case))) for case, value in found]


def _marks(reason: str | None) -> list[pytest.MarkDecorator]:
    return [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]


def txtar(text: str) -> dict[str, str]:
    """Read Go's plain archive of files: ``-- name --`` before each content."""
    files: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("-- ") and line.rstrip().endswith(" --"):
            current = files.setdefault(line.strip()[3:-3], [])
        else:
            current.append(line)
    return {name: "".join(lines) for name, lines in files.items()}
