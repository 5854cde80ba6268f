"""YAML and JSON text as plain values with places."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine import document
from engine.document import DocumentError, Place, did_you_mean, json_path, parse, parse_all

NUMBER_OF_YAML_1_2 = re.compile(r"[-+]?[0-9_]+[eE][-+]?[0-9]+|0o[0-7]+")
"""Text that PyYAML, which writes YAML 1.1, leaves without quotes though it is a number for us."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON's escapes for these are no YAML: surrogates do not pair up, and the line separators fold.
    | st.text(
        st.characters(
            exclude_categories=("Cs", "Cc", "Co", "Cn"),
            max_codepoint=0xFFFF,
            exclude_characters="\u2028\u2029\ufeff",
        )
    ).filter(lambda text: not NUMBER_OF_YAML_1_2.fullmatch(text)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abc<~", max_size=3).filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_json_is_read_as_it_is(value: Any) -> None:
    """Every JSON document means in YAML what it means in JSON."""
    assert parse(json.dumps(value, ensure_ascii=False), "x.json").value == value


@given(JSON)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    """Values that PyYAML writes come back the same."""
    assert parse(yaml.safe_dump(value, allow_unicode=True), "x.yaml").value == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the text, there is a value or a DocumentError."""
    with contextlib.suppress(DocumentError):
        parse_all(text, "x.yaml")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes, there is a value or a DocumentError."""
    with contextlib.suppress(DocumentError):
        parse_all(data, "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2021-02-10", "2021-02-10"),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("+1", 1),
        ("-", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("True", True),
        ("=", "="),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!int '1'", 1),
        ("!!float 1", 1.0),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    """Words and numbers without quotes mean what YAML 1.2 says."""
    if text == "-":
        assert parse("- ", "x.yaml").value == [None]
    else:
        found = parse(f"a: {text}", "x.yaml").value["a"]
        assert found == value
        assert type(found) is type(value)


TEXT = """\
# a comment
first: 1
list:
  - a
  - key: v
    other: [x, {deep: y}]
base: &base {one: 1, two: 2}
merged:
  <<: *base
  two: 3
camelCase: yes
snake_case: 007
"""


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        ((), False, (2, 1)),
        (("first",), False, (2, 8)),
        (("first",), True, (2, 1)),
        (("list", 0), False, (4, 5)),
        (("list", 1), False, (5, 5)),
        (("list", 1, "other", 1, "deep"), False, (6, 23)),
        (("list", 1, "other", 1, "deep"), True, (6, 17)),
        (("merged", "one"), False, (7, 19)),
        (("merged", "two"), False, (10, 8)),
        (("snakeCase",), False, (12, 13)),
        (("list", 9), False, (4, 3)),
        (("list", 1, "missing"), True, (5, 5)),
        (("nothing", "here"), False, (2, 1)),
    ],
)
def test_places(path: document.Path, key: bool, place: tuple[int, int]) -> None:
    """A path leads to the line and column of its value or key, or of the nearest value around it."""
    read = parse(TEXT, "x.yaml")
    read.forget_nodes()
    assert read.place(path, key=key) == Place(*place)


def test_the_text_of_a_scalar_is_kept() -> None:
    """A number can be had as it was written."""
    read = parse(TEXT, "x.yaml")
    assert read.value["snake_case"] == 7
    assert read.source_text(("snakeCase",)) == "007"
    assert read.source_text(("list",)) is None


def test_merge_keys() -> None:
    """Explicit keys win over merged ones, and earlier sources over later ones."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}"
    assert parse(text, "x.yaml").value["c"] == {"x": 1, "y": 1, "z": 3}
    with pytest.raises(DocumentError, match="`<<` takes a mapping"):
        parse("a: {<<: 1}", "x.yaml")
    assert parse("'<<': 1", "x.yaml").value == {"<<": 1}


def test_empty_texts_have_no_value() -> None:
    """Nothing, spaces, comments and empty documents are documents without a value."""
    for text in ("", "   ", "# c", "---", "---\n...\n", "\ufeff"):
        assert parse(text, "x.yaml").value is None
    assert parse("# c\n---\n---\na: 1\n---\n", "x.yaml").value == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 1_000_000, "- " * 1_000_000, "{a: " * 300_000, "? " * 1_000_000])
def test_deep_texts_are_refused(text: str) -> None:
    """Nesting without end is a fault, not a crash."""
    with pytest.raises(DocumentError):
        parse(text, "x.yaml")


def test_depth_counts_aliases() -> None:
    """A chain of aliases cannot build what could not be written down."""
    chain = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(200))
    with pytest.raises(DocumentError, match="nested deeper than 64"):
        parse(chain, "x.yaml")


def test_large_texts_are_refused() -> None:
    """A file has a largest size."""
    with pytest.raises(DocumentError, match="larger than"):
        parse("a" * (document.MAX_BYTES + 1), "x.yaml")


def test_all_faults_are_reported() -> None:
    """Independent mistakes are listed together, in order."""
    with pytest.raises(DocumentError) as caught:
        parse("b: 1\nb: 2\na: !x 1\n? [k]\n: v\n", "x.yaml")
    assert [str(fault) for fault in caught.value.faults] == [
        'x.yaml:2:1: mapping key "b" already defined at [1:1]',
        "x.yaml:3:4: the tag `!x` is not supported",
        "x.yaml:4:3: a key must be text",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"a: \xff", "x.yaml:1:4: the text is not UTF-8"),
        ("a: 1\nb: \x01", "x.yaml:2:4: the character U+0001 is not allowed"),
        ("a: *x", "x.yaml:1:4: found undefined alias"),
        ("a: !!int x", "x.yaml:1:4: the value does not fit its type"),
        (f"a: {'9' * 5000}", "x.yaml:1:4: the value does not fit its type"),
    ],
)
def test_unreadable_texts(text: str | bytes, fault: str) -> None:
    """What cannot be read is placed."""
    with pytest.raises(DocumentError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value) == fault


def test_paths_are_written_as_in_cerbos() -> None:
    """A path in an error report is a JSON path."""
    assert json_path(("resourcePolicy", "rules", 0, "effect")) == "$.resourcePolicy.rules[0].effect"
    assert json_path(("definitions", "a.b")) == "$.definitions.'a.b'"


def test_near_misses() -> None:
    """A word that is nearly right is suggested, another one is not."""
    assert did_you_mean("resourc", ["resource", "version"]) == "did you mean `resource`?"
    assert did_you_mean("xyz", ["resource", "version"]) == ""
