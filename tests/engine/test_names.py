"""Names of policies: what counts as the same, and how decisions report them."""

from __future__ import annotations

import pytest

from engine import names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("leave_request", "leave_request"),
        ("leave-request", "leave_request"),
        ("album:object", "album_object"),
        ("a@b.com", "a_b.com"),
        ("a:b::c", "a:b::c"),
        ("a-@/b", "a_b"),
        ("9x:y", "9x:y"),
        ("x:9y", "x:9y"),
        ("album:*", "album:*"),
        ("été", "été"),
        ("", ""),
    ],
)
def test_sanitised(name: str, expected: str) -> None:
    """Runs of punctuation become one underscore, in names of the usual shape only."""
    assert names.sanitised(name) == expected


def test_keys() -> None:
    """A key tells kind, name, version and scope."""
    assert names.resource_key("a:b", "v1") == "resource.a_b.vv1"
    assert names.resource_key("a", "1", "acme.hr") == "resource.a.v1/acme.hr"
    assert names.principal_key("john", "default") == "principal.john.vdefault"
    assert names.role_key("acme_admin", "default", "acme") == "role.acme_admin.vdefault/acme"
    assert names.derived_roles_key("common_roles") == "derived_roles.common_roles"
    assert names.export_variables_key("x") == "export_variables.x"
    assert names.export_constants_key("x") == "export_constants.x"


def test_rules_without_a_name_are_numbered() -> None:
    """An unnamed rule is called by its position, counted from 1."""
    assert names.resource_rule_name("", 7) == "rule-007"
    assert names.resource_rule_name("mine", 7) == "mine"
    assert names.principal_rule_name("", "doc:*", 2) == "doc:*_rule-002"
    assert (
        names.rule_source("resource.doc.vdefault/acme", "rule-001") == "resource.doc.vdefault/acme#rule-001"
    )


def test_scopes_go_up_to_the_root() -> None:
    """The ancestors of a scope, nearest first, end with the root."""
    assert names.ancestors("a.b.c") == ("a.b", "a", "")
    assert names.ancestors("") == ()
    assert names.scope_value(".a.b") == "a.b"
    assert names.scope_value("..a") == ".a"
