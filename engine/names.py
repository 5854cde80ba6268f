"""How policies are called: the identity of a policy, and the name under which a decision reports it.

The rules are Cerbos's, because policy keys and rule names appear in its answers, logs and tests.
``resource.leave_request.vdefault/acme.hr`` is a policy key; with ``cerbos.`` in front it is the fully
qualified name. A kind is made safe for a key by turning runs of other characters into ``_``, so ``a-b``,
``a:b`` and ``a_b`` are one and the same policy.
"""

from __future__ import annotations

import re

DEFAULT_VERSION = "default"

# ASCII, as in Go's regular expressions.
_KEY_SAFE = re.compile(r"[A-Za-z][\w@.\-/]*(?::[A-Za-z][\w@.\-/]*)*", re.ASCII)
_UNSAFE_RUN = re.compile(r"[^\w.]+", re.ASCII)


def sanitised(name: str) -> str:
    """Return *name* as it stands in a policy key; a name of another shape (a glob, say) stays as it is."""
    return _UNSAFE_RUN.sub("_", name) if _KEY_SAFE.fullmatch(name) else name


def resource_key(kind: str, version: str, scope: str = "") -> str:
    """Return the key of a resource policy."""
    return _scoped(f"resource.{sanitised(kind)}.v{version}", scope)


def principal_key(principal: str, version: str, scope: str = "") -> str:
    """Return the key of a principal policy."""
    return _scoped(f"principal.{sanitised(principal)}.v{version}", scope)


def role_key(role: str, version: str, scope: str = "") -> str:
    """Return the key of a role policy."""
    return _scoped(f"role.{sanitised(role)}.v{version}", scope)


def derived_roles_key(name: str) -> str:
    """Return the key of a set of derived roles."""
    return f"derived_roles.{sanitised(name)}"


def export_variables_key(name: str) -> str:
    """Return the key of a set of exported variables."""
    return f"export_variables.{sanitised(name)}"


def export_constants_key(name: str) -> str:
    """Return the key of a set of exported constants."""
    return f"export_constants.{sanitised(name)}"


def rule_source(policy_key: str, rule: str) -> str:
    """Return what an output names as its source."""
    return f"{policy_key}#{rule}"


def resource_rule_name(name: str, position: int) -> str:
    """Return the name of a resource policy's rule; *position* counts all rules of the policy from 1."""
    return name or f"rule-{position:03d}"


def principal_rule_name(name: str, resource: str, position: int) -> str:
    """Return the name of a principal policy's rule; *position* counts the rules of the resource from 1."""
    return name or f"{resource}_rule-{position:03d}"


def scope_value(scope: str) -> str:
    """Return a scope as it is compared: one leading dot dropped."""
    return scope.removeprefix(".")


def ancestors(scope: str) -> tuple[str, ...]:
    """Return the scopes above *scope*, nearest first, the root last: ``a.b`` -> ``("a", "")``."""
    found = []
    while scope:
        scope = scope.rpartition(".")[0]
        found.append(scope)
    return tuple(found)


def _scoped(key: str, scope: str) -> str:
    return f"{key}/{scope}" if scope else key
