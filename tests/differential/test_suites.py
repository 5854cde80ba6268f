"""Generated test suites, run by the real ``cerbos compile`` and by us: the same results, field by field.

One run of Cerbos takes a whole directory of suites (:mod:`tests.differential.suites` makes them).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from extauthz.compiling.stages import Request, compile_directory
from tests.differential import oracle
from tests.differential.suites import write

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

SUITES = 150
TESTS = Path(__file__).resolve().parents[1]


def theirs(root: Path, *arguments: str) -> tuple[int, Json]:
    """Return the exit code and the results of the real Cerbos."""
    found = oracle.compile_policies(root, "--output=json", "--test-output=json", *arguments)
    assert found.stdout, found.stderr
    return found.returncode, json.loads(found.stdout)


def ours(root: Path, **options: Any) -> tuple[int, Json]:
    """Return what our exit code would be, and our results."""
    compiled = compile_directory(Request(root, **options))
    results = compiled.run_tests(compiled.test_files())
    return 0 if results.ok else 4, json.loads(json.dumps(results.to_json()))


def comparable(value: Any) -> Any:
    """Return results without what Cerbos leaves to chance: the order of outputs, of faults without places."""
    if isinstance(value, dict):
        fields = {key: comparable(item) for key, item in value.items()}
        if isinstance(fields.get("outputs"), list):
            fields["outputs"] = sorted(
                fields["outputs"], key=lambda output: json.dumps(output, sort_keys=True)
            )
        return fields
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, str) and "\n" in value:
        return sorted(value.split("\n"))
    return value.replace("\u00a0", " ") if isinstance(value, str) else value


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field with its path."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from flat(item, f"{path}.{key}")
    else:
        yield path, value


FILTERS = ("suite=S*;principal=p_?", "action=view;action=view:*;action=wait", "test=*[01]")
RUNS: dict[str, tuple[int, tuple[str, ...], Json]] = {
    "plain": (20261122, (), {}),
    "again": (7, (), {}),
    "skip-batching": (11, ("--skip-batching",), {"batching": False}),
    "strict": (
        13,
        ("--strict-evaluation", "--ignore-schemas"),
        {"strict": True, "ignore_schemas": True},
    ),
    "filter": (17, tuple(f"--test-filter={text}" for text in FILTERS), {"filters": FILTERS}),
}
"""Seed, arguments for Cerbos, options for us."""


@pytest.mark.parametrize(("seed", "arguments", "options"), list(RUNS.values()), ids=list(RUNS))
def test_suites(seed: int, arguments: tuple[str, ...], options: Json, tmp_path: Path) -> None:
    """Every suite has the result that Cerbos finds: each test, each output, each error."""
    write(tmp_path, seed, SUITES)
    their_code, their_results = theirs(tmp_path, *arguments)
    our_code, our_results = ours(tmp_path, **options)
    assert our_code == their_code
    wanted, found = comparable(their_results), comparable(our_results)
    for want, have in zip(wanted["suites"], found["suites"], strict=True):
        assert dict(flat(have)) == dict(flat(want)), want["file"]
    assert found == wanted
    errors = [suite.get("error", "") for suite in their_results["suites"]]
    assert {"", "failed", "Failed", "Invalid"} <= {error.partition(" ")[0] for error in errors}


DIVERGENCES: dict[str, Any] = {
    name: divergence
    for name, divergence in yaml.safe_load((TESTS / "conformance/divergences.yaml").read_text()).items()
    if "suites" in divergence
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences(name: str, tmp_path: Path) -> None:
    """Where results differ on purpose, both of us do what the list of divergences says."""
    write(tmp_path, 0, 0)
    shown = yaml.safe_load((TESTS / f"cases/suites_unlike_cerbos/{name}.yaml").read_text())
    for path, text in shown["files"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    arguments = shown.get("arguments", [])
    found = oracle.compile_policies(tmp_path, "--output=json", *arguments)
    theirs = outcome(json.loads(found.stdout)) if found.stdout else ending(found.stderr)
    # Where Cerbos wavers, each of its endings is listed.
    assert theirs in (shown["cerbos"] if isinstance(shown["cerbos"], list) else [shown["cerbos"]])
    _, results = ours(tmp_path, **shown.get("options", {}))
    assert outcome(results) == shown["ours"]


def ending(errors: str) -> str:
    """Return the word for how Cerbos ended without results."""
    return "panic" if errors.startswith("panic") else "error" if "cerbos: error" in errors else errors


def outcome(results: Json) -> str:
    """Return the word for what became of all suites together."""
    overall: str = results["summary"]["overallResult"]
    return overall
