"""Cerbos's key set corpus: which keys are accepted, and the words for those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from extauthz.keysets import KeyFormat, KeySetError, parse_keys
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "cerbos/auxdata"


def cases() -> Iterator[tuple[str, Any]]:
    """Give each case with its name."""
    for path in sorted(corpus(NAME).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


@pytest.mark.parametrize("case", parameters(NAME, cases()))
def test_key_set(case: dict[str, Any]) -> None:
    """A key set is read, or refused with Cerbos's words among ours."""
    wanted = case.get("wantErr") or case.get("wantLocalErr")
    text = case["input"]["key"].encode()
    form = KeyFormat(pem=case["input"].get("pem", False))
    if not wanted:
        assert parse_keys(text, form).members
        return
    with pytest.raises(KeySetError) as error:
        parse_keys(text, form)
    assert wanted in str(error.value)
