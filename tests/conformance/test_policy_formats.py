"""Cerbos's examples of each kind of policy, in YAML and in JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from engine import PolicyError, load_policy
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORPUS = "cerbos/policy_formats"


def pairs() -> Iterator[tuple[str, Path]]:
    for path in sorted(corpus(CORPUS).glob("*.json")):
        yield path.stem, path


@pytest.mark.parametrize("path", parameters(CORPUS, pairs()))
def test_yaml_and_json_mean_the_same(path: Path) -> None:
    """A policy written in YAML and the same policy written in JSON are equal."""
    from_json = load_policy(path.read_bytes(), path.name)
    from_yaml = load_policy(path.with_suffix(".yaml").read_bytes(), path.name)
    assert from_json is not None
    assert from_yaml is not None
    ignored = {"document"}
    fields = [field.name for field in dataclasses.fields(from_json) if field.name not in ignored]
    assert {name: getattr(from_json, name) for name in fields} == {
        name: getattr(from_yaml, name) for name in fields
    }


@pytest.mark.parametrize(
    "path",
    parameters(
        CORPUS,
        (
            (name, corpus(CORPUS) / name)
            for name in ("single_policy_others_commented.yaml", "single_policy_trailing_spaces.yaml")
        ),
    ),
)
def test_one_policy_among_comments_and_spaces(path: Path) -> None:
    """Comments, empty documents and trailing spaces around one policy do not count."""
    assert load_policy(path.read_bytes(), path.name) is not None


@pytest.mark.parametrize(
    "path", parameters(CORPUS, [("multiple_policies.yaml", corpus(CORPUS) / "multiple_policies.yaml")])
)
def test_several_policies_in_a_file(path: Path) -> None:
    """A file with two policies is refused, at the second one."""
    with pytest.raises(PolicyError, match="more than one YAML document detected") as caught:
        load_policy(path.read_bytes(), path.name)
    assert caught.value.faults[0].line > 1
